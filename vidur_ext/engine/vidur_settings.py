"""From Vidur's config to what compiled code takes, or an error that names what is not compiled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from vidur.execution_time_predictor import ExecutionTimePredictorRegistry
from vidur.scheduler.replica_scheduler.replica_scheduler_registry import ReplicaSchedulerRegistry
from vidur.types import ReplicaSchedulerType

from ppo_scheduler.errors import UserError
from vidur_ext.engine.execution import TOKENS_PER_CHUNK, TOKENS_PER_ROW
from vidur_ext.engine.layout import ORCA, SARATHI, VLLM, Estimates, Floats, Settings, Tables
from vidur_ext.env.latency_estimator import LatencyEstimator
from vidur_ext.execution_time.analytic_predictor import AnalyticExecutionTimePredictor
from vidur_ext.execution_time.tables import CHUNK_STEP, TOKEN_STEP

assert (TOKENS_PER_ROW, TOKENS_PER_CHUNK) == (TOKEN_STEP, CHUNK_STEP)

_SCHEDULERS = {
    ReplicaSchedulerType.SARATHI: SARATHI,
    ReplicaSchedulerType.VLLM: VLLM,
    ReplicaSchedulerType.ORCA: ORCA,
}


class Replica(NamedTuple):
    """One of Vidur's replica schedulers, with its predictor, to read from."""

    scheduler: Any
    predictor: AnalyticExecutionTimePredictor


def build_replica(config: Any) -> Replica:
    """Let Vidur build a replica scheduler, so that its limits are Vidur's own.

    Raises:
        UserError: the cluster is one that only Vidur itself simulates.
    """
    cluster = config.cluster_config
    _check(config)
    predictor = ExecutionTimePredictorRegistry.get(
        config.execution_time_predictor_config.get_type(),
        predictor_config=config.execution_time_predictor_config,
        replica_config=cluster.replica_config,
        cache_config=cluster.cache_config,
    )
    scheduler = ReplicaSchedulerRegistry.get(
        cluster.replica_scheduler_config.get_type(),
        replica_config=cluster.replica_config,
        replica_scheduler_config=cluster.replica_scheduler_config,
        cache_config=cluster.cache_config,
        request_generator_config=config.request_generator_config,
        replica=SimpleNamespace(id=0),
        num_stages=1,
        execution_time_predictor=predictor,
    )
    return Replica(scheduler, predictor)


def _check(config: Any) -> None:
    replica = config.cluster_config.replica_config
    scheduler = config.cluster_config.replica_scheduler_config.get_type()
    predictor = config.execution_time_predictor_config.get_type()
    refused = (
        (scheduler not in _SCHEDULERS, f"the replica scheduler {scheduler}", "sarathi, vllm, orca"),
        (str(predictor) != "analytic", f"the predictor {predictor}", "analytic"),
        (
            replica.num_pipeline_stages != 1,
            f"{replica.num_pipeline_stages} pipeline stages",
            "1 pipeline stage",
        ),
        (bool(config.time_limit), "a time limit", "runs to the last request"),
    )
    for is_refused, what, instead in refused:
        if is_refused:
            raise UserError(
                f"the compiled engine does not simulate {what}, only {instead}: "
                "change it or take the engine vidur"
            )


def settings_of(replica: Replica, rule: int) -> Settings:
    """Return a replica scheduler's limits as numbers."""
    scheduler = replica.scheduler
    config, cache = scheduler._config, scheduler._cache_config
    kind = _SCHEDULERS[config.get_type()]
    cap = scheduler._max_batch_size if kind == ORCA else config.batch_size_cap
    tokens = {SARATHI: "chunk_size", VLLM: "max_tokens_in_batch"}.get(kind)
    return Settings(
        scheduler=kind,
        rule=rule,
        batch_cap=int(cap),
        batch_tokens=int(getattr(config, tokens)) if tokens else 0,
        block_size=int(cache.block_size),
        num_blocks=int(cache.num_blocks),
        watermark_blocks=0 if kind == ORCA else int(scheduler._watermark_blocks),
        flat_blocks=int(scheduler._max_blocks_per_sequence),
    )


def tables_of(predictor: AnalyticExecutionTimePredictor) -> Tables:
    """Return the predictor's tables; sums that precede Vidur's other terms are taken here."""
    tables, roofline = predictor.tables, predictor.roofline
    at = {name: values[::TOKEN_STEP] for name, values in tables.tokens.items()}
    nothing = np.zeros_like(at["add"])
    all_reduce = (
        at["all_reduce"] + roofline.collective_overhead_ms if "all_reduce" in at else nothing
    )
    mlp_norm = at["post_attention_layernorm"] if roofline.model.post_attention_norm else nothing
    return Tables(
        per_tokens=np.stack(
            [
                at["attn_pre_proj"] + at["attn_post_proj"] + at["attn_rope"],
                all_reduce,
                at["input_layernorm"],
                at["mlp_up_proj"] + at["mlp_down_proj"] + at["mlp_act"] + all_reduce + mlp_norm,
                at["add"],
            ],
            axis=1,
        ),
        decode=_contiguous(tables.decode),
        prefill=_contiguous(tables.prefill),
        kv_step=int(tables.limits.kv_granularity),
        num_layers=float(roofline.model.num_layers),
    )


def _contiguous(table: Floats) -> Floats:
    return np.ascontiguousarray(table, dtype=np.float64)


NO_ESTIMATES = Estimates(np.zeros(1), 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""For rules that predict nothing."""


def estimates_of(replica: Replica) -> Estimates:
    """Return the numbers of a fresh ``LatencyEstimator``."""
    estimator = LatencyEstimator(replica.scheduler)
    base = estimator._base
    return Estimates(
        base=_contiguous(base),
        slope=float(estimator._slope),
        chunk_s=float(estimator._chunk_s),
        prefill_tokens=float(estimator._prefill_tokens),
        prefill_s_per_token=float(estimator.prefill_s_per_token),
        decode_token_s=float(base[-1] / (len(base) - 1)),
        output_sum=float(estimator._output_sum),
        output_count=float(estimator._output_count),
    )
