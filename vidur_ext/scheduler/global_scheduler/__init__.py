"""Global schedulers: the PPO policy and the heuristics it is compared with."""

from __future__ import annotations

from vidur.scheduler import GlobalSchedulerRegistry

from vidur_ext.scheduler.global_scheduler.heuristic_scheduler import (
    HEURISTIC_CONFIGS,
    HEURISTIC_SCHEDULERS,
)
from vidur_ext.scheduler.global_scheduler.own_devices import VIDURS_SCHEDULERS
from vidur_ext.scheduler.global_scheduler.ppo_scheduler_config import (
    PPOGlobalSchedulerModularConfig,
)
from vidur_ext.scheduler.global_scheduler.ppo_scheduler_modular import PPOGlobalSchedulerModular


def register() -> None:
    """Make all our global schedulers known to Vidur. Repeating it changes nothing.

    Vidur's own are replaced by what they are on mixed devices; on equal ones they stay the same.
    """
    for key, scheduler in VIDURS_SCHEDULERS.items():
        GlobalSchedulerRegistry.unregister(key)
        GlobalSchedulerRegistry.register(key, scheduler)
    GlobalSchedulerRegistry.register(
        PPOGlobalSchedulerModularConfig.get_type(), PPOGlobalSchedulerModular
    )
    for name, config_class in HEURISTIC_CONFIGS.items():
        GlobalSchedulerRegistry.register(config_class.get_type(), HEURISTIC_SCHEDULERS[name])
