"""From ``TrainingConfig`` to Vidur's own config: the only translator inside a process.

Vidur's dataclasses are constructed as they are; no command line is made and no folder either.
"""

from __future__ import annotations

from typing import Any

from vidur.config import (
    BaseExecutionTimePredictorConfig,
    BaseGlobalSchedulerConfig,
    BaseReplicaSchedulerConfig,
    CacheConfig,
    MetricsConfig,
)
from vidur.config.utils import get_all_subclasses

from vidur_ext.config.sections import PLANNERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur import plugin
from vidur_ext.vidur.cluster import ClusterConfig, ReplicaConfig, SimulationConfig
from vidur_ext.vidur.limits import check_memory
from vidur_ext.vidur.requests import stream_config
from vidur_ext.vidur.router_flags import told

_ORCA_TABLE_TOKENS = 131_072
"""Orca batches whole prompts without a limit; the predictor's tables need one."""


class _NothingWritten(MetricsConfig):
    """Metrics that need no folder: Vidur would make one on construction."""

    def __init__(self) -> None:
        super().__init__(write_metrics=False, enable_chrome_trace=False, write_json_trace=False)

    def __post_init__(self) -> None:
        self.output_dir = ""


class _Unwritten(SimulationConfig):
    """Vidur's config, which would write itself to a file on construction."""

    def write_config_to_file(self) -> None:
        """Write nothing."""


def simulation_config(config: TrainingConfig, scheduler: str) -> Any:
    """Return Vidur's ``SimulationConfig`` with a global scheduler, given by its type's name.

    Raises:
        UserError: the model or its longest request does not fit a device's memory.
    """
    plugin.register()
    cluster = config.cluster
    built = _Unwritten(
        seed=config.training.seed % 2**32,
        log_level=config.monitoring.log_level,
        cluster_config=ClusterConfig(
            num_replicas=cluster.num_replicas,
            replica_config=ReplicaConfig(
                model_name=cluster.model_name,
                device=cluster.device,
                network_device=cluster.network_device,
                tensor_parallel_size=cluster.tensor_parallel_size,
                num_pipeline_stages=cluster.num_pipeline_stages,
            ),
            cache_config=CacheConfig(
                block_size=cluster.block_size,
                num_blocks=cluster.num_blocks,
                watermark_blocks_fraction=cluster.watermark_blocks_fraction,
                memory_margin_fraction=cluster.memory_margin_fraction,
                enable_prefix_caching=cluster.replica_scheduler == "vllm_v1"
                and cluster.prefix_caching,
            ),
            global_scheduler_config=_global_scheduler_config(config, scheduler),
            replica_scheduler_config=_replica_scheduler_config(config),
            devices=None if cluster.devices is None else ",".join(cluster.devices),
            signal_delay_s=config.observation.signal_delay_s,
            prefix_knowledge=config.observation.prefix_knowledge,
            kv_event_delay_s=config.observation.kv_event_delay_s,
            prefix_index_blocks=config.observation.prefix_index_blocks,
        ),
        request_generator_config=stream_config(config),
        execution_time_predictor_config=_predictor_config(config),
        metrics_config=_NothingWritten(),
    )
    check_memory(built)
    return built


def largest_prefill(config: TrainingConfig) -> int:
    """Return the most prompt tokens that one batch can hold under the replica scheduler."""
    cluster = config.cluster
    if cluster.replica_scheduler in ("sarathi", "vllm_v1"):
        return cluster.chunk_size
    if cluster.replica_scheduler == "vllm":
        return cluster.max_tokens_in_batch
    return min(cluster.batch_size_cap * config.workload.max_tokens, _ORCA_TABLE_TOKENS)


def _of_type(base: Any, name: str) -> Any:
    """Return a new config of the subclass of ``base`` whose type is called ``name``."""
    kinds = [kind for kind in get_all_subclasses(base) if hasattr(kind, "get_type")]
    return next(kind() for kind in kinds if str(kind.get_type()) == name)


def _global_scheduler_config(config: TrainingConfig, name: str) -> Any:
    built = _of_type(BaseGlobalSchedulerConfig, name)
    if name in PLANNERS:
        built.ttft_weight = config.lookahead.ttft_weight
    for key, value in told(config.routers, name).items():
        setattr(built, key, value)
    return built


def _replica_scheduler_config(config: TrainingConfig) -> Any:
    cluster = config.cluster
    own = {
        "sarathi": {"chunk_size": cluster.chunk_size},
        "vllm": {"max_tokens_in_batch": cluster.max_tokens_in_batch},
        "orca": {},
        "vllm_v1": {"chunk_size": cluster.chunk_size},
    }[cluster.replica_scheduler]
    built = _of_type(BaseReplicaSchedulerConfig, cluster.replica_scheduler)
    return type(built)(batch_size_cap=cluster.batch_size_cap, **own)


def _predictor_config(config: TrainingConfig) -> Any:
    built = _of_type(BaseExecutionTimePredictorConfig, config.simulation.predictor)
    folder = config.simulation.profile_dir
    return type(built)(
        prediction_max_batch_size=config.cluster.batch_size_cap,
        prediction_max_tokens_per_request=config.workload.max_tokens,
        prediction_max_prefill_chunk_size=largest_prefill(config),
        **({} if folder is None else {"profile_dir": folder}),
    )
