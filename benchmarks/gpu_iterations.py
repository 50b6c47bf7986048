"""Time on a GPU what the simulator predicts: kernels, and whole iterations of a decoder.

Needs torch for CUDA and a C compiler (for Triton), and nothing of this project, so that the file
can be copied alone to the machine with the GPU: ``python gpu_iterations.py FOLDER`` writes

* ``FOLDER/iterations.csv``: iterations of Llama-3-8B with random weights, which
  ``vidur-ppo calibrate --format iterations`` takes. It is the GPU's time alone: no server's host.
* ``FOLDER/kernels.json``: matrix products and attention at the shapes of Llama-3-8B, and of
  Llama-3-70B split over four GPUs; and what they were measured on.

Kernels are torch's: cuBLAS, attention of cuDNN (where it has none, FlashAttention 2), and Triton's
for all element-wise work. Everything is bf16, replayed as CUDA graphs; times are medians. Weights
and caches of a kernel alternate, so that they come from memory as in a model. ``gpu_fidelity.py``
compares.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

HEAD_DIM = 128
EPSILON = 1e-5
ROPE_BASE = 500_000.0

ALTERNATING_BYTES = 2**28
"""Twice the largest cache of a GPU: what was used that long ago is read from memory."""
_LEAST_CALLS, _MOST_CALLS = 16, 256
"""Of a kernel in one graph: enough that the launch of the graph does not count."""
_WARM_MS, _BURST_MS, _REST_S = 150.0, 10.0, 0.1
"""How long the GPU is kept busy before a time, and then for it; or for a burst's, after a rest.
The time is the median of the replays, three at least.
"""
_SPARE_BYTES = 4 * 2**30
"""Of memory, for activations, Triton and cuBLAS."""
_ATTENTION = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
"""In order of preference. On an H100, cuDNN's was faster than FlashAttention 2 at all sizes tried
(16 for decoding, 8 prompts); FlashInfer 0.5.3, tried for decoding, was faster for one request of
512 tokens alone.
"""
_LEAST_SLOTS = 8192
"""Of the cache: less leaves too few batches to fit anything to."""


@dataclass(frozen=True)
class Shape:
    """What one of ``tensor_parallel`` GPUs holds of a decoder: its heads, its part of MLP and
    vocabulary.
    """

    name: str
    tensor_parallel: int
    layers: int
    q_heads: int
    kv_heads: int
    hidden: int
    mlp: int
    vocabulary: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows k and columns n of its weights, by their names."""
        heads = self.q_heads + 2 * self.kv_heads
        return {
            "qkv": (self.hidden, HEAD_DIM * heads),
            "output": (HEAD_DIM * self.q_heads, self.hidden),
            "gate_up": (self.hidden, 2 * self.mlp),
            "down": (self.mlp, self.hidden),
            "lm_head": (self.hidden, self.vocabulary),
        }


LLAMA_3_8B = Shape("meta-llama/Llama-3-8B", 1, 32, 32, 8, 4096, 14336, 128256)
LLAMA_3_70B = Shape("meta-llama/Llama-3-70B", 4, 80, 16, 2, 8192, 7168, 32064)


@dataclass(frozen=True)
class Batch:
    """An iteration: requests that decode a token each, and the tokens of one prompt.

    ``kv`` is the tokens of context of each request that decodes, the new one included.
    """

    decodes: int
    kv: int
    prompt: int

    @property
    def cached(self) -> int:
        """Tokens whose keys and values it needs."""
        return self.decodes * self.kv + self.prompt


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    tokens: Sequence[int]
    decodes: Sequence[tuple[int, int]]
    prompts: Sequence[int]
    batches: Sequence[Batch]


