"""The PPO scheduler's Vidur config: every learner key is a flag, none is written twice."""

from __future__ import annotations

from dataclasses import field, make_dataclass
from typing import Any, Optional

from vidur.config import BaseGlobalSchedulerConfig

from ppo_scheduler.config.training_config import LearnerConfig
from vidur_ext.scheduler.global_scheduler.scheduler_type import RoutingSchedulerType


def _field(name: str, kind: Any, default: Any, help_text: str) -> tuple[str, Any, Any]:
    return name, kind, field(default=default, metadata={"help": help_text})


def _optional_field(name: str, kind: Any, help_text: str) -> tuple[str, Any, Any]:
    # Vidur recognises optional flags by typing.Optional, not by "str | None".
    return name, Optional[kind], field(default=None, metadata={"help": help_text})  # noqa: UP045


def _to_learner_config(self: Any) -> LearnerConfig:
    """Return the typed config that the flags describe."""
    return LearnerConfig.from_flat(vars(self))


PPOGlobalSchedulerModularConfig: Any = make_dataclass(
    "PPOGlobalSchedulerModularConfig",
    [
        *(
            _field(name, flag_type, default, help_text)
            for name, flag_type, default, help_text in LearnerConfig.flat_fields()
        ),
        _field("engine", str, "compiled", "What simulates the training: compiled or vidur."),
        _field("num_envs", int, 1, "Simulations that the policy decides for at once."),
        _optional_field("run_dir", str, "Folder of log, TensorBoard events and metrics."),
        _optional_field("pretrained_actor", str, "Warm-started policy to begin from."),
        _optional_field("load_checkpoint", str, "Checkpoint to resume from."),
        _optional_field("stop_at_requests", int, "End behind this request, to be resumed."),
    ],
    bases=(BaseGlobalSchedulerConfig,),
    namespace={
        "get_type": staticmethod(lambda: RoutingSchedulerType.PPO_MODULAR),
        "to_learner_config": _to_learner_config,
        "__module__": __name__,
        "__doc__": "Flags of the global scheduler ``ppo_modular``.",
    },
)
