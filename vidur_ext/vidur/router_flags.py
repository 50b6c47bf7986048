"""The heuristics as Vidur's flags know them, each with what it can be told: ``config.routers``."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import ValidationError
from vidur.config import BaseGlobalSchedulerConfig

from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import Location, is_model
from vidur_ext.config.problems import describe_problems, join_problems
from vidur_ext.config.routers import RoutersSection
from vidur_ext.config.sections import HEURISTIC_NAMES
from vidur_ext.routing.thresholds import Thresholds, thresholds_of
from vidur_ext.vidur.types import RoutingSchedulerType


def class_name(heuristic: str) -> str:
    """Return the beginning of the names of a heuristic's classes."""
    return "".join(part.capitalize() for part in heuristic.split("_"))


def _flag(name: str, help_text: str | None, default: float) -> tuple[str, Any, Any]:
    return name, float, dataclasses.field(default=default, metadata={"help": help_text})


def _flags(heuristic: str) -> list[tuple[str, Any, Any]]:
    field = RoutersSection.model_fields.get(heuristic)
    if field is None:
        return []
    assert is_model(field.annotation)
    keys = field.annotation.model_fields.items()
    return [_flag(name, key.description, key.default) for name, key in keys]


def _config_class(heuristic: str) -> Any:
    kind = RoutingSchedulerType.from_str(heuristic)
    return dataclasses.make_dataclass(
        f"{class_name(heuristic)}GlobalSchedulerConfig",
        _flags(heuristic),
        bases=(BaseGlobalSchedulerConfig,),
        namespace={"get_type": staticmethod(lambda: kind), "__module__": __name__},
    )


HEURISTIC_CONFIGS = {name: _config_class(name) for name in HEURISTIC_NAMES}
"""Config class per heuristic. Vidur finds them as subclasses of its own base class."""


def told(routers: RoutersSection, scheduler: str) -> dict[str, float]:
    """Return what a global scheduler is told; nothing for those that cannot be told anything."""
    section = routers.model_dump()
    numbers: dict[str, float] = section.get(scheduler, {})
    return numbers


def prefixed(scheduler: str, name: str) -> str:
    """Return the name of the flag of one number that a global scheduler is told."""
    return f"{scheduler}_global_scheduler_config_{name}"


def flagged_thresholds(config: Any) -> Thresholds:
    """Return what the global scheduler of Vidur's ``SimulationConfig`` is told.

    Raises:
        UserError: a flag is out of range.
    """
    own = config.cluster_config.global_scheduler_config
    scheduler = str(own.get_type())
    values = {name: getattr(own, name) for name in told(RoutersSection(), scheduler)}

    def flag_at(location: Location) -> str:
        return f"--{prefixed(*map(str, location))}"

    try:
        section = RoutersSection.model_validate({scheduler: values} if values else {})
    except ValidationError as error:
        raise UserError(join_problems(describe_problems(error, RoutersSection, flag_at))) from None
    return thresholds_of(section, config.cluster_config.cache_config.block_size)
