"""The names and shapes that the config knows are those of the installed Vidur."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from vidur.config.model_config import BaseModelConfig
from vidur.config.node_sku_config import BaseNodeSKUConfig
from vidur.types import DeviceSKUType

from vidur_ext.config.sections import (
    LAYERS_AND_HEADS,
    ClusterSection,
    ModelName,
    NodeName,
)


def below(base: type) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from below(kind)


def test_models_are_vidurs_with_their_layers_and_heads() -> None:
    named = [kind for kind in below(BaseModelConfig) if hasattr(kind, "num_layers")]
    vidurs = {kind.get_name(): (kind.num_layers, kind.num_q_heads) for kind in named}
    assert vidurs == LAYERS_AND_HEADS
    assert set(typing.get_args(ModelName)) == set(LAYERS_AND_HEADS)


def test_nodes_are_vidurs_and_begin_with_the_device_they_hold() -> None:
    nodes = {
        str(kind.get_type()): str(kind.device_sku_type)
        for kind in below(BaseNodeSKUConfig)
        if "get_type" in vars(kind)
    }
    assert set(typing.get_args(NodeName)) == set(nodes)
    assert all(name.startswith(f"{device}_") for name, device in nodes.items())


def test_devices_are_vidurs() -> None:
    allowed = typing.get_args(ClusterSection.model_fields["device"].annotation)
    assert set(allowed) == {str(kind) for kind in DeviceSKUType}
