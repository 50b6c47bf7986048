"""The roofline as a Vidur execution-time predictor: type ``analytic``."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from vidur._native.config import ExecutionTimePredictorConfig as NativePredictorConfig
from vidur._native.config import ModelConfig as NativeModelConfig
from vidur._native.config import ReplicaConfig as NativeReplicaConfig
from vidur._native.entities import Batch as NativeBatch
from vidur._native.execution_time_predictor import ExecutionTimePredictor as NativePredictor
from vidur.execution_time_predictor import BaseExecutionTimePredictor

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.analytic_config import FLAG_PREFIX, limits_of, roofline_of
from vidur_ext.execution_time.batch_tokens import BatchKeys, token_lists
from vidur_ext.execution_time.roofline import RooflineModel
from vidur_ext.execution_time.tables import CHUNK_STEP, PredictionTables, TableLimits, build_tables


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