def all_sizes() -> Sizes:
    """Return all sizes; many lie between those of the simulator's tables."""
    contexts = (256, 512, 1024, 2048, 4096)
    return Sizes(
        tokens=(
            *(1, 2, 4, 8, 12, 16, 24, 32, 40, 64, 96, 128, 200, 256, 384, 512, 640, 1024),
            *(1500, 2048, 3000, 4096, 6000, 8192),
        ),
        decodes=[
            *product((1, 2, 4, 8, 12, 16, 24, 32, 64, 96, 128), (*contexts, 384, 1500, 3000, 8192))
        ],
        prompts=(128, 200, 256, 384, 512, 768, 1024, 1500, 2048, 3000, 4096, 6000, 8192),
        batches=[
            *(Batch(*one, 0) for one in product((1, 2, 4, 8, 16, 24, 32, 64, 96, 128), contexts)),
            *(Batch(0, 0, prompt) for prompt in (128, 256, 384, 512, 768, 1024, 1500, 2048)),
            *(
                Batch(*one)
                for one in product((4, 16, 48, 96), (512, 1024, 2048), (128, 512, 1024, 2048))
            ),
        ],
    )


def few_sizes() -> Sizes:
    """Return a few."""
    return Sizes(
        tokens=(1, 64, 2048),
        decodes=((1, 4096), (16, 512), (64, 2048)),
        prompts=(512, 4096),
        batches=[Batch(1, 256, 0), Batch(64, 1024, 0), Batch(0, 0, 1024), Batch(16, 512, 512)],
    )


@dataclass(frozen=True)
class Timer:
    """Times on a device.

    A GPU that has been at work for a tenth of a second may lower its clock, to stay within its
    power: that is the state of a busy server, and the one measured. ``burst``: the GPU rests
    before each time, which is taken before it gets there.
    """

    device: torch.device
    burst: bool = False

    def ms(self, calls: Sequence[Callable[[], Tensor]]) -> float:
        """Return how long one of the calls takes [ms] when they follow each other.

        They are replayed as a CUDA graph. A CPU, which has none, calls them once.
        """
        if self.device.type != "cuda":
            started = time.perf_counter()
            for call in calls:
                call()
            return _shown(1e3 * (time.perf_counter() - started) / len(calls))
        graph = _graph(calls)
        once = _replays_ms(graph, 2)[-1]
        if self.burst:
            time.sleep(_REST_S)
        else:
            _replays_ms(graph, _count(_WARM_MS, once))
        last = _BURST_MS if self.burst else _WARM_MS
        return _shown(statistics.median(_replays_ms(graph, _count(last, once))) / len(calls))


def _count(ms: float, once: float) -> int:
    return max(3, math.ceil(ms / once))


def _shown(ms: float) -> float:
    return float(f"{ms:.5g}")


def _graph(calls: Sequence[Callable[[], Tensor]]) -> torch.cuda.CUDAGraph:
    """Return a graph of the calls; whatever compiles or chooses kernels did so before."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            calls[0]()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def _replays_ms(graph: torch.cuda.CUDAGraph, count: int) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    marks[0].record()
    for mark in marks[1:]:
        graph.replay()
        mark.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in pairwise(marks)]


def decode_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend from one token of each request to all of its context.

    Args:
        query: [requests, query heads, HEAD_DIM].
        keys, values: [requests, tokens, KV heads, HEAD_DIM].

    Returns:
        [requests, query heads * HEAD_DIM].
    """
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    with sdpa_kernel(_ATTENTION, set_priority=True):
        found = F.scaled_dot_product_attention(query.unsqueeze(2), keys, values, enable_gqa=True)
    return found.flatten(1)


