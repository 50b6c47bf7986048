"""Our engine beside NVIDIA's offline replay: one trace, equal clusters, what is found in caches.

``python benchmarks/dynamo_crosscheck.py --trace FILE --packages FOLDER`` replays a Mooncake trace
with hash ids in both, once under round robin and once under Dynamo's KV router, with caches that
hold everything, much and little. ``INSTALL`` fills the folder; nothing of it is imported here: the
replay runs in a process of its own.

``ours`` has the times of Dynamo's mocker, so that it differs in its rules alone; ``h100`` has our
own of an H100. ``books`` is ours with Dynamo's own count of blocks and tokens, ``slowed`` is theirs
with every time multiplied by 1.5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dynamo_books import routed_by_books
from harness import Figures, run_benchmark_with_options
from rich.table import Table

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.engine.execution import TOKENS_PER_CHUNK
from vidur_ext.engine.layout import Cluster
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.traces import mooncake

INSTALL = (
    "python -m pip install --no-deps --target FOLDER ai-dynamo==1.6.1 ai-dynamo-runtime==1.6.1 "
    "msgspec uvloop"
)

CACHES = {"all": 524_288, "large": 65_536, "medium": 16_384, "small": 4096}
"""Blocks of each worker. The first holds all that the 3,993 requests of Mooncake's synthetic trace
say."""

WORKERS = 4
BLOCK_TOKENS = 64
MOST_RUNNING = 256
STEP_TOKENS = 8192
"""The mocker's own settings."""

ROUTERS = {"round_robin": "round_robin", "dynamo_kv": "kv_router"}
"""Our name of each router, and theirs."""

_RUNS = 10
"""Both KV routers draw among equals, theirs without a seed."""
_SLOWED = 1.5


class Outcome(NamedTuple):
    """What is compared of a run."""

    found_share: float
    """Of the prompts' tokens."""
    ttft_s: float
    e2e_s: float


def their_times(cluster: Cluster, blocks: int) -> Cluster:
    """Return a cluster whose batches last as long as those of Dynamo's mocker.

    A batch takes milliseconds for its new tokens of prompts and for the share of the KV cache that
    its decoding requests read (aisimulate@2262f3f2, ``engine/common/perf_model.rs``). Ours are
    rounded as Vidur does, and add up the prompts of a batch, where theirs are one of their length.
    """
    tables = cluster.tables
    requests, contexts = (np.arange(size) for size in tables.decode.shape[1:])
    read = np.outer(requests, contexts * tables.kv_step) / (blocks * cluster.settings.block_size)
    read = np.minimum(read, 1.0)
    decode = np.maximum(-25.74 * read**2 + 54.01 * read + 5.74, 1.0)
    tokens = np.arange(tables.prefill.shape[2]) * float(TOKENS_PER_CHUNK)
    prefill = 4.209989e-07 * tokens**2 + 1.518344e-02 * tokens + 1.650142e01

    def of_a_layer(whole: Floats, shape: tuple[int, ...]) -> Floats:
        return np.broadcast_to(whole / tables.num_layers, shape).copy()

    return cluster._replace(
        tables=tables._replace(
            per_tokens=np.zeros_like(tables.per_tokens),
            decode=of_a_layer(decode, tables.decode.shape),
            prefill=of_a_layer(prefill, tables.prefill.shape),
            request_s=np.zeros_like(tables.request_s),
        )
    )


def settings(blocks: int, table: RequestTable) -> TrainingConfig:
    """Return our config of the cluster."""
    return TrainingConfig.model_validate(
        {
            "cluster": {
                "device": "h100",
                "network_device": "h100_dgx",
                "num_replicas": WORKERS,
                "replica_scheduler": "vllm_v1",
                "num_blocks": blocks,
                "block_size": BLOCK_TOKENS,
                "batch_size_cap": MOST_RUNNING,
                "chunk_size": STEP_TOKENS,
                "watermark_blocks_fraction": 0.0,
            },
            "observation": {"prefix_knowledge": "exact"},
            "workload": {"max_tokens": int((table.prefill_tokens + table.decode_tokens).max())},
        }
    )


def simulated(cluster: Cluster, table: RequestTable, router: str, runs: int) -> list[Outcome]:
    """Return what becomes of the requests on our engine."""
    outcomes = []
    for seed in range(runs):
        simulation = CompiledSimulation(cluster, table, router, seed=seed)
        simulation.run()
        outcomes.append(_outcome(simulation, table, slice(None)))
    return outcomes


def _outcome(
    served: CompiledSimulation | RoutingEnvironments, table: RequestTable, row: int | slice
) -> Outcome:
    arrived = served.arrived_at[row]
    return Outcome(
        float(served.found_tokens[row].sum() / table.prefill_tokens.sum()),
        float((served.prefill_completed_at[row] - arrived).mean()),
        float((served.completed_at[row] - arrived).mean()),
    )


def replayed(asked: Iterable[Mapping[str, Any]], packages: Path | None) -> list[Outcome]:
    """Return what becomes of the requests in NVIDIA's replays; see ``dynamo_replay.Asked``.

    Raises:
        UserError: the packages are not there, or do not run.
    """
    code = (
        "import json, sys; from dynamo_replay import Asked, replay; "
        "print(json.dumps([replay(Asked(**one)) for one in json.load(sys.stdin)]))"
    )
    folders = [packages, Path(__file__).parent, os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(str(folder) for folder in folders if folder)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(list(asked)),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "DYN_LOG": "error"},
        check=False,
    )
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise UserError(
            f"NVIDIA's replay does not run ({reason}): {INSTALL}, and name it with "
            "--packages FOLDER"
        )
    return [Outcome(*one) for one in json.loads(ended.stdout)]


