"""What is timed on a GPU is a decoder: it computes what one computes."""

from __future__ import annotations

from itertools import pairwise

import gpu_iterations
import pytest
import torch
import torch.nn.functional as F
from gpu_iterations import (
    EPSILON,
    HEAD_DIM,
    LLAMA_3_8B,
    ROPE_BASE,
    Batch,
    Decoder,
    Shape,
    Timer,
    all_sizes,
    decode_rows,
    few_sizes,
    iteration_rows,
    product_rows,
    prompt_rows,
)
from torch import Tensor

TINY = Shape("tiny", 1, 2, q_heads=4, kv_heads=2, hidden=256, mlp=96, vocabulary=50)
CPU = torch.device("cpu")
ON_CPU = Timer(CPU)
CUDA = pytest.param(
    "cuda",
    torch.bfloat16,
    0.02,
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
)


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def plain_rope(heads: Tensor, positions: Tensor) -> Tensor:
    """Turn each pair (i, i + HEAD_DIM / 2) as a complex number."""
    half = HEAD_DIM // 2
    angles = positions[:, None] / ROPE_BASE ** (torch.arange(half) * 2 / HEAD_DIM)
    turned = torch.complex(heads[..., :half], heads[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    ).unsqueeze(1)
    return torch.cat((turned.real, turned.imag), dim=-1)


def plain_last_logits(decoder: Decoder, tokens: Tensor, cached: int, first_slot: int) -> Tensor:
    """One request in float64: ``cached`` tokens lie in the cache, ``tokens`` are new."""
    shape = decoder.shape

    def wide(tensor: Tensor) -> Tensor:
        return tensor.detach().cpu().double()

    positions = torch.arange(cached, cached + len(tokens)).double()
    x = wide(decoder.embedding)[tokens.cpu()]
    for layer in decoder.layers:
        heads = (plain_norm(x, wide(layer.attention_norm)) @ wide(layer.qkv).T).unflatten(
            -1, (-1, HEAD_DIM)
        )
        query, key, value = heads.split([shape.q_heads, shape.kv_heads, shape.kv_heads], dim=1)
        before = slice(first_slot, first_slot + cached)
        keys = torch.cat((wide(layer.keys)[before], plain_rope(key, positions)))
        values = torch.cat((wide(layer.values)[before], value))
        query = plain_rope(query, positions)
        found = []
        for head in range(shape.q_heads):
            shared = head // (shape.q_heads // shape.kv_heads)
            scores = query[:, head] @ keys[:, shared].T / HEAD_DIM**0.5
            later = torch.arange(len(keys)) > positions[:, None]
            found.append(scores.masked_fill(later, -torch.inf).softmax(-1) @ values[:, shared])
        x = x + torch.cat(found, dim=-1) @ wide(layer.output).T
        up = plain_norm(x, wide(layer.mlp_norm)) @ wide(layer.gate_up).T
        x = x + F.silu(up[:, : shape.mlp]) * up[:, shape.mlp :] @ wide(layer.down).T
    return plain_norm(x[-1], wide(decoder.norm)) @ wide(decoder.lm_head).T


@pytest.mark.parametrize(("device", "dtype", "tolerance"), [("cpu", torch.float32, 1e-5), CUDA])
@pytest.mark.parametrize("batch", [Batch(3, 7, 0), Batch(0, 0, 9), Batch(2, 5, 6)])
def test_an_iteration_computes_the_logits_of_every_request(batch, device, dtype, tolerance):
    decoder = Decoder(TINY, 40, torch.device(device), dtype)
    tokens = torch.arange(batch.decodes + batch.prompt, device=device) % TINY.vocabulary
    firsts = [request * batch.kv for request in range(batch.decodes)]
    expected = [
        plain_last_logits(decoder, tokens[[request]], batch.kv - 1, first)
        for request, first in enumerate(firsts)
    ]
    if batch.prompt:
        expected.append(plain_last_logits(decoder, tokens[batch.decodes :], 0, 0))
    with torch.inference_mode():
        logits = decoder.iteration(tokens, batch)().cpu().double()
    assert logits.shape == (len(expected), TINY.vocabulary)
    for mine, plain in zip(logits, expected, strict=True):
        assert (mine - plain).norm() / plain.norm() < tolerance


def test_the_matrices_of_llama_3_8b_hold_its_parameters():
    per_layer = sum(k * n for name, (k, n) in LLAMA_3_8B.matrices.items() if name != "lm_head")
    k, n = LLAMA_3_8B.matrices["lm_head"]
    norms = 65 * LLAMA_3_8B.hidden
    assert 32 * per_layer + 2 * k * n + norms == 8_030_261_248  # as its model card counts


def test_batches_beyond_the_cache_are_left_out():
    decoder = Decoder(TINY, 20, CPU, torch.bfloat16)
    batches = [Batch(2, 5, 10), Batch(2, 5, 11), Batch(21, 1, 0), Batch(0, 0, 20)]
    with torch.inference_mode():
        rows = iteration_rows(decoder, batches, ON_CPU)
    sizes = {(row["decode_requests"], row["prefill_tokens"]) for row in rows}
    assert sizes == {(2, 10), (0, 20)}
    assert all(row["step_ms"] > 0 for row in rows)


def test_every_kernel_is_timed_at_every_size(monkeypatch):
    monkeypatch.setattr(gpu_iterations, "ALTERNATING_BYTES", 0)  # what a GPU's cache asks for
    with torch.inference_mode():
        products = list(product_rows(TINY, (1, 300), ON_CPU))
        decodes = list(decode_rows(TINY, [(2, 3)], ON_CPU))
        prompts = list(prompt_rows(TINY, [5], ON_CPU))
    assert {(row["k"], row["n"], row["tokens"]) for row in products} == {
        (256, 1024, 1),
        (256, 1024, 300),
        (512, 256, 1),
        (512, 256, 300),
        (256, 192, 1),
        (256, 192, 300),
        (96, 256, 1),
        (96, 256, 300),
        (256, 50, 1),  # the LM head never sees 300 tokens
    }
    [decode] = decodes
    assert (decode["q_heads"], decode["kv_heads"], decode["requests"], decode["kv"]) == (4, 2, 2, 3)
    [prompt] = prompts
    assert (prompt["q_heads"], prompt["kv_heads"], prompt["tokens"]) == (4, 2, 5)
    assert all(row["ms"] > 0 for row in [*products, *decodes, *prompts])


def test_sizes_are_there_once():
    sizes = all_sizes()
    for some in (sizes.tokens, sizes.decodes, sizes.prompts, sizes.batches):
        assert len(set(some)) == len(some)
    assert all(first < second for first, second in pairwise(sizes.tokens))
    assert set(few_sizes().tokens) <= set(sizes.tokens)
