"""The devices and nodes that the roofline knows.

Sources. ``DATA_SHEETS``: NVIDIA's data sheets (A40; A100 80 GB SXM; H100 80 GB SXM; L40), dense
16-bit tensor rate without sparsity. ``_A100`` and the GEMM and element-wise constants of ``_H100``:
fitted by ``fit.py`` to the operator profiles that Vidur publishes (A100: Llama-3-8B and Llama-2-7B;
H100: Llama-2-7B; attention: A100, Llama-3-8B, FlashInfer). All else has no profile and is scaled
from the A100's fitted efficiencies with the data sheets. docs/execution_time.md states the errors.
"""

from __future__ import annotations

from dataclasses import replace

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.constants import (
    AttentionConstants,
    DataSheet,
    DeviceConstants,
    GemmConstants,
    Interconnect,
    StreamConstants,
)

DATA_SHEETS = {
    "a40": DataSheet(tflops=149.7, memory_gb_s=696.0, num_sms=84),
    "a100": DataSheet(tflops=312.0, memory_gb_s=2039.0, num_sms=108),
    "h100": DataSheet(tflops=989.4, memory_gb_s=3350.0, num_sms=132),
    "l40": DataSheet(tflops=181.0, memory_gb_s=864.0, num_sms=142),
}

# Links: NVLink 3 600 GB/s, NVLink 4 900 GB/s, A40 bridge 112.5 GB/s, PCIe 4 x16 64 GB/s, PCIe 5
# x16 128 GB/s, all both directions together, so halved; DGX A100 and H100 have one 200 and 400
# Gbit/s adapter per GPU, 100 Gbit/s is assumed elsewhere. Efficiency and hop latency are
# assumptions within what NCCL reaches: no collective was profiled.
_EFFICIENCY = 0.77
_HOP_MS = 0.0015
INTERCONNECTS = {
    "a40_pairwise_nvlink": Interconnect(8, 2, 56.25, 32.0, 12.5, _EFFICIENCY, _HOP_MS),
    "a100_pairwise_nvlink": Interconnect(4, 2, 300.0, 32.0, 12.5, _EFFICIENCY, _HOP_MS),
    "h100_pairwise_nvlink": Interconnect(4, 2, 300.0, 64.0, 12.5, _EFFICIENCY, _HOP_MS),
    "a100_dgx": Interconnect(8, 8, 300.0, 300.0, 25.0, _EFFICIENCY, _HOP_MS),
    "h100_dgx": Interconnect(8, 8, 450.0, 450.0, 50.0, _EFFICIENCY, _HOP_MS),
    "l40_pcie": Interconnect(8, 1, 32.0, 32.0, 12.5, _EFFICIENCY, _HOP_MS),
}
_USUAL_NODE = {
    "a40": "a40_pairwise_nvlink",
    "a100": "a100_dgx",
    "h100": "h100_dgx",
    "l40": "l40_pcie",
}

_A100 = DeviceConstants(
    name="a100",
    num_sms=108,
    gemm=GemmConstants(228.4, 1715.0, 0.00434, 1.17e5, 1.612),
    norm=StreamConstants(737.2, 0.002028),
    add=StreamConstants(1916.0, 0.0011),
    activation=StreamConstants(992.4, 0.002028),
    rope=StreamConstants(896.5, 0.002113),
    embedding=StreamConstants(304.8, 0.002473),
    kv_cache_save=StreamConstants(1862.0, 0.002683),
    attention=AttentionConstants(
        decode_gb_s=1618.0,
        decode_launch_ms=0.01151,
        decode_wave_tail=0.3752,
        decode_block_ms=0.004249,
        decode_block_ms_per_token=4.136e-5,
        prefill_tflops=188.0,
        prefill_split_tflops=169.3,
        prefill_launch_ms=0.008062,
        prefill_block_ms_per_token=5.284e-5,
        prefill_merge_ms=0.02928,
        prefill_merge_gb_s=304.0,
    ),
    interconnect=INTERCONNECTS["a100_dgx"],
)


