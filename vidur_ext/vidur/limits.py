"""What a cluster cannot serve, said before anything is simulated."""

from __future__ import annotations

from typing import Any

from vidur.types import ReplicaSchedulerType
from vidur.utils.memory_planner import MemoryPlanner

from ppo_scheduler.errors import UserError
from vidur_ext.vidur.cluster import ReplicaKind, replica_kinds
from vidur_ext.vidur.types import OwnReplicaSchedulerType


def check_memory(config: Any) -> None:
    """Say what Vidur would end in an assertion or a division by zero for.

    Args:
        config: Vidur's ``SimulationConfig``.

    Raises:
        UserError: the model or its longest request does not fit a device's memory.
    """
    longest = config.request_generator_config.max_tokens
    kinds, kind_of = replica_kinds(config.cluster_config)
    for index, kind in enumerate(kinds):
        tokens, replica = _memory_tokens(kind), kind.replica_config
        key = "cluster.device" if len(kinds) == 1 else f"cluster.devices[{kind_of.index(index)}]"
        if tokens < longest:
            raise UserError(
                f"{replica.model_name} on {replica.device} with tensor parallelism "
                f"{replica.tensor_parallel_size} leaves KV memory for {tokens} tokens, and a "
                f"request may have {longest}: raise cluster.tensor_parallel_size, take a larger "
                f"{key}, or lower workload.max_tokens"
            )


def check_requests(config: Any, longest: int) -> None:
    """Check that every replica can serve the longest request, whatever else it is serving.

    Args:
        config: Vidur's ``SimulationConfig``, whose memory is checked.
        longest: prompt and output tokens of the longest request. A replica that runs out of blocks
            takes the tokens so far as a new prompt, so any prompt may become as long as that.

    Raises:
        UserError: the request does not fit vLLM's batch or the KV blocks.
    """
    scheduler = config.cluster_config.replica_scheduler_config
    kind = scheduler.get_type()
    if kind == ReplicaSchedulerType.VLLM and longest > scheduler.max_tokens_in_batch:
        raise UserError(
            f"a request may have {longest} tokens, and vLLM's batches have at most "
            f"cluster.max_tokens_in_batch={scheduler.max_tokens_in_batch}: raise it to {longest}, "
            "or lower workload.max_tokens"
        )
    of_a_slot = config.request_generator_config.max_tokens
    for replicas in replica_kinds(config.cluster_config)[0]:
        cache = replicas.cache_config
        blocks = _blocks(cache, _memory_tokens(replicas), of_a_slot)
        if kind == ReplicaSchedulerType.ORCA:  # a request has the blocks of the longest one
            needed, kept = of_a_slot // cache.block_size, 0
        elif kind == OwnReplicaSchedulerType.VLLM_V1:  # one is never given out
            needed, kept = -(-longest // cache.block_size), 1
        else:  # some stay free when it is admitted, and one more while it is served
            needed = -(-longest // cache.block_size)
            kept = int(cache.watermark_blocks_fraction * blocks) + 1
        if blocks < max(needed + kept, 1):
            raise UserError(
                f"a request may have {longest} tokens, which take {needed} KV blocks of "
                f"{cache.block_size}, and {blocks} less {kept} that stay free are too few: raise "
                "cluster.num_blocks, lower cluster.block_size or "
                "cluster.watermark_blocks_fraction, or lower workload.max_tokens"
            )


def _memory_tokens(kind: ReplicaKind) -> int:
    """Return for how many tokens a device has KV memory."""
    try:
        return int(
            MemoryPlanner(kind.replica_config, kind.cache_config).get_max_kv_cache_size_in_tokens()
        )
    except AssertionError:
        return 0


def _blocks(cache: Any, memory_tokens: int, of_a_slot: int) -> int:
    """Return the KV blocks that Vidur counts: those of whole slots for the longest request."""
    slots = memory_tokens // of_a_slot
    return int(cache.num_blocks or of_a_slot // cache.block_size * slots)
