"""Servers under a constant number of requests: measured TPOT, and what the predictor says of it.

AIConfigurator's ``silicon_sample.csv`` holds end-to-end measurements in which a client kept as
many requests of one size in flight all the time. Their TTFT holds how long requests waited for one
another at the client's start, so only their TPOT is judged. What is the server software's own, the
host's times, is fitted on one half of the configurations and judged on the other, both ways.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from ppo_scheduler.observation import Floats
from vidur_ext.execution_time.devices import Device, device_named
from vidur_ext.execution_time.kernels import BYTES
from vidur_ext.execution_time.links import node_named
from vidur_ext.execution_time.models import model_named
from vidur_ext.execution_time.roofline import RooflineModel

MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B": "meta-llama/Llama-3.1-70B",
    "Qwen/Qwen3-32B": "Qwen/Qwen3-32B",
}
DEVICES = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200"}
WEIGHTS = {"": "", "fp8": "-FP8", "fp8_block": "-FP8"}
"""What is appended to a model's name; one scale per block of weights is computed by other kernels,
for which fp8's stand."""

_MOST_OVERHEAD_MS = 10.0
_LAUNCHES_MS = tuple(float(ms) for ms in range(0, 45, 5))
_MEMORY_SHARE = 0.9
"""Of a device, for weights and cache: what vLLM, TensorRT-LLM and SGLang take by default."""


@dataclass(frozen=True)
class Row:
    """A measurement: requests of so many tokens, so many of them in flight, and their TPOT."""

    server: str
    """Whose host times it has: model, weights, device and server software."""
    model: str
    device: str
    prompt: int
    output: int
    concurrency: int
    tensor_parallel: int
    tpot_ms: float

    @property
    def configuration(self) -> tuple[int, int, int]:
        """What is held out together: all numbers of requests in flight are on one side."""
        return self.prompt, self.output, self.tensor_parallel

    @property
    def roofline(self) -> RooflineModel:
        """The server as the predictor ships it."""
        return _roofline(self.model, self.device, self.tensor_parallel)


@lru_cache(maxsize=64)
def _roofline(model: str, device_name: str, degree: int) -> RooflineModel:
    device = device_named(device_name)
    return RooflineModel(model_named(model), device, node_named(device.node), degree, 1)


@dataclass(frozen=True)
class HostTimes:
    """Two times [ms] of server software, as in a device file."""

    iteration_overhead_ms: float
    eager_iteration_ms: float


def read_rows(lines: Iterable[str]) -> list[Row]:
    """Return the rows of a CSV whose model, device and weights the predictor knows.

    Left out are servers with separate prefill, data or pipeline parallelism, and rows without a
    measurement or without one of the numbers above.
    """
    rows = []
    for cells in csv.DictReader(lines):
        known = (
            cells["model_path"] in MODELS
            and cells["system"] in DEVICES
            and cells["gemm_quant_mode"] in WEIGHTS
            and cells["mode"] == "agg"
            and all(_number(cells[key]) <= 1 for key in ("pp_size", "attention_dp_size"))
        )
        sizes = [_number(cells[key]) for key in ("isl", "osl", "batch_size", "tp_size")]
        tpot_ms = _number(cells["silicon_tpot_ms"])
        if known and min(*sizes, tpot_ms) > 0:
            model, device = MODELS[cells["model_path"]], DEVICES[cells["system"]]
            kind = cells["gemm_quant_mode"] or "bf16"
            name = model.rpartition("/")[2].lower().replace("-", "_").replace(".", "_")
            server = f"{name}_{kind}_{device}_{cells['backend']}"
            prompt, output, concurrency, degree = map(int, sizes)
            weights = WEIGHTS[cells["gemm_quant_mode"]]
            rows.append(
                Row(server, model + weights, device, prompt, output, concurrency, degree, tpot_ms)
            )
    return rows


def _number(cell: str) -> float:
    """Return what a cell says, 0 where it is empty."""
    return float(cell or 0)


@dataclass(frozen=True)
class Load:
    """What a server must hold and do, over all its devices."""

    weights: float
    """Numbers in the layers' matrices; a token takes two operations with each."""
    weight_bytes: float
    cache_bytes: float
    """Keys and values of all requests at the middle of their output."""


