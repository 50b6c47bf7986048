"""A cluster in numbers for the compiled engine, read off Vidur's own replica schedulers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from vidur.types import ReplicaSchedulerType

from ppo_scheduler.errors import UserError
from vidur_ext.config.routers import RoutersSection
from vidur_ext.engine.execution import TOKENS_PER_CHUNK, TOKENS_PER_ROW
from vidur_ext.engine.layout import (
    GIVEN,
    Batching,
    Cluster,
    Ints,
    Knowledge,
    Own,
    Settings,
    Tables,
)
from vidur_ext.execution_time.roofline import RooflineModel
from vidur_ext.execution_time.tables import CHUNK_STEP, TOKEN_STEP, TableLimits, build_tables
from vidur_ext.routing.estimator import Estimates
from vidur_ext.routing.thresholds import thresholds_of
from vidur_ext.vidur.analytic_predictor import AnalyticExecutionTimePredictor
from vidur_ext.vidur.estimates import estimates_of
from vidur_ext.vidur.types import OwnReplicaSchedulerType
from vidur_ext.vidur.vllm_v1_replica import usable_blocks

assert (TOKENS_PER_ROW, TOKENS_PER_CHUNK) == (TOKEN_STEP, CHUNK_STEP)

_SCHEDULERS = {
    ReplicaSchedulerType.SARATHI: Batching.SARATHI,
    ReplicaSchedulerType.VLLM: Batching.VLLM,
    ReplicaSchedulerType.ORCA: Batching.ORCA,
    OwnReplicaSchedulerType.VLLM_V1: Batching.VLLM_V1,
}


class Replicas(NamedTuple):
    """Vidur's replica schedulers, one of each kind, and which kind [R] each replica is of."""

    schedulers: list[Any]
    kind: Ints

    @property
    def predictors(self) -> list[AnalyticExecutionTimePredictor]:
        """The predictor of each kind."""
        return [scheduler._execution_time_predictor for scheduler in self.schedulers]

    @property
    def estimates(self) -> Estimates:
        """How fast each replica is."""
        return estimates_of([self.schedulers[kind] for kind in self.kind])

    @property
    def limits(self) -> TableLimits:
        """What the tables of every kind cover."""
        return self.predictors[0].tables.limits


def cluster_in_numbers(replicas: Replicas, config: Any) -> Cluster:
    """Return the numbers of a cluster that Vidur has built.

    Args:
        config: its ``ClusterConfig``, which says how routers see it.

    Raises:
        UserError: only Vidur simulates it.
    """
    _check_simulated(replicas.schedulers[0])
    return Cluster(
        settings=_settings_of(replicas, config),
        tables=tables_in_numbers(
            [predictor.roofline for predictor in replicas.predictors], replicas.limits
        ),
        estimates=replicas.estimates,
        limits=replicas.limits,
    )


def _check_simulated(scheduler: Any) -> None:
    """Say what of a replica the engine does not simulate; all replicas agree in that."""
    flag = None
    if scheduler._config.get_type() not in _SCHEDULERS:
        flag = "--replica_scheduler_config_type sarathi, vllm, orca or vllm_v1"
    elif not isinstance(scheduler._execution_time_predictor, AnalyticExecutionTimePredictor):
        flag = "--execution_time_predictor_config_type analytic"
    elif scheduler._num_stages != 1:
        flag = "--replica_config_num_pipeline_stages 1"
    if flag is not None:
        raise UserError(
            f"the compiled engine, with which planners simulate their choices, needs {flag}: "
            "change it, or choose another --global_scheduler_config_type"
        )


def _settings_of(replicas: Replicas, cluster: Any) -> Settings:
    """Return the replica schedulers' limits, and what routers see, as numbers."""
    first = replicas.schedulers[0]
    config, cache = first._config, first._cache_config
    kind = _SCHEDULERS[config.get_type()]
    tokens = {
        Batching.SARATHI: "chunk_size",
        Batching.VLLM: "max_tokens_in_batch",
        Batching.VLLM_V1: "chunk_size",
    }.get(kind)
    orca, v1 = kind == Batching.ORCA, kind == Batching.VLLM_V1
    own = np.empty((len(replicas.schedulers), len(Own)), dtype=np.int64)
    for place, scheduler in enumerate(replicas.schedulers):
        own[place, Own.KIND] = place
        own[place, Own.BATCH_CAP] = scheduler._max_batch_size if orca else config.batch_size_cap
        own[place, Own.BLOCKS] = usable_blocks(scheduler)
        own[place, Own.WATERMARK] = 0 if orca else scheduler._watermark_blocks
    return Settings(
        scheduler=int(kind),
        rule=GIVEN,
        batch_tokens=int(getattr(config, tokens)) if tokens else 0,
        block_size=int(cache.block_size),
        flat_blocks=int(first._max_blocks_per_sequence),
        batch_capacity=float(config.batch_size_cap),
        own=own[replicas.kind],
        signal_delay_s=cluster.signal_delay_s,
        prefix_caching=int(v1 and cache.enable_prefix_caching),
        prefix_knowledge=int(Knowledge[cluster.prefix_knowledge.upper()]),
        kv_event_delay_s=cluster.kv_event_delay_s,
        index_blocks=cluster.prefix_index_blocks,
        thresholds=thresholds_of(RoutersSection(), cache.block_size),
    )


def tables_in_numbers(rooflines: Sequence[RooflineModel], limits: TableLimits) -> Tables:
    """Return the tables of each kind of replica, stacked."""
    each = [_one_kind(roofline, limits) for roofline in rooflines]
    return Tables(
        per_tokens=np.stack([tables.per_tokens for tables in each]),
        decode=np.stack([tables.decode for tables in each]),
        prefill=np.stack([tables.prefill for tables in each]),
        request_s=np.concatenate([tables.request_s for tables in each]),
        kv_step=each[0].kv_step,
        num_layers=each[0].num_layers,
    )


def _one_kind(roofline: RooflineModel, limits: TableLimits) -> Tables:
    """Return the tables of a kind; sums that precede Vidur's other terms are taken here."""
    tables = build_tables(roofline, limits)
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
        decode=tables.decode,
        prefill=tables.prefill,
        request_s=np.array([roofline.device.request_overhead_ms * 1e-3]),
        kv_step=int(limits.kv_granularity),
        num_layers=float(roofline.model.num_layers),
    )
