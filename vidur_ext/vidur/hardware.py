"""Devices and nodes that Vidur does not know, as the config classes that it looks for by name."""

from __future__ import annotations

from typing import Any

from vidur.config.device_sku_config import BaseDeviceSKUConfig
from vidur.config.node_sku_config import BaseNodeSKUConfig
from vidur.config.utils import get_all_subclasses

from vidur_ext.execution_time.devices import device_named, device_names
from vidur_ext.execution_time.links import NODES

_KEPT: list[type] = []
"""Python forgets classes that nobody holds, and Vidur finds them as subclasses."""


def register_hardware() -> None:
    """Let Vidur know every device and node that has a name here."""
    for name in device_names():
        register_device(name)
    for name, node in NODES.items():
        _register(BaseNodeSKUConfig, name, num_devices_per_node=node.devices)


def register_device(name: str) -> None:
    """Let Vidur know a device by its name or the path of its file.

    Raises:
        UserError: it is unknown.
    """
    device = device_named(name)
    # Vidur declares whole gigabytes, and calculates with what is there.
    _register(
        BaseDeviceSKUConfig,
        name,
        fp16_tflops=device.bf16_tflops,
        total_memory_gb=device.memory_gib,
    )


def _register(base: Any, name: str, **values: float) -> None:
    kinds = [kind for kind in get_all_subclasses(base) if hasattr(kind, "get_type")]
    if any(str(kind.get_type()) == name for kind in kinds):
        return

    def build(self: Any) -> None:
        vars(self).update(values)

    own = {"get_type": staticmethod(lambda: name), "__init__": build}
    _KEPT.append(type(f"{name}Config", (base,), own))
