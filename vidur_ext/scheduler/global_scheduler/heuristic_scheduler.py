"""Every routing heuristic as a Vidur global scheduler with a config class of its own."""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Any

from vidur.config import BaseGlobalSchedulerConfig

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.env.snapshot import ArrivingRequest, ClusterSnapshot, Interval
from vidur_ext.scheduler.global_scheduler.heuristics import (
    ROUTING_HEURISTICS,
    Heuristic,
    RoutingContext,
)
from vidur_ext.scheduler.global_scheduler.routing_global_scheduler import RoutingGlobalScheduler
from vidur_ext.scheduler.global_scheduler.scheduler_type import RoutingSchedulerType


class HeuristicGlobalScheduler(RoutingGlobalScheduler):
    """Asks one heuristic. Its random stream follows Vidur's ``--seed``."""

    heuristic: Heuristic

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        self._context = RoutingContext(generator(config.seed, Purpose.SCHEDULER), self.estimator)

    def _route(
        self, snapshot: ClusterSnapshot, interval: Interval, request: ArrivingRequest
    ) -> int:
        return self.heuristic.choose(snapshot, request, self._context)


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _config_class(name: str) -> Any:
    kind = RoutingSchedulerType.from_str(name)
    return make_dataclass(
        f"{_class_name(name)}GlobalSchedulerConfig",
        [],
        bases=(BaseGlobalSchedulerConfig,),
        namespace={"get_type": staticmethod(lambda: kind), "__module__": __name__},
    )


HEURISTIC_CONFIGS = {name: _config_class(name) for name in ROUTING_HEURISTICS}
"""Config class per heuristic. Vidur finds them as subclasses of its own base class."""

HEURISTIC_SCHEDULERS = {
    name: type(
        f"{_class_name(name)}GlobalScheduler",
        (HeuristicGlobalScheduler,),
        {"heuristic": heuristic, "__doc__": heuristic.choose.__doc__},
    )
    for name, heuristic in ROUTING_HEURISTICS.items()
}
