"""Laws that hold for every device, model and degree of parallelism."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import device_named, device_names
from vidur_ext.execution_time.links import NODES, node_named
from vidur_ext.execution_time.models import Model, model_named
from vidur_ext.execution_time.operators import Gemm
from vidur_ext.execution_time.roofline import RooflineModel

LLAMA_8B = model_named("meta-llama/Llama-3-8B")
LLAMA_70B = model_named("meta-llama/Llama-3-70B")
MULTI_HEAD_7B = model_named("meta-llama/Llama-2-7b-hf")
PHI_2 = model_named("microsoft/phi-2")
EXPERTS = model_named("Qwen/Qwen3-30B-A3B")

devices = st.sampled_from(device_names())
models = st.sampled_from([LLAMA_8B, LLAMA_70B, MULTI_HEAD_7B, PHI_2, EXPERTS])
degrees = st.sampled_from([1, 2, 4, 8])


def roofline_on(
    model: Model, device: str, degree: int, stages: int = 1, node: str | None = None
) -> RooflineModel:
    found = device_named(device)
    return RooflineModel(model, found, node_named(node or found.node), degree, stages)


rooflines = st.builds(roofline_on, models, devices, degrees, st.sampled_from([1, 2]))
tokens = st.integers(1, 20_000)
contexts = st.integers(0, 40_000)
batches = st.integers(1, 600)


@given(rooflines, tokens, tokens)
def test_no_operator_gets_faster_with_more_tokens(
    roofline: RooflineModel, first: int, second: int
) -> None:
    few, many = float(min(first, second)), float(max(first, second))
    for operator in roofline.token_operators.values():
        assert operator.ms(few) <= operator.ms(many)
    assert roofline.all_reduce(few) <= roofline.all_reduce(many)
    assert roofline.send_recv(few) <= roofline.send_recv(many)
    assert roofline.iteration_overhead(few) <= roofline.iteration_overhead(many)


@given(rooflines, batches, batches, contexts, contexts)
def test_decode_attention_grows_with_batch_and_context(
    roofline: RooflineModel, batch_a: int, batch_b: int, kv_a: int, kv_b: int
) -> None:
    (small, large), (short, long) = sorted((batch_a, batch_b)), sorted((kv_a, kv_b))
    less = roofline.attn_decode(float(small), float(short))
    assert 0.0 < less <= roofline.attn_decode(float(large), float(long)) + 1e-12


@given(rooflines, tokens, tokens, contexts, contexts)
def test_prefill_attention_grows_with_chunk_and_context(
    roofline: RooflineModel, chunk_a: int, chunk_b: int, kv_a: int, kv_b: int
) -> None:
    (small, large), (short, long) = sorted((chunk_a, chunk_b)), sorted((kv_a, kv_b))
    less = roofline.attn_prefill(float(short), float(small))
    assert 0.0 < less <= roofline.attn_prefill(float(long), float(large)) + 1e-12


@given(models, devices, tokens, contexts, batches)
def test_more_tensor_parallelism_slows_no_operator_by_more_than_a_step_of_tiles(
    model: Model, device: str, count: int, kv: int, batch: int
) -> None:
    few, many = (roofline_on(model, device, degree) for degree in (2, 4))
    for name in few.token_operators:
        faster, slower = (each.operator_ms(name, float(count)) for each in (many, few))
        assert faster <= 1.25 * slower
    assert many.attn_decode(float(batch), float(kv)) <= 1.25 * few.attn_decode(
        float(batch), float(kv)
    )
    fewer_heads = many.attn_prefill(float(kv), float(count))
    assert fewer_heads <= 1.25 * few.attn_prefill(float(kv), float(count))


@given(rooflines, tokens)
def test_no_product_beats_the_data_sheet(roofline: RooflineModel, count: int) -> None:
    """But for weights that lie in a cache: half of their traffic at most is saved so."""
    sheet = roofline.device
    for operator in roofline.token_operators.values():
        if isinstance(operator, Gemm):
            flops_ms = 2.0 * operator.k * operator.n * count / (sheet.bf16_tflops * 1e9)
            weights_ms = 2.0 * operator.k * operator.n / (sheet.memory_gb_s * 1e6)
            assert operator.ms(float(count)) > max(0.95 * flops_ms, 0.5 * weights_ms)


@given(rooflines, st.integers(1, 300), contexts)
def test_decoding_never_beats_reading_weights_and_cache_once(
    roofline: RooflineModel, batch: int, kv: int
) -> None:
    model, sheet = roofline.model, roofline.device
    up_and_down = 3 if model.gated_mlp else 2
    experts = model.experts_per_token  # one request reads no others
    weights = (
        model.num_layers
        * model.embedding_dim
        * (2 * model.num_q_heads * model.head_width + experts * up_and_down * model.mlp_hidden_dim)
    )
    cache = 2 * batch * kv * model.num_layers * model.num_kv_heads * model.head_width
    bytes_per_device = 2 * (weights + cache) / roofline.tensor_parallel
    seconds = roofline.iteration_time_s(batch, float(kv), [])
    assert seconds > bytes_per_device / (sheet.memory_gb_s * 1e9)


@given(rooflines, st.lists(st.tuples(batches, contexts, tokens), min_size=1, max_size=20))
def test_arrays_and_floats_get_the_same_answer(
    roofline: RooflineModel, points: list[tuple[int, int, int]]
) -> None:
    batch, kv, chunk = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    decode, prefill = roofline.attn_decode(batch, kv), roofline.attn_prefill(kv, chunk)
    product = roofline.token_operators["mlp_up_proj"].ms(chunk)
    for i, (b, c, q) in enumerate(points):
        assert decode[i] == pytest.approx(roofline.attn_decode(float(b), float(c)), rel=1e-12)
        assert prefill[i] == pytest.approx(roofline.attn_prefill(float(c), float(q)), rel=1e-12)
        one = roofline.token_operators["mlp_up_proj"].ms(float(q))
        assert product[i] == pytest.approx(one, rel=1e-12)


def test_a_large_product_halves_when_it_is_split() -> None:
    one, two = (roofline_on(LLAMA_70B, "a100", degree) for degree in (1, 2))
    ratio = one.operator_ms("mlp_up_proj", 8192.0) / two.operator_ms("mlp_up_proj", 8192.0)
    assert ratio == pytest.approx(2.0, rel=0.06)


def test_key_value_heads_fewer_than_devices_are_replicated() -> None:
    assert roofline_on(LLAMA_8B, "a100", 16).kv_heads == 1


def test_newer_devices_are_faster_as_a_whole() -> None:
    times = {
        name: roofline_on(LLAMA_8B, name, 1).iteration_time_s(32, 1024.0, [(512, 512)])
        for name in device_names()
    }
    assert times["b200"] < times["h200"] < times["h100"] < times["a100"]
    assert times["a100"] < times["rtx_pro_6000"] * 1.5 < times["l40s"] * 1.5
    assert times["l40s"] < times["l40"] < times["a40"]


def test_an_all_reduce_over_pcie_is_slower_than_over_nvlink() -> None:
    pairwise, dgx = (
        roofline_on(LLAMA_8B, "a100", 4, node=node) for node in ("a100_pairwise_nvlink", "a100_dgx")
    )
    assert pairwise.all_reduce(1024.0) > 4 * dgx.all_reduce(1024.0)


def test_a_ring_is_near_what_was_measured() -> None:
    """Of eight H100: 4096 tokens of 4096 numbers took 0.172 ms."""
    dgx = roofline_on(LLAMA_8B, "h100", 8)
    assert dgx.all_reduce(4096.0) == pytest.approx(0.172, rel=0.15)
    assert NODES["h100_dgx"].ring_ms(8, 4096.0 * 4096) == pytest.approx(0.172, rel=0.2)


def test_a_group_larger_than_a_node_uses_the_network() -> None:
    within, beyond = (roofline_on(LLAMA_70B, "h100", degree) for degree in (8, 16))
    assert beyond.all_reduce(1024.0) > 4 * within.all_reduce(1024.0)


def test_an_empty_iteration_takes_no_time() -> None:
    assert roofline_on(LLAMA_8B, "a100", 1).iteration_time_s(0, 0, []) == 0


def test_host_time_is_the_device_files() -> None:
    roofline = roofline_on(LLAMA_8B, "a100", 2)
    slow = replace(
        roofline, device=roofline.device.model_copy(update={"iteration_overhead_ms": 8.0})
    )
    before, after = (each.iteration_time_s(8, 512.0, []) for each in (roofline, slow))
    assert after - before == pytest.approx((8.0 - roofline.device.iteration_overhead_ms) / 1e3)


def test_what_no_graph_covers_takes_as_long_as_its_launch() -> None:
    roofline = roofline_on(LLAMA_8B, "h100", 8)
    eager = replace(
        roofline, device=roofline.device.model_copy(update={"eager_iteration_ms": 20.0})
    )
    assert eager.iteration_time_s(0, 0, [(0, 512)]) == pytest.approx(0.020)
    for beyond in ([(0, roofline.max_batch_size)], [(0, 8192)]):
        as_before = roofline.iteration_time_s(0, 0, beyond)
        assert eager.iteration_time_s(0, 0, beyond) == pytest.approx(as_before)
    assert eager.iteration_time_s(64, 512.0, []) == roofline.iteration_time_s(64, 512.0, [])


def test_small_weights_are_read_faster() -> None:
    bf16, fp8 = (
        roofline_on(model_named(f"meta-llama/Llama-3.1-8B{suffix}"), "h100", 1)
        for suffix in ("", "-FP8")
    )
    assert fp8.iteration_time_s(16, 64.0, []) < 0.8 * bf16.iteration_time_s(16, 64.0, [])


def test_experts_cost_what_a_batch_calls_for() -> None:
    """One token goes through 3 of 30 billion weights, 64 tokens meet nearly all of them."""
    dense, experts = (
        roofline_on(model_named(name), "h100", 1)
        for name in ("Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B")
    )
    few, many = (each.iteration_time_s(1, 64.0, []) for each in (experts, dense))
    assert few < 0.4 * many
    assert experts.operator_ms("mlp_up_proj", 64.0) > 4 * experts.operator_ms("mlp_up_proj", 1.0)


def test_unknown_names_and_indivisible_degrees_say_what_to_choose() -> None:
    with pytest.raises(UserError, match=r"device 'v100'.*a100.*h200.*device file"):
        device_named("v100")
    with pytest.raises(UserError, match=r"node 'cloud'.*a100_dgx"):
        node_named("cloud")
    with pytest.raises(UserError, match="3 does not divide the model's 32 attention heads"):
        roofline_on(LLAMA_8B, "a100", 3)
    with pytest.raises(UserError, match="5 does not divide the model's 32 layers"):
        roofline_on(LLAMA_8B, "a100", 1, 5)
    with pytest.raises(UserError, match=r"no kernels for fp8 weights: choose a model with bf16"):
        roofline_on(model_named("meta-llama/Llama-3.1-8B-FP8"), "a100", 1)
    with pytest.raises(UserError, match=r"no experts of this shape were measured"):
        roofline_on(EXPERTS.model_copy(update={"num_experts": 64}), "h100", 1)
