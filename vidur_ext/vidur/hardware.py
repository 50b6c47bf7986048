"""Devices, nodes and models that Vidur does not know, as config classes that it finds by name."""

from __future__ import annotations

from typing import Any

from vidur.config.device_sku_config import BaseDeviceSKUConfig
from vidur.config.model_config import BaseModelConfig
from vidur.config.node_sku_config import BaseNodeSKUConfig
from vidur.config.utils import get_all_subclasses

from vidur_ext.execution_time.devices import device_named
from vidur_ext.execution_time.kernels import BYTES
from vidur_ext.execution_time.links import node_named
from vidur_ext.execution_time.models import Model, model_named

_KEPT: list[type] = []
"""Python forgets classes that nobody holds, and Vidur finds them as subclasses."""


def register_hardware(device: str, node: str) -> None:
    """Let Vidur know a device, by its name or the path of its file, and a node.

    Raises:
        UserError: one is unknown.
    """
    found = device_named(device)
    # Vidur declares whole gigabytes, and calculates with what is there.
    memory = {"fp16_tflops": found.bf16_tflops, "total_memory_gb": found.memory_gib}
    _register(BaseDeviceSKUConfig, "get_type", device, memory)
    devices = {"num_devices_per_node": node_named(node).devices}
    _register(BaseNodeSKUConfig, "get_type", node, devices)


def register_model(name: str) -> None:
    """Let Vidur know a model by its name or the path of its file.

    Raises:
        UserError: it is unknown.
    """
    model = model_named(name)
    values = {
        "num_layers": model.num_layers,
        "num_q_heads": model.num_q_heads,
        "num_kv_heads": model.num_kv_heads,
        "embedding_dim": model.embedding_dim,
        "mlp_hidden_dim": _as_wide(model),
        "vocab_size": model.vocab_size,
        "use_gated_mlp": model.gated_mlp,
        "post_attn_norm": model.post_attention_norm,
        "no_tensor_parallel": not model.tensor_parallel,
    }
    _register(BaseModelConfig, "get_name", name, values)


def _as_wide(model: Model) -> int:
    """Return the width of one bf16 MLP with which a layer takes as much memory as it does.

    Vidur counts two bytes a weight and one MLP a layer, to know what is left for the KV cache.
    """
    of_matrices = (3 if model.gated_mlp else 2) * model.embedding_dim
    attention = model.layer_parameters(1) - of_matrices * model.mlp_hidden_dim * (
        model.num_experts or 1
    )
    as_bf16 = model.layer_parameters(1) * BYTES[model.weights] / BYTES["bf16"]
    return round((as_bf16 - attention) / of_matrices)


def _register(base: Any, called: str, name: str, values: dict[str, Any]) -> None:
    known = [kind for kind in get_all_subclasses(base) if called in vars(kind)]
    if any(str(getattr(kind, called)()) == name for kind in known):
        return

    def build(self: Any) -> None:
        vars(self).update(values)

    own = {called: staticmethod(lambda: name), "__init__": build}
    _KEPT.append(type(f"{name}Config", (base,), own))
