"""The planners in Vidur's seat: they simulate the cluster alongside, and every choice with it."""

# Vidur makes flags of the annotations themselves: they must be types, so this module does not
# postpone their evaluation.
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from vidur.config import BaseGlobalSchedulerConfig

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.sections import LookaheadSection
from vidur_ext.engine.lookahead import ClusterTwin
from vidur_ext.vidur.cluster import OwnDevices, replica_kinds
from vidur_ext.vidur.cluster_numbers import Replicas, cluster_in_numbers
from vidur_ext.vidur.types import RoutingSchedulerType


@dataclass
class LookaheadGlobalSchedulerConfig(BaseGlobalSchedulerConfig):
    """Flags of the global scheduler ``lookahead``."""

    ttft_weight: float = field(
        default=LookaheadSection().ttft_weight,
        metadata={"help": "What a second to the first token weighs beside one to the last."},
    )

    @staticmethod
    def get_type() -> Any:
        """Return the type key."""
        return RoutingSchedulerType.LOOKAHEAD


@dataclass
class ClairvoyantGlobalSchedulerConfig(LookaheadGlobalSchedulerConfig):
    """Flags of the global scheduler ``clairvoyant``."""

    @staticmethod
    def get_type() -> Any:
        """Return the type key."""
        return RoutingSchedulerType.CLAIRVOYANT


class PlannerGlobalScheduler(OwnDevices):
    """Takes the choice that costs least. Its ties follow Vidur's ``--seed``.

    Raises:
        UserError: only Vidur simulates the cluster, or the signals are delayed.
    """

    def __init__(self, config: Any, replicas: Any) -> None:
        super().__init__(config, replicas)
        self._order = list(self._replica_schedulers)
        self._block_size = config.cluster_config.cache_config.block_size
        own = config.cluster_config.global_scheduler_config
        self._twin = ClusterTwin(
            cluster_in_numbers(self._replicas_of(config), config.cluster_config),
            str(own.get_type()),
            own.ttft_weight,
            generator(config.seed, Purpose.SCHEDULER),
        )

    def _replicas_of(self, config: Any) -> Replicas:
        kinds, kind_of = replica_kinds(config.cluster_config)
        schedulers = list(self._replica_schedulers.values())
        one_of_each = [schedulers[kind_of.index(kind)] for kind in range(len(kinds))]
        return Replicas(one_of_each, np.array(kind_of, dtype=np.int64))

    def schedule(self) -> list[tuple[Any, Any]]:
        """Return (replica id, request) for every request that has arrived."""
        self.sort_requests()
        arrived = list(self._request_queue)
        self._request_queue.clear()
        return [(self._order[self._route(request)], request) for request in arrived]

    def _route(self, request: Any) -> int:
        identities = getattr(request, "identities", None)
        return self._twin.route(
            request._arrived_at,
            request._num_prefill_tokens,
            request._num_decode_tokens,
            None if identities is None else np.array(identities(self._block_size)),
            waited=getattr(request, "awaited", None) is not None,
        )


PLANNER_CONFIGS = (LookaheadGlobalSchedulerConfig, ClairvoyantGlobalSchedulerConfig)
"""One config class for each of ``sections.PLANNERS``."""