def load_of(row: Row) -> Load:
    """Return the load of a row, from the dimensions of its model."""
    model = row.roofline.model
    weights = float(model.layer_parameters(1) * model.num_layers)
    vocabulary_bytes = 2.0 * 2 * model.embedding_dim * model.vocab_size
    heads = row.roofline.kv_heads * row.tensor_parallel
    token_bytes = 4 * model.head_width * heads * model.num_layers
    return Load(
        weights,
        weights * BYTES[model.weights] + vocabulary_bytes,
        row.concurrency * _context(row) * token_bytes,
    )


def fits_in_memory(row: Row) -> bool:
    """Return whether all requests fit into memory at once; else fewer ran than are stated."""
    load = load_of(row)
    memory = row.tensor_parallel * row.roofline.device.memory_gib * 2**30
    return load.weight_bytes + load.cache_bytes <= _MEMORY_SHARE * memory


def least_tpot_ms(row: Row) -> float:
    """Return the TPOT [ms] of the same iterations if the data sheet's rates were reached.

    A row below it holds prompts that were not computed: hits in a prefix cache, for example.
    """
    load, sheet = load_of(row), row.roofline.device.sheet
    rate = sheet.rate(row.roofline.model.weights) * 1e9 * row.tensor_parallel
    reading = load.weight_bytes + load.cache_bytes
    reading_ms = reading / (sheet.memory_gb_s * 1e6 * row.tensor_parallel)
    prompt_ms = 2.0 * load.weights * row.prompt / rate
    share = _mixed_share(row)
    return (1.0 - share) * reading_ms + share * max(reading_ms, prompt_ms)


def _context(row: Row) -> float:
    return row.prompt + row.output / 2


def _mixed_share(row: Row) -> float:
    """Return the share of a request's iterations in which the prompt of another is processed.

    In steady state a request sees every other one end once, and that one's successor begin.
    """
    return min(row.concurrency - 1, row.output) / row.output


def steady_tpot_ms(row: Row, roofline: RooflineModel) -> float:
    """Return the mean time of an iteration in the middle of a request."""
    decoding = roofline.iteration_time_s(row.concurrency, _context(row), [])
    mixed = roofline.iteration_time_s(row.concurrency, _context(row), [(0, row.prompt)])
    share = _mixed_share(row)
    return 1e3 * ((1.0 - share) * decoding + share * mixed)


def predict(rows: Sequence[Row], host: HostTimes) -> Floats:
    """Return the TPOT [ms] of each row on servers with such host times.

    CUDA graphs cover as many requests as the busiest of the rows has.
    """
    cap = max(row.concurrency for row in rows)

    @cache
    def changed(shipped: RooflineModel) -> RooflineModel:
        device = Device.model_validate(shipped.device.model_dump() | vars(host))
        return replace(shipped, device=device, max_batch_size=cap)

    return np.array([steady_tpot_ms(row, changed(row.roofline)) for row in rows])


def halves(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Return which half each row belongs to: configurations alternate along each of their sizes."""
    sizes = np.array([row.configuration for row in rows])
    ranks = [np.unique(column, return_inverse=True)[1] for column in sizes.T]
    second: NDArray[np.bool_] = np.sum(ranks, axis=0) % 2 == 1
    return second


def fit_host_times(rows: Sequence[Row]) -> HostTimes:
    """Return the host times with the least mean of |relative error|; of equals the shortest."""
    measured = np.array([row.tpot_ms for row in rows])

    def loss(overhead_ms: float, launch_ms: float) -> float:
        predicted = predict(rows, HostTimes(overhead_ms, launch_ms))
        return float(np.mean(np.abs(predicted / measured - 1.0)))

    found = []
    for launch_ms in _LAUNCHES_MS:
        best = minimize_scalar(
            loss,
            bounds=(0.0, _MOST_OVERHEAD_MS),
            args=(launch_ms,),
            method="bounded",
            options={"xatol": 0.02},
        )
        found.append((round(float(best.fun), 4), HostTimes(float(best.x), launch_ms)))
    return min(found, key=lambda one: (one[0], one[1].eager_iteration_ms))[1]


def held_out(rows: Sequence[Row]) -> tuple[Floats, tuple[HostTimes, HostTimes]]:
    """Return the TPOT [ms] of each row with the host times of the other half, and those of both."""
    second = halves(rows)
    predicted = np.empty(len(rows))
    hosts = []
    for judged in (second, ~second):
        host = fit_host_times(list(itertools.compress(rows, ~judged)))
        predicted[judged] = predict(list(itertools.compress(rows, judged)), host)
        hosts.append(host)
    return predicted, (hosts[0], hosts[1])
