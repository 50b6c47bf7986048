"""The analytic predictor's Vidur config, and what it means: a roofline and the tables' limits."""

from dataclasses import dataclass, field
from typing import Any

from vidur.config import BaseExecutionTimePredictorConfig

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import device_constants
from vidur_ext.execution_time.predictor_type import PredictorType
from vidur_ext.execution_time.roofline import (
    DEFAULT_ITERATION_OVERHEAD_MS,
    ModelShape,
    RooflineModel,
)
from vidur_ext.execution_time.tables import CHUNK_STEP, TOKEN_STEP, TableLimits, round_up

FLAG_PREFIX = "--analytic_execution_time_predictor_config_"


@dataclass
class AnalyticExecutionTimePredictorConfig(BaseExecutionTimePredictorConfig):
    """Flags of the predictor ``analytic``. Flags about data sets and training have no effect."""

    kv_cache_prediction_granularity: int = field(
        default=64, metadata={"help": "Step of the KV keys of the tables, in tokens."}
    )
    prediction_max_tokens_per_request: int = field(
        default=16384, metadata={"help": "KV tokens of a request at most."}
    )
    attention_decode_batching_overhead_fraction: float = field(
        default=0.0,
        metadata={"help": "Must be 0: the roofline models batched decoding itself."},
    )
    use_native_execution_time_predictor: bool = field(
        default=True, metadata={"help": "Look the tables up in C++ (same times, faster)."}
    )
    iteration_overhead_ms: float = field(
        default=DEFAULT_ITERATION_OVERHEAD_MS,
        metadata={"help": "Host time of an iteration: scheduling, launch, sampling."},
    )

    @staticmethod
    def get_type() -> Any:
        """Return the type key."""
        return PredictorType.ANALYTIC


def roofline_of(config: Any, replica_config: Any) -> RooflineModel:
    """Return the roofline of a Vidur replica.

    Raises:
        UserError: device, node or parallelism is none that the roofline models.
    """
    model = replica_config.model_config
    tensor_parallel = replica_config.tensor_parallel_size
    if replica_config.kv_parallel_size > 1:
        raise UserError(
            "the analytic predictor does not model KV parallelism: "
            "set --replica_config_kv_parallel_size 1"
        )
    if model.no_tensor_parallel and tensor_parallel > 1:
        raise UserError(
            f"{replica_config.model_name} cannot be split: set "
            "--replica_config_tensor_parallel_size 1"
        )
    return RooflineModel(
        model=ModelShape(
            num_layers=model.num_layers,
            num_q_heads=model.num_q_heads,
            num_kv_heads=model.num_kv_heads,
            embedding_dim=model.embedding_dim,
            mlp_hidden_dim=model.mlp_hidden_dim,
            vocab_size=model.vocab_size,
            gated_mlp=model.use_gated_mlp,
            post_attention_norm=model.post_attn_norm,
        ),
        device=device_constants(replica_config.device, replica_config.network_device),
        tensor_parallel=tensor_parallel,
        num_pipeline_stages=replica_config.num_pipeline_stages,
        collective_overhead_ms=config.nccl_cpu_launch_overhead_ms
        + config.nccl_cpu_skew_overhead_per_device_ms * tensor_parallel**1.25,
        iteration_overhead_ms=config.iteration_overhead_ms,
        max_batch_size=config.prediction_max_batch_size,
    )


def limits_of(config: Any) -> TableLimits:
    """Return the keys that the tables must cover.

    A batch holds at most the chunk budget and one token of every decoding request.

    Raises:
        UserError: a limit or the granularity is not positive.
    """
    names = (
        "kv_cache_prediction_granularity",
        "prediction_max_prefill_chunk_size",
        "prediction_max_batch_size",
        "prediction_max_tokens_per_request",
    )
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{FLAG_PREFIX}{name} is {getattr(config, name)}; it must be positive")
    granularity, chunk, batch, request = (getattr(config, name) for name in names)
    return TableLimits(
        max_tokens=round_up(chunk + batch, TOKEN_STEP),
        max_batch_size=batch,
        max_kv_tokens=round_up(request, granularity),
        kv_granularity=granularity,
        # No prompt is longer than its request. Vidur's hash of two-dimensional keys collides, so
        # the time that C++ takes to store this table grows with the square of its size.
        max_chunk_tokens=round_up(min(chunk, request), CHUNK_STEP),
        flag_prefix=FLAG_PREFIX,
    )
