"""The devices that the predictor knows: files in ``devices/``, and those that users write.

Data sheets are NVIDIA's (dense, without sparsity). A device that nobody measured has the kernels
of a relative and its own data sheet: A40, L40 and RTX 4090 those of the RTX PRO 6000.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ppo_scheduler.config.section import Section, key
from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import read_section
from vidur_ext.execution_time.kernels import DataSheet, Kernels, measured_kernels

_FOLDER = Path(__file__).parent / "devices"


class Device(Section):
    """A device and the server software on it, as a device file says."""

    measured: str = key(..., "the device whose measured kernels it has, e.g. h100")
    memory_gib: float = key(..., "its memory", unit="GiB", gt=0, le=10_000)
    bf16_tflops: float = key(..., "dense bf16 rate, data sheet", unit="TFLOP/s", gt=0, le=1_000_000)
    fp8_tflops: float | None = key(
        None, "dense fp8 rate; null: no fp8", unit="TFLOP/s", gt=0, le=1_000_000
    )
    memory_gb_s: float = key(..., "memory rate, data sheet", unit="GB/s", gt=0, le=1_000_000)
    node: str = key(..., "the node that it usually stands in, e.g. h100_dgx")
    iteration_overhead_ms: float = key(
        1.0, "host time of an iteration: scheduling, launch, sampling", unit="ms", ge=0, le=1000
    )
    eager_iteration_ms: float = key(
        0.0,
        "host time to launch an iteration of more tokens than the batch cap, which no CUDA graph "
        "covers: it takes no less; 0 where compiled code launches it",
        unit="ms",
        ge=0,
        le=1000,
    )
    request_overhead_ms: float = key(
        0.0,
        "of a request outside the engine: HTTP, tokenizer, detokenizer",
        unit="ms",
        ge=0,
        le=60_000,
    )
    gemm_factor: float = key(
        1.0, "matrix products take that many times as long as measured", ge=0.1, le=10
    )
    attention_factor: float = key(
        1.0, "attention takes that many times as long as measured", ge=0.1, le=10
    )
    collective_factor: float = key(
        1.0, "collectives take that many times as long as measured", ge=0.1, le=10
    )

    @property
    def sheet(self) -> DataSheet:
        """Its data sheet."""
        bf16 = (("bf16", self.bf16_tflops),)
        return DataSheet(
            bf16 if self.fp8_tflops is None else (*bf16, ("fp8", self.fp8_tflops)),
            self.memory_gb_s,
        )

    @property
    def kernels(self) -> Kernels:
        """Its measured kernels."""
        return measured_kernels(self.measured)


def device_names() -> list[str]:
    """Return the names of the devices that need no file of the user's."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


@lru_cache(maxsize=64)
def device_named(name: str) -> Device:
    """Return a device by its name, or by the path of its file.

    Raises:
        UserError: it is unknown, or its file cannot be read or is none.
    """
    path = Path(name) if name.endswith(".json") else _FOLDER / f"{name}.json"
    if not path.is_file() and not name.endswith(".json"):
        raise UserError(
            f"the analytic predictor does not know the device {name!r}; choose one of "
            f"{', '.join(device_names())}, or name a device file (.json)"
        )
    device = read_section(path, Device)
    _ = device.kernels  # there are some
    return device
