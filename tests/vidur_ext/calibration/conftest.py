"""Measurements of a server whose constants are known: the model itself, with other constants."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidur_ext.calibration.measurements import Iterations, Requests
from vidur_ext.calibration.replica import Replica
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.execution_time.devices import Device, device_named
from vidur_ext.workload.request_table import RequestTable

TRUTH = {
    "gemm_factor": 1.3,
    "attention_factor": 0.8,
    "iteration_overhead_ms": 3.0,
    "request_overhead_ms": 20.0,
}

PATH = Path("measured.csv")


class Server:
    """A replica of a config's cluster on a device with constants of its own."""

    def __init__(self, **cluster: object) -> None:
        self.config = TrainingConfig.model_validate({"cluster": cluster})

    def device(self, **constants: float) -> Device:
        return device_named("a100").model_copy(update=TRUTH | constants)

    def iterations(self, count: int = 200, seed: int = 0, **constants: float) -> Iterations:
        """Return batches of all kinds, as long as they take."""
        rng = np.random.default_rng(seed)
        decodes = rng.integers(0, 128, count).astype(float)
        mean_kv = rng.integers(1, 4000, count).astype(float)
        prompt = rng.integers(0, 2, count) * rng.integers(2, 2048, count) + (decodes == 0)
        return self.timed(
            Iterations(PATH, decodes, mean_kv, prompt.astype(float), np.ones(count)), **constants
        )

    def timed(self, batches: Iterations, **constants: float) -> Iterations:
        times = Replica(self.config, 8192).times(self.device(**constants), batches)
        return replace(batches, step_s=times["step"])

    def requests(self, count: int = 300, qps: float = 2.0, **constants: float) -> Requests:
        """Return requests of all sizes, as long as they take."""
        rng = np.random.default_rng(0)
        table = RequestTable(
            np.cumsum(rng.exponential(1.0 / qps, count)),
            rng.integers(20, 3000, count),
            rng.integers(2, 300, count),
        )
        guess = Requests(PATH, table, np.ones(count), np.full(count, 2.0))
        times = Replica(self.config, guess.longest).times(self.device(**constants), guess)
        return replace(guess, ttft_s=times["TTFT"], e2e_s=times["E2E"])


@pytest.fixture
def server() -> Callable[..., Server]:
    """Return a server whose cluster has some keys."""
    return Server


@pytest.fixture
def truth() -> dict[str, float]:
    return TRUTH


Rows = Sequence[Sequence[object]]


@pytest.fixture
def write_csv(tmp_path) -> Callable[..., Path]:
    """Write a header and rows."""

    def write(header: Sequence[str], rows: Rows, name: str = "measured.csv") -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def write_lines(tmp_path) -> Callable[..., Path]:
    """Write JSON lines."""

    def write(records: Sequence[Any], name: str = "measured.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(one)}\n" for one in records), encoding="utf-8")
        return path

    return write