def prompt_attention(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend from each token of a whole prompt to those before it and itself.

    Args:
        query: [tokens, query heads, HEAD_DIM].
        keys, values: [tokens, KV heads, HEAD_DIM].

    Returns:
        [tokens, query heads * HEAD_DIM].
    """
    query, keys, values = (one.transpose(0, 1).unsqueeze(0) for one in (query, keys, values))
    with sdpa_kernel(_ATTENTION, set_priority=True):
        found = F.scaled_dot_product_attention(query, keys, values, is_causal=True, enable_gqa=True)
    return found.squeeze(0).transpose(0, 1).flatten(1)


def add_and_norm(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the RMS norm of the sum of x and the residual stream, and that sum."""
    residual = x + residual
    wide = residual.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
    return (wide * scale).to(x.dtype) * weight, residual


def silu_and_multiply(gate_up: Tensor) -> Tensor:
    """Return SwiGLU's activation of gate and up, which lie beside each other."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rotate_and_store(
    qkv: Tensor, cosine: Tensor, sine: Tensor, slots: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Rotate queries and keys; write keys and values into the cache.

    Args:
        qkv: [tokens, (query heads + 2 KV heads) * HEAD_DIM].
        cosine, sine: [tokens, 1, HEAD_DIM], of the tokens' positions; the first half of the sines
            is negative.
        slots: [tokens], where in the cache each goes.
        keys, values: the cache [slots, KV heads, HEAD_DIM].

    Returns:
        The queries [tokens, query heads, HEAD_DIM].
    """
    kv_heads = keys.shape[1]
    heads = qkv.unflatten(-1, (-1, HEAD_DIM))
    # An index, not two halves put together again: that compiles to kernels that read once.
    partner = (torch.arange(HEAD_DIM, device=qkv.device) + HEAD_DIM // 2) % HEAD_DIM
    query, key = heads[:, : -2 * kv_heads], heads[:, -2 * kv_heads : -kv_heads]
    keys[slots] = key * cosine + key[..., partner] * sine
    values[slots] = heads[:, -kv_heads:]
    return query * cosine + query[..., partner] * sine


@dataclass(frozen=True)
class Layer:
    """The weights of a layer, matrices as [n, k], and its cache [slots, KV heads, HEAD_DIM]."""

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    keys: Tensor
    values: Tensor


class Decoder:
    """A decoder with random weights, and a cache for ``slots`` tokens that is full of noise."""

    def __init__(
        self, shape: Shape, slots: int, device: torch.device, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.shape = shape
        self.slots = slots
        self._device, self._dtype = device, dtype
        torch.manual_seed(0)
        self.embedding = self._noise(shape.vocabulary, shape.hidden)
        self.layers = [self._layer() for _ in range(shape.layers)]
        self.norm = self._norm()
        self.lm_head = self._matrix("lm_head")
        on_gpu = device.type == "cuda"
        # Element-wise work in one kernel each, as servers have it.
        compiled = torch.compile(dynamic=True) if on_gpu else lambda function: function
        self._add_and_norm = compiled(add_and_norm)
        self._silu_and_multiply = compiled(silu_and_multiply)
        self._rotate_and_store = compiled(rotate_and_store)

    def _noise(self, *sizes: int) -> Tensor:
        return torch.randn(sizes, device=self._device, dtype=self._dtype)

    def _norm(self) -> Tensor:
        return 1.0 + 0.1 * self._noise(self.shape.hidden)

    def _matrix(self, name: str) -> Tensor:
        k, n = self.shape.matrices[name]
        return self._noise(n, k).mul_(k**-0.5)

    def _layer(self) -> Layer:
        cache = (self.slots, self.shape.kv_heads, HEAD_DIM)
        return Layer(
            attention_norm=self._norm(),
            qkv=self._matrix("qkv"),
            output=self._matrix("output"),
            mlp_norm=self._norm(),
            gate_up=self._matrix("gate_up"),
            down=self._matrix("down"),
            keys=self._noise(*cache),
            values=self._noise(*cache),
        )

    def iteration(self, tokens: Tensor, batch: Batch) -> Callable[[], Tensor]:
        """Return a function that runs an iteration.

        Request i of those that decode has the slots from ``i * kv`` on; the prompt's slots follow.

        Args:
            tokens: [decodes + prompt], the last one of each request that decodes and the prompt's.

        Returns:
            The logits of the last token of every request, [decodes (+ 1 if there is a prompt),
            vocabulary].
        """
        d, kv = batch.decodes, batch.kv
        contexts, end = d * kv, batch.cached
        positions = torch.cat((torch.full((d,), kv - 1), torch.arange(batch.prompt)))
        slots = torch.cat((torch.arange(d) * kv + kv - 1, torch.arange(contexts, end)))
        last = torch.arange(d + (batch.prompt > 0))
        last[d:] = len(tokens) - 1
        frequencies = ROPE_BASE ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angles = (positions[:, None] * frequencies).unsqueeze(1)
        cosine = torch.cat((angles.cos(), angles.cos()), -1).to(self._device, self._dtype)
        sine = torch.cat((-angles.sin(), angles.sin()), -1).to(self._device, self._dtype)
        slots, last = slots.to(self._device), last.to(self._device)

        def attend(query: Tensor, layer: Layer) -> Tensor:
            found = []
            if d:
                shape = (d, kv, *layer.keys.shape[1:])
                caches = (cache[:contexts].view(shape) for cache in (layer.keys, layer.values))
                found.append(decode_attention(query[:d], *caches))
            if batch.prompt:
                prompt = (cache[contexts:end] for cache in (layer.keys, layer.values))
                found.append(prompt_attention(query[d:], *prompt))
            return found[0] if len(found) == 1 else torch.cat(found)

        def run() -> Tensor:
            x = F.embedding(tokens, self.embedding)
            residual = torch.zeros_like(x)
            for layer in self.layers:
                x, residual = self._add_and_norm(x, residual, layer.attention_norm)
                query = self._rotate_and_store(
                    F.linear(x, layer.qkv), cosine, sine, slots, layer.keys, layer.values
                )
                x = F.linear(attend(query, layer), layer.output)
                x, residual = self._add_and_norm(x, residual, layer.mlp_norm)
                x = F.linear(self._silu_and_multiply(F.linear(x, layer.gate_up)), layer.down)
            x, _ = self._add_and_norm(x, residual, self.norm)
            return F.linear(x[last], self.lm_head)

        return run


Row = dict[str, int | float]


def product_rows(shape: Shape, tokens: Sequence[int], timer: Timer) -> Iterator[Row]:
    """Yield the times of products of activations [tokens, k] with weights [k, n].

    The LM head sees the last token of each request only, so few of them.
    """
    for name, (k, n) in shape.matrices.items():
        weights = _alternating(timer.device, n, k)
        for m in tokens:
            if name == "lm_head" and m > 256:
                continue
            x = _noise(timer.device, m, k)
            ms = timer.ms([partial(F.linear, x, one) for one in weights])
            yield {"k": k, "n": n, "tokens": m, "ms": ms}


def decode_rows(shape: Shape, sizes: Sequence[tuple[int, int]], timer: Timer) -> Iterator[Row]:
    """Yield the times of attention of requests that decode."""
    for requests, kv in sizes:
        query = _noise(timer.device, requests, shape.q_heads, HEAD_DIM)
        caches = _alternating(timer.device, 2, requests, kv, shape.kv_heads, HEAD_DIM)
        ms = timer.ms([partial(decode_attention, query, *one) for one in caches])
        yield {**_heads(shape), "requests": requests, "kv": kv, "ms": ms}


def prompt_rows(shape: Shape, prompts: Sequence[int], timer: Timer) -> Iterator[Row]:
    """Yield the times of attention of whole prompts."""
    for tokens in prompts:
        heads = (shape.q_heads, shape.kv_heads, shape.kv_heads)
        qkv = (_noise(timer.device, tokens, count, HEAD_DIM) for count in heads)
        ms = timer.ms([partial(prompt_attention, *qkv)] * _LEAST_CALLS)
        yield {**_heads(shape), "tokens": tokens, "ms": ms}


def iteration_rows(decoder: Decoder, batches: Sequence[Batch], timer: Timer) -> list[Row]:
    """Return the times of iterations that fit into the decoder's cache.

    Their order is mixed: ``calibrate`` holds out every fifth, and whatever drifts should not
    look like an effect of size.
    """
    fitting = [batch for batch in batches if batch.cached <= decoder.slots]
    random.Random(0).shuffle(fitting)
    rows: list[Row] = []
    for batch in fitting:
        count = batch.decodes + batch.prompt
        tokens = torch.randint(decoder.shape.vocabulary, (count,), device=timer.device)
        ms = timer.ms([decoder.iteration(tokens, batch)])
        rows.append(
            {
                "decode_requests": batch.decodes,
                "kv_tokens_mean": batch.kv,
                "prefill_tokens": batch.prompt,
                "step_ms": ms,
            }
        )
    return rows


def _noise(device: torch.device, *sizes: int) -> Tensor:
    return torch.randn(sizes, device=device, dtype=torch.bfloat16)


def _alternating(device: torch.device, *sizes: int) -> list[Tensor]:
    """Return tensors to use one after the other, each of which no cache holds any more."""
    copies = min(ALTERNATING_BYTES // (2 * math.prod(sizes)) + 1, _MOST_CALLS)
    noise = _noise(device, copies, *sizes)
    return [noise[index % copies] for index in range(max(copies, _LEAST_CALLS))]


def _heads(shape: Shape) -> Row:
    return {"q_heads": shape.q_heads, "kv_heads": shape.kv_heads}


def write_iterations(path: Path, rows: Sequence[Row]) -> None:
    """Write iterations as ``vidur-ppo calibrate`` reads them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_kernels(path: Path, about: dict[str, str], kernels: dict[str, list[Row]]) -> None:
    """Write the times of kernels as JSON, a line each, and what they were measured on."""
    parts = [f'"about": {json.dumps(about)}']
    for kind, rows in kernels.items():
        lines = ",\n".join(json.dumps(row) for row in rows)
        parts.append(f'"{kind}": [\n{lines}\n]')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def measure(folder: Path, sizes: Sizes, timer: Timer) -> None:
    """Measure everything; write both files."""
    about = {
        "gpu": torch.cuda.get_device_name(timer.device),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "clocks": "burst" if timer.burst else "busy",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    kernels: dict[str, list[Row]] = {"gemm": [], "decode": [], "prefill": []}
    for shape in (LLAMA_3_8B, LLAMA_3_70B):
        print(f"kernels of {shape.name}, a part of {shape.tensor_parallel}", flush=True)
        kernels["gemm"] += product_rows(shape, sizes.tokens, timer)
        kernels["decode"] += decode_rows(shape, sizes.decodes, timer)
        kernels["prefill"] += prompt_rows(shape, sizes.prompts, timer)
        torch.cuda.empty_cache()
    write_kernels(folder / "kernels.json", about, kernels)

    decoder = Decoder(LLAMA_3_8B, _slots(LLAMA_3_8B, sizes.batches), timer.device)
    print(f"iterations of {LLAMA_3_8B.name}, a cache of {decoder.slots} tokens", flush=True)
    write_iterations(folder / "iterations.csv", iteration_rows(decoder, sizes.batches, timer))


def _slots(shape: Shape, batches: Sequence[Batch]) -> int:
    """Return how many tokens of what batches need fit beside the weights; 0 or less: none."""
    matrices = {name: k * n for name, (k, n) in shape.matrices.items()}
    outside = 2 * matrices.pop("lm_head")
    weights = 2 * (outside + shape.layers * sum(matrices.values()))
    free, _ = torch.cuda.mem_get_info()
    each = 4 * shape.layers * shape.kv_heads * HEAD_DIM
    fitting = (free - weights - _SPARE_BYTES) // each
    return min(fitting, max(batch.cached for batch in batches))


def main() -> int:
    """Measure on the first GPU; return the exit status."""
    parser = argparse.ArgumentParser(description="Kernels and iterations on a GPU")
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="where the two files go (default: .)"
    )
    parser.add_argument("--quick", action="store_true", help="a few sizes only")
    parser.add_argument(
        "--burst", action="store_true", help="the clocks of a rested GPU, not of a busy one"
    )
    arguments = parser.parse_args()
    sizes = few_sizes() if arguments.quick else all_sizes()
    if not torch.cuda.is_available():
        parser.error("needs an NVIDIA GPU and torch for CUDA; torch finds no GPU here")
    if _slots(LLAMA_3_8B, sizes.batches) < _LEAST_SLOTS:
        parser.error("needs 20 GiB of free GPU memory; end what else runs on the GPU")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        measure(arguments.folder, sizes, Timer(torch.device("cuda"), arguments.burst))
    return 0


if __name__ == "__main__":
    sys.exit(main())
