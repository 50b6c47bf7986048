"""The execution-time model: operators of a transformer, and the iteration that they make up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import Device
from vidur_ext.execution_time.kernels import ExpertShape, experts_key, measured_kernels
from vidur_ext.execution_time.links import Node, measured_all_reduce
from vidur_ext.execution_time.models import Model
from vidur_ext.execution_time.operators import (
    Attention,
    Curve,
    Elementwise,
    Experts,
    Gemm,
    Operator,
    Values,
)

DEFAULT_MAX_BATCH_SIZE = 128


@dataclass(frozen=True)
class _Kind:
    """A kind of element-wise kernel: its launch, and the share of the memory's rate it reaches."""

    launch_ms: float
    share: float


# Medians of what fits the A100 and H100 profiles that Vidur publishes (Llama-2-7B, Llama-3-8B).
_NORM = _Kind(0.0023, 0.40)
_ADD = _Kind(0.00105, 1.0)
_ACTIVATION = _Kind(0.0018, 0.52)
_ROPE = _Kind(0.0019, 0.48)
_EMBEDDING = _Kind(0.0025, 0.17)
_CACHE_SAVE = _Kind(0.0027, 0.91)


@dataclass(frozen=True)
class RooflineModel:
    """Operator times [ms] of one layer on one device of a replica.

    Names are Vidur's; token arguments are floats or float64 arrays, the answer has their shape.

    Args:
        model: dimensions of the served model.
        device: the device and the server software on it.
        node: the links around it.
        tensor_parallel: devices that share a layer; heads, MLP and vocabulary are split.
        num_pipeline_stages: stages that share the layers.
        collective_overhead_ms: host time per all-reduce; 0 where CUDA graphs launch it.
        max_batch_size: sequences that need logits in one iteration at most.

    Raises:
        UserError: the degrees do not divide the model, or the device lacks the type of weights.
    """

    model: Model
    device: Device
    node: Node
    tensor_parallel: int
    num_pipeline_stages: int
    collective_overhead_ms: float = 0.0
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
        weights, d = self.model.weights, self.device
        if weights not in dict(d.sheet.tflops) or weights not in d.kernels.gemm:
            raise UserError(
                f"the device has no kernels for {weights} weights: choose a model with bf16 "
                "weights, or another device"
            )
        if self.model.num_experts is not None and self._experts_key not in d.kernels.moe:
            raise UserError(
                "no experts of this shape were measured on the device, so a model with them is not "
                "simulated there: choose another model or device"
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
        return Attention(
            self.q_heads,
            self.kv_heads,
            self.model.head_width,
            d.kernels,
            d.sheet,
            d.attention_factor,
        )

    @cached_property
    def token_operators(self) -> dict[str, Operator]:
        """Operators of one layer whose time depends on the tokens of the batch alone."""
        m = self.model
        heads = self.q_heads + self.kv_heads
        return {
            "attn_pre_proj": self._gemm(m.embedding_dim, m.head_width * (heads + self.kv_heads)),
            "attn_post_proj": self._gemm(self.q_heads * m.head_width, m.embedding_dim),
            **self._mlp(),
            "attn_rope": self._elementwise(2 * m.head_width * heads, _ROPE),
            "attn_kv_cache_save": self._elementwise(4 * m.head_width * self.kv_heads, _CACHE_SAVE),
            "input_layernorm": self._elementwise(2 * m.embedding_dim, _NORM),
            "post_attention_layernorm": self._elementwise(2 * m.embedding_dim, _NORM),
            "add": self._elementwise(3 * m.embedding_dim, _ADD),
        }

    def _gemm(self, k: int, n: int, weights: str | None = None) -> Gemm:
        d = self.device
        return Gemm(k, n, weights or self.model.weights, d.kernels, d.sheet, d.gemm_factor)

    def _mlp(self) -> dict[str, Operator]:
        """Return the MLP's operators, or the experts' kernel and the product that picks them."""
        m, d = self.model, self.device
        hidden = m.mlp_hidden_dim // self.tensor_parallel
        if m.num_experts is not None:
            grid = d.kernels.moe[self._experts_key]
            experts = ExpertShape(m.embedding_dim, hidden, m.experts_per_token, m.num_experts)
            return {
                "mlp_up_proj": Experts(
                    experts, m.weights, self.tensor_parallel, grid, d.sheet, d.gemm_factor
                ),
                "mlp_down_proj": self._gemm(m.embedding_dim, m.num_experts, "bf16"),
                "mlp_act": self._elementwise(m.num_experts, _ACTIVATION),
            }
        up = 2 * hidden if m.gated_mlp else hidden
        return {
            "mlp_up_proj": self._gemm(m.embedding_dim, up),
            "mlp_down_proj": self._gemm(hidden, m.embedding_dim),
            "mlp_act": self._elementwise(up + hidden, _ACTIVATION),
        }

    @property
    def _experts_key(self) -> str:
        m = self.model
        return experts_key(
            m.weights, m.embedding_dim, m.mlp_hidden_dim, m.experts_per_token, m.num_experts or 1
        )

    def _elementwise(self, elements: float, kind: _Kind) -> Elementwise:
        return Elementwise(elements, kind.launch_ms, kind.share * self.device.memory_gb_s)

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
        """Return an all-reduce's time over the tensor-parallel group, host time apart.

        That of the node's measured collectives; without them, that of a ring.
        """
        numbers = tokens * self.model.embedding_dim
        measured = self._measured_all_reduce
        if measured is None:
            ms = self.node.ring_ms(self.tensor_parallel, numbers)
        else:
            ms = measured.at(numbers)
        return self.device.collective_factor * ms

    @cached_property
    def _measured_all_reduce(self) -> Curve | None:
        if self.node.measured is None:
            return None
        grid = measured_kernels(self.node.measured).all_reduce_ms
        return None if grid is None else measured_all_reduce(grid, self.tensor_parallel)

    def send_recv(self, tokens: Values) -> Values:
        """Return the time to hand activations to the next pipeline stage."""
        span = self.tensor_parallel * self.num_pipeline_stages
        return self.node.hand_over_ms(span, tokens * self.model.embedding_dim)

    def iteration_overhead(self, tokens: Values) -> Values:
        """Return what an iteration costs outside the layers: host, embedding, LM head.

        Only the last token of a sequence needs logits: min(tokens, max_batch_size) rows.
        """
        rows = (tokens + self.max_batch_size - abs(tokens - self.max_batch_size)) / 2
        host = self.device.iteration_overhead_ms
        outside = host + self._embedding.ms(tokens) + self._lm_head.ms(rows)
        if self.device.eager_iteration_ms > 0.0:
            outside = outside + self._waiting_ms(tokens, outside)
        return outside

    def _waiting_ms(self, tokens: Values, outside: Values) -> Values:
        """Return how long the device waits for the host to launch its kernels.

        What it has to do itself is known by the tokens alone here: that of one whole prompt.
        """
        layer = self._layer_ms(tokens) + self.attention.prefill_ms(0.0 * tokens, tokens)
        waiting = self.device.eager_iteration_ms - outside - layer * self.model.num_layers
        return (tokens > self.max_batch_size) * (waiting + abs(waiting)) / 2

    def _layer_ms(self, tokens: Values) -> Values:
        """Return the time of a layer without its attention."""
        layer = 0.0 * tokens
        for operator in self._iteration_operators:
            layer = layer + operator.ms(tokens)
        if self.tensor_parallel > 1:
            layer = layer + 2.0 * (self.all_reduce(tokens) + self.collective_overhead_ms)
        return layer

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
        layer = self._layer_ms(tokens)
        if num_decode:
            layer += self.attention.decode_ms(float(num_decode), mean_decode_kv)
        for kv, chunk in prefill_chunks:
            layer += self.attention.prefill_ms(float(kv), float(chunk))
        total = layer * self.model.num_layers + self.iteration_overhead(tokens)
        if self.num_pipeline_stages > 1:
            total += (self.num_pipeline_stages - 1) * self.send_recv(tokens)
        return float(total) * 1e-3

    @cached_property
    def _embedding(self) -> Elementwise:
        return self._elementwise(2 * self.model.embedding_dim, _EMBEDDING)

    @cached_property
    def _lm_head(self) -> Gemm:
        m = self.model
        return self._gemm(m.embedding_dim, ceil(m.vocab_size / self.tensor_parallel), "bf16")

    @cached_property
    def _iteration_operators(self) -> tuple[Operator, ...]:
        # Vidur's ExecutionTime leaves the cache write out of its total, and so do we; a model
        # without a post-attention norm has no such operator.
        left_out = {"attn_kv_cache_save"}
        if not self.model.post_attention_norm:
            left_out.add("post_attention_layernorm")
        return tuple(op for name, op in self.token_operators.items() if name not in left_out)
