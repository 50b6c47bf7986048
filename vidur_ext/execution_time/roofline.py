"""The analytic execution-time model: operators of a transformer, and one closed-form iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.constants import DeviceConstants
from vidur_ext.execution_time.operators import BYTES, Attention, Gemm, Stream, Values

DEFAULT_COLLECTIVE_OVERHEAD_MS = 0.02  # Vidur's nccl_cpu_launch_overhead_ms
DEFAULT_ITERATION_OVERHEAD_MS = 1.0
DEFAULT_MAX_BATCH_SIZE = 128


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a decoder-only transformer."""

    num_layers: int
    num_q_heads: int
    num_kv_heads: int
    embedding_dim: int
    mlp_hidden_dim: int
    vocab_size: int
    gated_mlp: bool = True
    post_attention_norm: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embedding_dim // self.num_q_heads


@dataclass(frozen=True)
class RooflineModel:
    """Operator times [ms] of one layer on one device of a replica.

    Names are Vidur's; token arguments are floats or float64 arrays, the answer has their shape.

    Args:
        model: dimensions of the served model.
        device: constants of the device and its links.
        tensor_parallel: devices that share a layer; heads, MLP and vocabulary are split.
        num_pipeline_stages: stages that share the layers.
        collective_overhead_ms: host time per all-reduce.
        iteration_overhead_ms: host time per iteration: scheduling, launch, sampling.
        max_batch_size: sequences that need logits in one iteration at most.

    Raises:
        UserError: the degrees do not divide the model.
    """

    model: ModelShape
    device: DeviceConstants
    tensor_parallel: int
    num_pipeline_stages: int
    collective_overhead_ms: float = DEFAULT_COLLECTIVE_OVERHEAD_MS
    iteration_overhead_ms: float = DEFAULT_ITERATION_OVERHEAD_MS
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE

    def __post_init__(self) -> None:
        heads, layers = self.model.num_q_heads, self.model.num_layers
        if self.tensor_parallel < 1 or heads % self.tensor_parallel:
            raise UserError(
                f"tensor_parallel {self.tensor_parallel} does not divide the model's {heads} "
                "attention heads; choose a divisor"
            )
        if self.num_pipeline_stages < 1 or layers % self.num_pipeline_stages:
            raise UserError(
                f"num_pipeline_stages {self.num_pipeline_stages} does not divide the model's "
                f"{layers} layers; choose a divisor"
            )

    @property
    def kv_heads(self) -> int:
        """KV heads per device; fewer heads than devices are replicated."""
        return ceil(self.model.num_kv_heads / self.tensor_parallel)

    @property
    def q_heads(self) -> int:
        """Query heads per device."""
        return self.model.num_q_heads // self.tensor_parallel

    @cached_property
    def attention(self) -> Attention:
        """The attention kernels of one layer."""
        d = self.device
        return Attention(self.q_heads, self.kv_heads, self.model.head_dim, d.num_sms, d.attention)

    @cached_property
    def token_operators(self) -> dict[str, Gemm | Stream]:
        """Operators of one layer whose time depends on the tokens of the batch alone."""
        m, d, tp = self.model, self.device, self.tensor_parallel
        hidden = m.mlp_hidden_dim // tp
        heads = self.q_heads + self.kv_heads
        up = 2 * hidden if m.gated_mlp else hidden
        return {
            "attn_pre_proj": Gemm(m.embedding_dim, m.head_dim * (heads + self.kv_heads), d.gemm),
            "attn_post_proj": Gemm(self.q_heads * m.head_dim, m.embedding_dim, d.gemm),
            "mlp_up_proj": Gemm(m.embedding_dim, up, d.gemm),
            "mlp_down_proj": Gemm(hidden, m.embedding_dim, d.gemm),
            "mlp_act": Stream(up + hidden, d.activation),
            "attn_rope": Stream(2 * m.head_dim * heads, d.rope),
            "attn_kv_cache_save": Stream(4 * m.head_dim * self.kv_heads, d.kv_cache_save),
            "input_layernorm": Stream(2 * m.embedding_dim, d.norm),
            "post_attention_layernorm": Stream(2 * m.embedding_dim, d.norm),
            "add": Stream(3 * m.embedding_dim, d.add),
        }

    def operator_ms(self, name: str, tokens: Values) -> Values:
        """Return the time of a token operator or of ``emb``, the embedding lookup."""
        return (self._embedding if name == "emb" else self.token_operators[name]).ms(tokens)

    def attn_decode(self, batch: Values, kv: Values) -> Values:
        """Return the attention time of ``batch`` decoding requests with ``kv`` tokens each."""
        return self.attention.decode_ms(batch, kv)

    def attn_prefill(self, kv: Values, chunk: Values) -> Values:
        """Return the attention time of a prompt chunk after ``kv`` cached tokens."""
        return self.attention.prefill_ms(kv, chunk)

    def all_reduce(self, tokens: Values) -> Values:
        """Return a ring all-reduce's time over the tensor-parallel group, host time apart."""
        links, n = self.device.interconnect, self.tensor_parallel
        steps = 2 * (n - 1)
        bytes_per_token = BYTES * self.model.embedding_dim * steps / n
        return steps * links.hop_ms + tokens * (bytes_per_token / (links.gb_s(n) * 1e6))

    def send_recv(self, tokens: Values) -> Values:
        """Return the time to hand activations to the next pipeline stage."""
        links = self.device.interconnect
        rate = links.gb_s(self.tensor_parallel * self.num_pipeline_stages)
        return links.hop_ms + tokens * (BYTES * self.model.embedding_dim / (rate * 1e6))

    def iteration_overhead(self, tokens: Values) -> Values:
        """Return what an iteration costs outside the layers: host, embedding, LM head.

        Only the last token of a sequence needs logits: min(tokens, max_batch_size) rows.
        """
        rows = (tokens + self.max_batch_size - abs(tokens - self.max_batch_size)) / 2
        return self.iteration_overhead_ms + self._embedding.ms(tokens) + self._lm_head.ms(rows)

    def iteration_time_s(
        self,
        num_decode: int,
        mean_decode_kv: float,
        prefill_chunks: Sequence[tuple[int, int]],
    ) -> float:
        """Return the time [s] of one iteration of one replica, through all pipeline stages.

        Args:
            num_decode: requests that decode one token.
            mean_decode_kv: their mean number of KV tokens, the new one included.
            prefill_chunks: (cached tokens, chunk tokens) per prompt chunk in the batch.
        """
        tokens = float(num_decode + sum(chunk for _, chunk in prefill_chunks))
        if tokens == 0.0:
            return 0.0
        layer = 0.0
        for operator in self._iteration_operators:
            layer += operator.ms(tokens)
        if num_decode:
            layer += self.attention.decode_ms(float(num_decode), mean_decode_kv)
        for kv, chunk in prefill_chunks:
            layer += self.attention.prefill_ms(float(kv), float(chunk))
        if self.tensor_parallel > 1:
            layer += 2.0 * (self.all_reduce(tokens) + self.collective_overhead_ms)
        total = layer * self.model.num_layers + self.iteration_overhead(tokens)
        if self.num_pipeline_stages > 1:
            total += (self.num_pipeline_stages - 1) * self.send_recv(tokens)
        return total * 1e-3

    @cached_property
    def _embedding(self) -> Stream:
        return Stream(2 * self.model.embedding_dim, self.device.embedding)

    @cached_property
    def _lm_head(self) -> Gemm:
        m = self.model
        return Gemm(m.embedding_dim, ceil(m.vocab_size / self.tensor_parallel), self.device.gemm)

    @cached_property
    def _iteration_operators(self) -> tuple[Gemm | Stream, ...]:
        # Vidur's ExecutionTime leaves the cache write out of its total, and so do we; a model
        # without a post-attention norm has no such operator.
        left_out = {"attn_kv_cache_save"}
        if not self.model.post_attention_norm:
            left_out.add("post_attention_layernorm")
        return tuple(op for name, op in self.token_operators.items() if name not in left_out)
