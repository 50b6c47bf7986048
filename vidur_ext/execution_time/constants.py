"""The quantities that describe a device to the roofline, each with its unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSheet:
    """What the vendor states: dense 16-bit tensor TFLOP/s, memory GB/s, multiprocessors."""

    tflops: float
    memory_gb_s: float
    num_sms: int


@dataclass(frozen=True)
class GemmConstants:
    """A matrix product: rates that large ones reach, and what small ones lose.

    ``fill_elements`` output elements are computed in vain (the last, partly filled wave of
    tiles). ``knee`` is the exponent of the smooth maximum of compute and memory time.
    """

    tflops: float
    gb_s: float
    launch_ms: float
    fill_elements: float
    knee: float


@dataclass(frozen=True)
class StreamConstants:
    """An element-wise kernel: it moves bytes at ``gb_s`` after ``launch_ms``."""

    gb_s: float
    launch_ms: float


@dataclass(frozen=True)
class AttentionConstants:
    """Attention kernels (one layer).

    Decode: KV read rate, launch, least share of a wave that a begun wave costs, and the time of
    one thread block alone (constant and per KV token). Prefill: rate of full waves and of
    split-KV kernels, launch, the time of one thread block per KV token, and the cost of merging
    split results (constant, and rate over the partial results). Per-token times are those of heads
    128 wide.
    """

    decode_gb_s: float
    decode_launch_ms: float
    decode_wave_tail: float
    decode_block_ms: float
    decode_block_ms_per_token: float
    prefill_tflops: float
    prefill_split_tflops: float
    prefill_launch_ms: float
    prefill_block_ms_per_token: float
    prefill_merge_ms: float
    prefill_merge_gb_s: float


@dataclass(frozen=True)
class Interconnect:
    """Links of a node, one direction, data sheet: within a fast group, in the node, between nodes.

    ``efficiency`` is the share of a link that a collective reaches, ``hop_ms`` the latency of one
    step of a ring.
    """

    devices_per_node: int
    fast_group: int
    fast_gb_s: float
    node_gb_s: float
    internode_gb_s: float
    efficiency: float
    hop_ms: float

    def gb_s(self, span: int) -> float:
        """Return the rate [GB/s] that neighbours reach in a group of ``span`` devices."""
        if span <= self.fast_group:
            return self.efficiency * self.fast_gb_s
        if span <= self.devices_per_node:
            return self.efficiency * self.node_gb_s
        return self.efficiency * self.internode_gb_s


@dataclass(frozen=True)
class DeviceConstants:
    """Everything that the roofline knows about a device and the node around it."""

    name: str
    num_sms: int
    gemm: GemmConstants
    norm: StreamConstants
    add: StreamConstants
    activation: StreamConstants
    rope: StreamConstants
    embedding: StreamConstants
    kv_cache_save: StreamConstants
    attention: AttentionConstants
    interconnect: Interconnect
