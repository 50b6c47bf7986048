"""NVIDIA's offline replay of a Mooncake trace, ``dynamo.replay`` of ai-dynamo 1.6.1, on the CPU.

Its workers are simulated as its vLLM-like mocker has it, their times by the polynomials that it
takes without a performance model.
"""

from __future__ import annotations

from typing import NamedTuple

from dynamo.replay import run_trace_replay


class Asked(NamedTuple):
    """A replay: the trace, the router, and what every worker has."""

    trace: str
    router: str
    workers: int
    blocks: int
    block_tokens: int
    trace_block_tokens: int
    most_running: int
    step_tokens: int
    speed: float
    """By which all its times are divided."""


def replay(asked: Asked) -> tuple[float, float, float]:
    """Return the share of prompt tokens found in caches, mean TTFT [s] and mean E2E [s]."""
    summary = run_trace_replay(
        asked.trace,
        trace_format="mooncake",
        trace_block_size=asked.trace_block_tokens,
        router_mode=asked.router,
        num_workers=asked.workers,
        extra_engine_args={
            "engine": {
                "backend": "vllm",
                "num_gpu_blocks": asked.blocks,
                "block_size": asked.block_tokens,
                "max_num_seqs": asked.most_running,
                "max_num_batched_tokens": asked.step_tokens,
                "enable_prefix_caching": True,
                "timing_model": {"type": "polynomial"},
                "speedup_ratio": asked.speed,
            }
        },
    ).summary
    return (
        summary["prefix_cache_reused_ratio"],
        summary["mean_ttft_ms"] / 1e3,
        summary["mean_e2e_latency_ms"] / 1e3,
    )
