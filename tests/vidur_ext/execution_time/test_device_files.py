"""A device file says what a device is; one that is none is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import device_named, device_names
from vidur_ext.execution_time.links import node_named

OWN = {
    "measured": "h100",
    "memory_gib": 80,
    "bf16_tflops": 989.4,
    "memory_gb_s": 3350.0,
    "node": "h100_dgx",
}


def write(folder: Path, **changed: object) -> str:
    path = folder / "own.json"
    path.write_text(json.dumps(OWN | changed), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", device_names())
def test_every_device_has_kernels_and_stands_in_a_node_that_there_is(name: str) -> None:
    device = device_named(name)
    assert device.kernels.gemm
    assert node_named(device.node).devices >= 1
    assert (device.fp8_tflops is None) == ("fp8" not in dict(device.sheet.tflops))


def test_a_file_of_the_users_is_a_device(tmp_path: Path) -> None:
    device = device_named(write(tmp_path, gemm_factor=1.25))
    assert device.gemm_factor == 1.25
    assert device.iteration_overhead_ms == device_named("h100").iteration_overhead_ms


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"memory_gib": -1}, r"own\.json: memory_gib = -1: must be a number > 0"),
        ({"gemm_facter": 2}, r"own\.json: gemm_facter = 2: .*did you mean .*gemm_factor"),
        ({"measured": "v100"}, r"no kernels of 'v100' were measured; choose one of a100"),
        ({"node": 7}, r"own\.json: node = 7: must be text"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        device_named(write(tmp_path, **changed))


def test_a_missing_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"measured": "h100"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"own\.json: memory_gib: is missing"):
        device_named(str(path))
    with pytest.raises(UserError, match=r"none\.json: cannot read"):
        device_named(str(tmp_path / "none.json"))
