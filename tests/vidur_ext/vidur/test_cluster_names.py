"""The names and shapes that the config knows are those of the installed Vidur."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from vidur.config import CacheConfig
from vidur.config.model_config import BaseModelConfig
from vidur.config.node_sku_config import BaseNodeSKUConfig
from vidur.types import DeviceSKUType
from vidur.utils.memory_planner import MemoryPlanner
from vidur.utils.param_counter import ParamCounter

from vidur_ext.config.sections import (
    DEVICE_NAMES,
    MODELS,
    NodeName,
)
from vidur_ext.execution_time.devices import device_named, device_names
from vidur_ext.execution_time.links import NODES
from vidur_ext.execution_time.models import model_named, model_names
from vidur_ext.vidur.cluster import ReplicaConfig

A100: Any = {
    "device": "a100",
    "network_device": "a100_dgx",
    "tensor_parallel_size": 1,
    "num_pipeline_stages": 1,
}


def below(base: type) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from below(kind)


def test_models_are_ours_with_vidurs_among_them() -> None:
    assert set(MODELS) == set(model_names())
    for kind in list(below(BaseModelConfig)):
        if hasattr(kind, "num_layers") and "get_name" in vars(kind):
            ours = model_named(kind.get_name())
            for name, value in ours:
                theirs = {"gated_mlp": "use_gated_mlp", "post_attention_norm": "post_attn_norm"}
                if hasattr(kind, theirs.get(name, name)):
                    assert value == getattr(kind, theirs.get(name, name)), (kind, name)
            assert ours.tensor_parallel is not kind.no_tensor_parallel


@pytest.mark.parametrize(
    ("name", "of_dense"),
    [("meta-llama/Llama-3.1-8B", 1.0), ("meta-llama/Llama-3.1-8B-FP8", 0.5)],
)
def test_vidur_counts_the_bytes_of_a_models_weights(name: str, of_dense: float) -> None:
    dense = ReplicaConfig("meta-llama/Llama-3-8B", **A100)
    expected = of_dense * ParamCounter(dense).get_num_parameters_per_device()
    counted = ParamCounter(ReplicaConfig(name, **A100)).get_num_parameters_per_device()
    assert counted == pytest.approx(expected, rel=1e-4)


def test_vidur_counts_every_expert_and_the_width_of_heads() -> None:
    experts = ReplicaConfig("Qwen/Qwen3-30B-A3B", **A100)
    # 48 layers of 128 experts of 3 * 2048 * 768, and attention of 32 and 4 heads 128 wide.
    assert ParamCounter(experts).get_num_parameters_per_device() == pytest.approx(
        48 * (128 * 3 * 2048 * 768 + 2048 * 128 * (2 * 32 + 2 * 4)), rel=1e-6
    )
    cache = CacheConfig(memory_margin_fraction=0.1)
    wide = ReplicaConfig("Qwen/Qwen3-32B", **A100)
    assert MemoryPlanner(wide, cache)._get_kv_cache_memory_per_layer_per_token() == 4 * 128 * 8


def test_nodes_are_ours_with_vidurs_among_them_and_begin_with_the_device_they_hold() -> None:
    vidurs = {
        str(kind.get_type()): (str(kind.device_sku_type), kind.num_devices_per_node)
        for kind in below(BaseNodeSKUConfig)
        if "get_type" in vars(kind) and hasattr(kind, "device_sku_type")
    }
    assert set(typing.get_args(NodeName)) == set(NODES) >= set(vidurs)
    for name, (device, per_node) in vidurs.items():
        assert name.startswith(f"{device}_")
        assert NODES[name].devices == per_node


def test_devices_are_ours_with_vidurs_among_them() -> None:
    assert set(DEVICE_NAMES) == set(device_names()) >= {str(kind) for kind in DeviceSKUType}
    assert all(device_named(name).node.startswith(f"{name}_") for name in DEVICE_NAMES)


@pytest.mark.parametrize("name", DEVICE_NAMES)
def test_vidur_builds_a_replica_of_every_device(name: str) -> None:
    device = device_named(name)
    values: Any = {**A100, "device": name, "network_device": device.node}
    built: Any = ReplicaConfig(**values)
    assert built.device_config.total_memory_gb == pytest.approx(device.memory_gib, abs=0.5)
    assert built.node_config.num_devices_per_node == NODES[device.node].devices
