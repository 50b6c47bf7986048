"""A replica's speed, read off Vidur's execution-time predictors once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from vidur.entities import Batch

from ppo_scheduler.observation import Floats
from vidur_ext.routing.estimator import Estimates, Rate
from vidur_ext.vidur.analytic_predictor import AnalyticExecutionTimePredictor

_REFERENCE_CONTEXT_TOKENS = 2048
_WHOLE_PROMPT_TOKENS = 1024
_PRIOR_OUTPUT_TOKENS = 128.0
_PRIOR_WEIGHT = 16.0


class _Times(NamedTuple):
    """Of one predictor: iterations of n requests [C + 1], per context token, of a prefill [s]."""

    base: Floats
    slope: float
    chunk_s: float


def estimates_of(replica_schedulers: Sequence[Any]) -> Estimates:
    """Return what a router may know of its replicas' speed before any request arrives.

    Args:
        replica_schedulers: Vidur's, one per replica, equal but for their predictors and caches.
    """
    config = replica_schedulers[0]._config
    predictors = [scheduler._execution_time_predictor for scheduler in replica_schedulers]
    prefill_tokens = _prefill_tokens(config, predictors[0]._config)
    # Replicas of one kind share a predictor, and so its times.
    known: dict[int, _Times] = {}
    for scheduler, predictor in zip(replica_schedulers, predictors, strict=True):
        if id(predictor) not in known:
            known[id(predictor)] = _times(scheduler, prefill_tokens)
    times = [known[id(predictor)] for predictor in predictors]
    base = np.array([one.base for one in times])
    chunk_s = np.array([one.chunk_s for one in times])
    rates = np.empty((len(times), len(Rate)))
    rates[:, Rate.SLOPE] = [one.slope for one in times]
    rates[:, Rate.CHUNK_S] = chunk_s
    rates[:, Rate.PREFILL_S_PER_TOKEN] = chunk_s / prefill_tokens
    rates[:, Rate.DECODE_TOKEN_S] = base[:, -1] / (base.shape[1] - 1)
    rates[:, Rate.REQUEST_S] = [request_overhead_s(predictor) for predictor in predictors]
    return Estimates(
        base=base,
        rates=rates,
        prefill_tokens=float(prefill_tokens),
        output_sum=_PRIOR_OUTPUT_TOKENS * _PRIOR_WEIGHT,
        output_count=_PRIOR_WEIGHT,
    )


def request_overhead_s(predictor: Any) -> float:
    """Return what a request takes outside its batches; profiles say nothing about that."""
    if not isinstance(predictor, AnalyticExecutionTimePredictor):
        return 0.0
    return predictor.roofline.device.request_overhead_ms * 1e-3


def _times(scheduler: Any, prefill_tokens: int) -> _Times:
    cap = scheduler._config.batch_size_cap
    # Tables may end early; a batch beyond them is an error when it comes, not here.
    largest = min(cap, scheduler._execution_time_predictor._config.prediction_max_batch_size)
    sizes = sorted({1, *range(8, largest, 8), largest})
    base = np.interp(
        np.arange(cap + 1), sizes, [_seconds(scheduler, [1] * n, [1] * n) for n in sizes]
    )
    many, context = min(32, largest), _context_tokens(scheduler._execution_time_predictor._config)
    with_context = _seconds(scheduler, [1] * many, [context] * many)
    slope = (with_context - float(base[many])) / (many * context)
    return _Times(base, slope, _seconds(scheduler, [prefill_tokens], [prefill_tokens]))


def _seconds(scheduler: Any, num_q_tokens: list[int], num_kv_tokens: list[int]) -> float:
    batch = Batch(scheduler._replica_id, [None] * len(num_q_tokens), num_q_tokens, num_kv_tokens)
    predictor = scheduler._execution_time_predictor
    return sum(
        predictor.get_execution_time(batch, stage).total_time
        for stage in range(scheduler._num_stages)
    )


def _context_tokens(tables: Any) -> int:
    """Return the context to measure with: the tables of a predictor's config may end early."""
    step = tables.kv_cache_prediction_granularity
    fitting = tables.prediction_max_tokens_per_request // step * step
    return int(max(min(_REFERENCE_CONTEXT_TOKENS, fitting), 1))


def _prefill_tokens(config: Any, tables: Any) -> int:
    """Return the prompt tokens of a full batch, or of the longest prompt that the tables hold."""
    full = _WHOLE_PROMPT_TOKENS
    for name in ("chunk_size", "max_tokens_in_batch"):
        if hasattr(config, name):
            full = int(getattr(config, name))
            break
    return int(
        min(
            full,
            tables.prediction_max_prefill_chunk_size,
            tables.prediction_max_tokens_per_request,
        )
    )
