"""From Vidur's flat flags to its config object, for programs as well as for command lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vidur.config import SimulationConfig
from vidur.utils.memory_planner import MemoryPlanner

from ppo_scheduler.errors import UserError
from vidur_ext import plugin


def parse_simulation_config(flags: Sequence[str]) -> Any:
    """Return Vidur's ``SimulationConfig`` of ``flags``; our types are registered.

    Vidur creates its output folder and writes its config there while it is constructed.

    Raises:
        UserError: the model or its longest request does not fit the device's memory.
    """
    plugin.register()
    with _command_line(flags):
        config = SimulationConfig.create_from_cli_args()
    _check_memory(config)
    return config


def _check_memory(config: Any) -> None:
    """Say what Vidur would end in an assertion or a division by zero for."""
    replica = config.cluster_config.replica_config
    planner = MemoryPlanner(replica, config.cluster_config.cache_config)
    try:
        tokens = planner.get_max_kv_cache_size_in_tokens()
    except AssertionError:
        tokens = 0
    longest = config.request_generator_config.max_tokens
    if tokens < longest:
        raise UserError(
            f"{replica.model_name} on {replica.device} with tensor parallelism "
            f"{replica.tensor_parallel_size} leaves KV memory for {int(tokens)} tokens, and a "
            f"request may have {longest}: raise cluster.tensor_parallel_size, take a larger "
            "cluster.device, or lower workload.max_tokens"
        )


@contextmanager
def _command_line(flags: Sequence[str]) -> Iterator[None]:
    """Vidur's parser reads ``sys.argv``; let it see ``flags`` and nothing else."""
    saved = sys.argv
    sys.argv = [saved[0], *flags]
    try:
        yield
    finally:
        sys.argv = saved
