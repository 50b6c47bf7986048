"""The roofline as a Vidur execution-time predictor, type ``analytic``, and its config."""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from vidur._native.config import ExecutionTimePredictorConfig as NativePredictorConfig
from vidur._native.config import ModelConfig as NativeModelConfig
from vidur._native.config import ReplicaConfig as NativeReplicaConfig
from vidur._native.entities import Batch as NativeBatch
from vidur._native.execution_time_predictor import ExecutionTimePredictor as NativePredictor
from vidur.config import BaseExecutionTimePredictorConfig
from vidur.entities import KVParallelBatch
from vidur.execution_time_predictor import BaseExecutionTimePredictor

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import device_named
from vidur_ext.execution_time.links import node_named
from vidur_ext.execution_time.models import model_named
from vidur_ext.execution_time.roofline import RooflineModel
from vidur_ext.execution_time.tables import (
    CHUNK_STEP,
    TOKEN_STEP,
    PredictionTables,
    TableLimits,
    build_tables,
    round_up,
)
from vidur_ext.vidur.types import PredictorType

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
    nccl_cpu_launch_overhead_ms: float = field(
        default=0.0,
        metadata={"help": "Host time per all-reduce; none where CUDA graphs launch it."},
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
        model=model_named(replica_config.model_name),
        device=device_named(replica_config.device),
        node=node_named(replica_config.network_device),
        tensor_parallel=tensor_parallel,
        num_pipeline_stages=replica_config.num_pipeline_stages,
        collective_overhead_ms=config.nccl_cpu_launch_overhead_ms
        + config.nccl_cpu_skew_overhead_per_device_ms * tensor_parallel**1.25,
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


def token_lists(batch: Any) -> tuple[list[int], list[int]]:
    """Return new tokens and KV tokens, the new ones included, of each request in a batch.

    Vidur's Sarathi and vLLM schedulers count so. Its Mnemosyne schedulers leave the new tokens
    out and wrap the batch; its Orca scheduler leaves out the KV tokens of new requests, which
    come last and have none cached.
    """
    if isinstance(batch, KVParallelBatch):
        (only,) = batch.batch_mapping.values()
        pairs = zip(only.num_q_tokens, only.num_kv_tokens, strict=True)
        return only.num_q_tokens, [q + kv for q, kv in pairs]
    q, kv = batch.num_q_tokens, batch.num_kv_tokens
    return q, kv if len(kv) == len(q) else kv + q[len(kv) :]


class BatchKeys:
    """The table keys of one batch, rounded as Vidur's C++ predictor rounds them."""

    def __init__(self, batch: Any, kv_granularity: int) -> None:
        q_tokens, kv_tokens = token_lists(batch)
        decode_kv = [kv for q, kv in zip(q_tokens, kv_tokens, strict=True) if q == 1]
        self.rounded_tokens = round_up(sum(q_tokens), TOKEN_STEP)
        self.decodes = len(decode_kv)
        mean_kv = sum(decode_kv) // max(len(decode_kv), 1)
        self.decode_kv = round_up(mean_kv, kv_granularity)
        self.prefills = [
            (round_up(kv, kv_granularity), round_up(q, CHUNK_STEP))
            for q, kv in zip(q_tokens, kv_tokens, strict=True)
            if q != 1
        ]


@lru_cache(maxsize=32)
def native_predictor(roofline: RooflineModel, limits: TableLimits) -> Any:
    """Build Vidur's C++ predictor; it is immutable, so simulations share it."""
    model = roofline.model
    return NativePredictor(
        # The collective's overhead is passed whole, so that both paths add the same number.
        config=NativePredictorConfig(
            kv_cache_prediction_granularity=limits.kv_granularity,
            attention_decode_batching_overhead_fraction=0.0,
            nccl_cpu_launch_overhead_ms=roofline.collective_overhead_ms,
            nccl_cpu_skew_overhead_per_device_ms=0.0,
        ),
        replica_config=NativeReplicaConfig(
            num_pipeline_stages=roofline.num_pipeline_stages,
            tensor_parallel_size=roofline.tensor_parallel,
            kv_parallel_size=1,
        ),
        model_config=NativeModelConfig(
            num_layers=model.num_layers,
            num_q_heads=model.num_q_heads,
            num_kv_heads=model.num_kv_heads,
            embedding_dim=model.embedding_dim,
            mlp_hidden_dim=model.mlp_hidden_dim,
            max_model_len=limits.max_kv_tokens,
            use_gated_mlp=model.gated_mlp,
            use_bias=False,
            use_qkv_bias=False,
            post_attn_norm=model.post_attention_norm,
            vocab_size=model.vocab_size,
        ),
        hash=hashlib.sha256(repr((roofline, limits)).encode()).hexdigest()[:8],
        **build_tables(roofline, limits).native_arguments(),
    )


class AnalyticExecutionTimePredictor(BaseExecutionTimePredictor):
    """Execution times from the roofline's tables, without measured profiles and offline."""

    def __init__(self, predictor_config: Any, replica_config: Any, cache_config: Any) -> None:
        super().__init__(predictor_config, replica_config, cache_config)
        if predictor_config.attention_decode_batching_overhead_fraction != 0.0:
            raise UserError(
                f"{FLAG_PREFIX}attention_decode_batching_overhead_fraction must be 0: "
                "the roofline models batched decoding itself"
            )
        self.roofline = roofline_of(predictor_config, replica_config)
        self._limits = limits_of(predictor_config)
        self._tables = build_tables(self.roofline, self._limits)
        if predictor_config.use_native_execution_time_predictor:
            self._native_execution_time_predictor = native_predictor(self.roofline, self._limits)

    @property
    def tables(self) -> PredictionTables:
        """The tables behind both paths."""
        return self._tables

    def get_execution_time(self, batch: Any, pipeline_stage: int) -> Any:
        """Return Vidur's ExecutionTime of a batch on a stage.

        Raises:
            UserError: the batch is larger than the tables.
        """
        native = self._config.use_native_execution_time_predictor
        keys = batch if native else BatchKeys(batch, self._limits.kv_granularity)
        try:
            return super().get_execution_time(keys, pipeline_stage)
        except IndexError as error:
            violation = self._limits.violation(*token_lists(batch))
            if violation is None:
                raise
            raise UserError(violation) from error

    def get_execution_time_native(self, batch: Any, pipeline_stage: int) -> Any:
        """Return the same from the C++ predictor; it raises IndexError for a missing key."""
        num_q_tokens, num_kv_tokens = token_lists(batch)
        native_batch = NativeBatch(
            replica_id=0,
            num_requests=len(num_q_tokens),
            num_q_tokens=num_q_tokens,
            num_kv_tokens=num_kv_tokens,
            num_active_kvp_groups=[],
            kvp_group_id=0,
        )
        return self._native_execution_time_predictor.get_execution_time_batch(
            native_batch, pipeline_stage
        )

    def _at(self, operator: str, tokens: int) -> float:
        return float(self._tables.tokens[operator][tokens])

    def _get_attention_layer_pre_proj_execution_time(self, batch: BatchKeys) -> float:
        return self._at("attn_pre_proj", batch.rounded_tokens)

    def _get_attention_layer_post_proj_execution_time(self, batch: BatchKeys) -> float:
        return self._at("attn_post_proj", batch.rounded_tokens)

    def _get_attention_rope_execution_time(self, batch: BatchKeys) -> float:
        return self._at("attn_rope", batch.rounded_tokens)

    def _get_attention_kv_cache_save_execution_time(self, batch: BatchKeys) -> float:
        # Like the C++ predictor, which rounds here too; Vidur's Python path does not.
        return self._at("attn_kv_cache_save", batch.rounded_tokens)

    def _get_attention_decode_execution_time(self, batch: BatchKeys) -> float:
        if batch.decodes == 0:
            return 0.0
        kv_index = batch.decode_kv // self._limits.kv_granularity
        return float(self._tables.decode[batch.decodes, kv_index])

    def _get_attention_prefill_execution_time(self, batch: BatchKeys) -> float:
        prefill, kv_step = self._tables.prefill, self._limits.kv_granularity
        return sum(
            (float(prefill[kv // kv_step, chunk // CHUNK_STEP]) for kv, chunk in batch.prefills),
            start=0.0,
        )

    def _get_mlp_layer_up_proj_execution_time(self, batch: BatchKeys) -> float:
        return self._at("mlp_up_proj", batch.rounded_tokens)

    def _get_mlp_layer_down_proj_execution_time(self, batch: BatchKeys) -> float:
        return self._at("mlp_down_proj", batch.rounded_tokens)

    def _get_mlp_layer_act_execution_time(self, batch: BatchKeys) -> float:
        return self._at("mlp_act", batch.rounded_tokens)

    def _get_attn_norm_layer_act_execution_time(self, batch: BatchKeys) -> float:
        return self._at("input_layernorm", batch.rounded_tokens)

    def _get_mlp_norm_layer_act_execution_time(self, batch: BatchKeys) -> float:
        if not self.roofline.model.post_attention_norm:
            return 0.0
        return self._at("post_attention_layernorm", batch.rounded_tokens)

    def _get_add_layer_act_execution_time(self, batch: BatchKeys) -> float:
        return self._at("add", batch.rounded_tokens)

    def _get_tensor_parallel_communication_time(self, batch: BatchKeys) -> float:
        return self._at("all_reduce", batch.rounded_tokens) + self.roofline.collective_overhead_ms

    def _get_pipeline_parallel_communication_time(self, batch: BatchKeys) -> float:
        return self._at("send_recv", batch.rounded_tokens)

    def _get_kv_parallel_communication_time(self, batch: BatchKeys) -> float:
        return 0.0