def write_made_up_trace(path: Path, requests: int) -> None:
    """Write a trace of conversations that go on with one of a few documents."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(requests):
        document, blocks = int(rng.integers(40)), int(rng.integers(1, 8))
        ids = [100 * document + block for block in range(blocks)] + [10_000 + number]
        tokens = mooncake.BLOCK_TOKENS * blocks + int(rng.integers(1, mooncake.BLOCK_TOKENS))
        record = {
            "timestamp": 100 * number,
            "input_length": tokens,
            "output_length": int(rng.integers(1, 60)),
            "hash_ids": ids,
        }
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_trace(path: Path) -> RequestTable:
    """Return the requests of a trace.

    Raises:
        UserError: it cannot be read, or does not say which prompts share a prefix.
    """
    table = mooncake.read(path).table
    if table.prompts is None:
        raise UserError(f"{path}: has no hash_ids, so nothing is found twice; take one that has")
    return table


def compare(trace: Path, packages: Path | None, caches: Mapping[str, int], runs: int) -> Figures:
    """Return shares found [%], differences [points], TTFT and E2E [ms] by cache and router."""
    table = read_trace(trace)
    figures: Figures = {"requests": len(table)}
    for cache, blocks in caches.items():
        config = settings(blocks, table)
        own = engine_cluster(config)
        same = their_times(own, blocks)
        for router, their_name in ROUTERS.items():
            drawn = 1 if router == "round_robin" else runs
            asked = {
                "trace": str(trace),
                "router": their_name,
                "workers": WORKERS,
                "blocks": blocks,
                "block_tokens": BLOCK_TOKENS,
                "trace_block_tokens": mooncake.BLOCK_TOKENS,
                "most_running": MOST_RUNNING,
                "step_tokens": STEP_TOKENS,
                "speed": 1.0,
            }
            slow = {**asked, "speed": 1.0 / _SLOWED}
            theirs = replayed([asked] * drawn + [slow] * drawn, packages)
            found = {
                "theirs": theirs[:drawn],
                "ours": simulated(same, table, router, drawn),
                "h100": simulated(own, table, router, drawn),
                "slowed": theirs[drawn:],
            }
            if router == "dynamo_kv":
                found["books"] = [
                    _outcome(routed_by_books(config, same, table, seed), table, 0)
                    for seed in range(drawn)
                ]
            figures |= {f"{cache}_{router}_{key}": value for key, value in _figures(found).items()}
    for side in ("ours", "h100"):
        points = [abs(n) for key, n in figures.items() if key.endswith(f"_points_{side}")]
        figures[f"most_points_{side}"] = max(points)
    return figures


def _figures(found: Mapping[str, list[Outcome]]) -> Figures:
    figures = {}
    for side, outcomes in found.items():
        shares = [100.0 * outcome.found_share for outcome in outcomes]
        figures[f"hit_{side}"] = float(np.mean(shares))
        figures[f"hit_spread_{side}"] = max(shares) - min(shares)
        figures[f"ttft_ms_{side}"] = 1e3 * float(np.mean([one.ttft_s for one in outcomes]))
        figures[f"e2e_ms_{side}"] = 1e3 * float(np.mean([one.e2e_s for one in outcomes]))
    for side in found.keys() - {"theirs"}:
        figures[f"points_{side}"] = figures[f"hit_{side}"] - figures["hit_theirs"]
    return figures


def measure(arguments: argparse.Namespace) -> Figures:
    """Compare on the trace, or on a small one that is made up."""
    if arguments.trace is not None:
        runs = 1 if arguments.quick else _RUNS
        return compare(arguments.trace, arguments.packages, CACHES, runs)
    if not arguments.quick:
        raise UserError("no trace: name one of Mooncake's that has hash_ids with --trace FILE")
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "made_up.jsonl"
        write_made_up_trace(trace, 600)
        return compare(trace, arguments.packages, {"small": 512}, 1)


def _shown(description: str, figures: Mapping[str, float]) -> Table:
    sides = ("theirs", "ours", "books", "h100", "slowed")
    table = Table("cache", "router", "figure", *sides, title=description)
    for cache in CACHES:
        for router in ROUTERS:
            for figure in ("hit", "hit_spread", "ttft_ms", "e2e_ms"):
                keys = [f"{cache}_{router}_{figure}_{side}" for side in sides]
                cells = [f"{figures[key]:.5g}" if key in figures else "" for key in keys]
                if any(cells):
                    table.add_row(cache, router, figure, *cells)
    return table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--trace`` and ``--packages``."""
    parser.add_argument("--trace", type=Path, metavar="FILE", help="Mooncake's, with hash_ids")
    parser.add_argument(
        "--packages", type=Path, metavar="FOLDER", help=f"what this has filled: {INSTALL}"
    )


if __name__ == "__main__":
    run_benchmark_with_options("Our engine and NVIDIA's replay", add_options, measure, _shown)
