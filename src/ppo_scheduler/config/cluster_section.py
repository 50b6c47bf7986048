"""Config section of the served cluster, and the names that Vidur 0.0.26 knows."""

from __future__ import annotations

import typing
from typing import Literal

from pydantic import model_validator

from ppo_scheduler.config.section import Section, key

ModelName = Literal[
    "codellama/CodeLlama-34b-Instruct-hf",
    "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-2-70b-hf",
    "meta-llama/Llama-3-8B",
    "meta-llama/Llama-3-70B",
    "internlm/internlm-20b",
    "internlm/internlm2-20b",
    "microsoft/phi-2",
    "Qwen/Qwen-72B",
]

LAYERS_AND_HEADS: dict[str, tuple[int, int]] = {
    "codellama/CodeLlama-34b-Instruct-hf": (48, 64),
    "meta-llama/Llama-2-7b-hf": (32, 32),
    "meta-llama/Llama-2-70b-hf": (80, 64),
    "meta-llama/Llama-3-8B": (32, 32),
    "meta-llama/Llama-3-70B": (80, 64),
    "internlm/internlm-20b": (60, 40),
    "internlm/internlm2-20b": (48, 48),
    "microsoft/phi-2": (32, 32),
    "Qwen/Qwen-72B": (80, 64),
}
"""Layers and query heads of every model, as Vidur declares them: they limit the parallelism."""

DeviceName = Literal["a40", "a100", "h100", "l40"]

NodeName = Literal[
    "a40_pairwise_nvlink",
    "a100_pairwise_nvlink",
    "a100_dgx",
    "h100_pairwise_nvlink",
    "h100_dgx",
    "l40_pcie",
]


class ClusterSection(Section):
    """The served cluster, in Vidur's terms."""

    num_replicas: int = key(4, "model replicas to route to", ge=1, le=1024)
    model_name: ModelName = key("meta-llama/Llama-3-8B", "the model every replica serves")
    device: DeviceName = key("a100", "GPU of every replica")
    devices: tuple[DeviceName, ...] | None = key(
        None, "GPU of each replica instead of `device`; null: all on `device`"
    )
    network_device: NodeName = key(
        "a100_dgx", "the node type that holds each `device`; other GPUs stand in their usual one"
    )
    tensor_parallel_size: int = key(1, "GPUs per pipeline stage", ge=1, le=64)
    num_pipeline_stages: int = key(1, "pipeline stages per replica", ge=1, le=64)
    replica_scheduler: Literal["sarathi", "vllm", "orca"] = key(
        "sarathi", "how a replica forms its batches"
    )
    batch_size_cap: int = key(128, "requests in one batch at most", unit="requests", ge=1)
    chunk_size: int = key(
        512, "sarathi: tokens in one batch at most", unit="tokens", ge=32, le=65_536
    )
    max_tokens_in_batch: int = key(
        4096, "vllm: tokens in one batch at most", unit="tokens", ge=32, le=1_048_576
    )
    block_size: int = key(16, "tokens per KV block", unit="tokens", ge=1, le=1024)
    num_blocks: int | None = key(
        None, "KV blocks per replica; null computes them from the device's memory", ge=1
    )
    watermark_blocks_fraction: float = key(
        0.01, "KV blocks kept free when a request is admitted", ge=0, lt=1
    )
    memory_margin_fraction: float = key(0.1, "device memory left alone", ge=0, lt=1)

    @model_validator(mode="after")
    def _node_holds_device(self) -> ClusterSection:
        """`network_device` is a node of `device`."""
        nodes = [name for name in typing.get_args(NodeName) if name.startswith(f"{self.device}_")]
        if self.network_device not in nodes:
            raise ValueError(
                f"network_device={self.network_device!r} holds no device={self.device!r}; "
                f"choose {' or '.join(nodes)}"
            )
        return self

    @model_validator(mode="after")
    def _a_device_per_replica(self) -> ClusterSection:
        """`devices` names as many GPUs as `num_replicas`."""
        if self.devices is not None and len(self.devices) != self.num_replicas:
            raise ValueError(
                f"devices names {len(self.devices)} GPUs for num_replicas={self.num_replicas}; "
                "name one per replica, or change num_replicas"
            )
        return self

    def device_counts(self) -> str:
        """Return how many replicas stand on which GPU, e.g. ``2 x h100, 2 x a100``."""
        devices = self.devices or (self.device,) * self.num_replicas
        return ", ".join(f"{devices.count(name)} x {name}" for name in dict.fromkeys(devices))

    @model_validator(mode="after")
    def _model_splits_evenly(self) -> ClusterSection:
        """`tensor_parallel_size` divides the model's heads, `num_pipeline_stages` its layers."""
        layers, heads = LAYERS_AND_HEADS[self.model_name]
        if heads % self.tensor_parallel_size:
            raise ValueError(
                f"tensor_parallel_size={self.tensor_parallel_size} must divide the {heads} query "
                f"heads of {self.model_name}"
            )
        if layers % self.num_pipeline_stages:
            raise ValueError(
                f"num_pipeline_stages={self.num_pipeline_stages} must divide the {layers} layers "
                f"of {self.model_name}"
            )
        return self
