"""The names and shapes that the config knows are those of the installed Vidur."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from vidur.config import ReplicaConfig
from vidur.config.model_config import BaseModelConfig
from vidur.config.node_sku_config import BaseNodeSKUConfig
from vidur.types import DeviceSKUType

from vidur_ext.config.sections import (
    DEVICE_NAMES,
    LAYERS_AND_HEADS,
    ModelName,
    NodeName,
)
from vidur_ext.execution_time.devices import device_named, device_names
from vidur_ext.execution_time.links import NODES
from vidur_ext.vidur.hardware import register_hardware


def below(base: type) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from below(kind)


def test_models_are_vidurs_with_their_layers_and_heads() -> None:
    named = [kind for kind in below(BaseModelConfig) if hasattr(kind, "num_layers")]
    vidurs = {kind.get_name(): (kind.num_layers, kind.num_q_heads) for kind in named}
    assert vidurs == LAYERS_AND_HEADS
    assert set(typing.get_args(ModelName)) == set(LAYERS_AND_HEADS)


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


def test_vidur_builds_a_replica_of_every_device() -> None:
    register_hardware()
    for name in DEVICE_NAMES:
        device = device_named(name)
        built: Any = ReplicaConfig(
            device=name,
            network_device=device.node,
            tensor_parallel_size=1,
            num_pipeline_stages=1,
        )
        assert built.device_config.total_memory_gb == pytest.approx(device.memory_gib, abs=0.5)
        assert built.node_config.num_devices_per_node == NODES[device.node].devices