def _scaled_stream(constants: StreamConstants, memory: float) -> StreamConstants:
    return replace(constants, gb_s=constants.gb_s * memory)


def _scaled(name: str) -> DeviceConstants:
    """Return constants of a device without a profile: the A100's efficiencies, its data sheet.

    Rates follow the data sheet, launch times stay, and what one thread block does alone follows
    the compute rate of one multiprocessor.
    """
    sheet, reference = DATA_SHEETS[name], DATA_SHEETS[_A100.name]
    compute = sheet.tflops / reference.tflops
    memory = sheet.memory_gb_s / reference.memory_gb_s
    sms = sheet.num_sms / reference.num_sms
    a = _A100.attention
    return DeviceConstants(
        name=name,
        num_sms=sheet.num_sms,
        gemm=replace(
            _A100.gemm,
            tflops=_A100.gemm.tflops * compute,
            gb_s=_A100.gemm.gb_s * memory,
            fill_elements=_A100.gemm.fill_elements * sms,
        ),
        norm=_scaled_stream(_A100.norm, memory),
        add=_scaled_stream(_A100.add, memory),
        activation=_scaled_stream(_A100.activation, memory),
        rope=_scaled_stream(_A100.rope, memory),
        embedding=_scaled_stream(_A100.embedding, memory),
        kv_cache_save=_scaled_stream(_A100.kv_cache_save, memory),
        attention=replace(
            a,
            decode_gb_s=a.decode_gb_s * memory,
            decode_block_ms_per_token=a.decode_block_ms_per_token * sms / memory,
            prefill_tflops=a.prefill_tflops * compute,
            prefill_split_tflops=a.prefill_split_tflops * compute,
            prefill_block_ms_per_token=a.prefill_block_ms_per_token * sms / compute,
            prefill_merge_gb_s=a.prefill_merge_gb_s * memory,
        ),
        interconnect=INTERCONNECTS[_USUAL_NODE[name]],
    )


_H100 = replace(
    _scaled("h100"),
    gemm=GemmConstants(784.0, 3350.0, 0.004894, 2.274e5, 1.292),
    norm=StreamConstants(1441.0, 0.002571),
    add=StreamConstants(3807.0, 0.0009952),
    activation=StreamConstants(1875.0, 0.001603),
    rope=StreamConstants(1759.0, 0.001737),
    embedding=StreamConstants(619.2, 0.002506),
)

_DEVICES = {"a40": _scaled("a40"), "a100": _A100, "h100": _H100, "l40": _scaled("l40")}


def usual_node(device: str) -> str:
    """Return Vidur's name of the node that a device usually stands in.

    Raises:
        UserError: the device is unknown.
    """
    if device not in _USUAL_NODE:
        raise UserError(f"unknown device {device!r}; choose one of {', '.join(_USUAL_NODE)}")
    return _USUAL_NODE[device]


def device_constants(device: str, network_device: str | None = None) -> DeviceConstants:
    """Return the constants of a device in a node.

    Args:
        device: a40, a100, h100 or l40 (Vidur's names).
        network_device: Vidur's node name, e.g. ``a100_pairwise_nvlink``; the device's usual
            node by default.

    Raises:
        UserError: either is unknown.
    """
    if device not in _DEVICES:
        raise UserError(
            f"the analytic predictor has no constants for device {device!r}; "
            f"choose one of {', '.join(_DEVICES)}"
        )
    if network_device is None:
        return _DEVICES[device]
    if network_device not in INTERCONNECTS:
        raise UserError(
            f"the analytic predictor does not know the node {network_device!r}; "
            f"choose one of {', '.join(INTERCONNECTS)}"
        )
    return replace(_DEVICES[device], interconnect=INTERCONNECTS[network_device])
