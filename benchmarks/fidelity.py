"""How far simulated times are from those of real servers that nothing was fitted to.

TPOT: end-to-end measurements of AIConfigurator (``steady_state.py``), held out by configuration.
TTFT and E2E: real runs of vLLM request by request (``real_runs.py``), with ``--runs``; nothing is
fitted to them. All errors are medians of |predicted / measured - 1| in percent, a bias is the
median of predicted / measured - 1. ``--plots`` draws what was compared.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from aiconfigurator import SYSTEMS, add_wheel_option, wheel_at_hand
from fidelity_plots import draw_runs, draw_tpot
from harness import Figures, run_benchmark_with_options
from real_runs import read_run, reason_to_leave_out, simulated
from steady_state import (
    HostTimes,
    Row,
    fits_in_memory,
    held_out,
    least_tpot_ms,
    predict,
    read_rows,
)

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats

_JUDGED = "llama_3_1_8b_bf16_h100_trtllm"
"""The server that the keys ``tpot_median_error_tp1`` to ``_tp8`` speak of."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--wheel``, ``--runs`` and ``--plots``."""
    add_wheel_option(parser)
    parser.add_argument(
        "--runs", type=Path, metavar="FOLDER", help="a folder of LLMServingSim's real runs"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw PNG files into FOLDER")


def measure(arguments: argparse.Namespace) -> Figures:
    """Return the errors."""
    if arguments.quick:
        rows = made_up_rows()
    else:
        with tempfile.TemporaryDirectory() as folder:
            wheel = wheel_at_hand(arguments.wheel, Path(folder))
            with zipfile.ZipFile(wheel) as archive:
                text = archive.read(f"{SYSTEMS}/silicon_sample.csv").decode("utf-8")
        rows = read_rows(text.splitlines())
    figures = _tpot_figures(rows, arguments.plots)
    if arguments.runs is not None:
        figures.update(run_figures(arguments.runs, arguments.plots))
    else:
        print("ttft_median_error, e2e_median_error: left out, --runs names no real runs")
    return figures


def made_up_rows() -> list[Row]:
    """Return rows that the predictor itself made, with host times that are to be found again."""
    sizes = itertools.product((1024, 2048), (128, 256), (8, 64), (8,))
    rows = [Row(_JUDGED, "meta-llama/Llama-3.1-8B", "h100", *size, 1.0) for size in sizes]
    tpot_ms = predict(rows, HostTimes(0.5, 20.0))
    return [replace(row, tpot_ms=float(ms)) for row, ms in zip(rows, tpot_ms, strict=True)]


def _tpot_figures(rows: list[Row], plots: Path | None) -> Figures:
    """Return the errors of TPOT, of each server and, of the judged one, of each TP."""
    by_degree: Figures = {}
    by_server: Figures = {}
    compared: dict[str, tuple[list[Row], Floats]] = {}
    all_errors = []
    for server, all_rows in _grouped(rows).items():
        judged = [row for row in all_rows if fits_in_memory(row)]
        predicted, hosts = held_out(judged)
        compared[server] = judged, predicted
        errors = _errors(predicted, np.array([row.tpot_ms for row in judged]))
        all_errors.append(errors)
        by_server.update(_summary("tpot", server, errors))
        by_server[f"rows_{server}"] = len(judged)
        by_server[f"rows_beyond_memory_{server}"] = len(all_rows) - len(judged)
        by_server[f"rows_below_data_sheet_{server}"] = sum(
            row.tpot_ms < least_tpot_ms(row) for row in judged
        )
        for key in vars(hosts[0]):
            by_server[f"{key}_{server}"] = float(np.mean([vars(host)[key] for host in hosts]))
        if server == _JUDGED:
            degrees = np.array([row.tensor_parallel for row in judged])
            for degree in np.unique(degrees):
                by_degree.update(_summary("tpot", f"tp{degree}", errors[degrees == degree]))
    if plots is not None:
        draw_tpot(compared.pop(_JUDGED), list(compared.values()), plots / "fidelity_tpot.png")
    everything = _summary("tpot", "all_servers", np.concatenate(all_errors))
    return by_degree | everything | by_server


def _grouped(rows: list[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.server, []).append(row)
    return grouped


def run_figures(folder: Path, plots: Path | None) -> Figures:
    """Return the errors of TTFT and E2E, over all requests of runs that share no experts, and of
    each run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name one that holds a folder per run")
    overall: dict[str, list[Floats]] = {"ttft": [], "e2e": []}
    of_runs: Figures = {}
    compared = {}
    for path in sorted(folder.glob("*/meta.json")):
        reason = reason_to_leave_out(path.parent)
        if reason is not None:
            print(f"{path.parent.name}: left out, {reason}")
            continue
        run = read_run(path.parent)
        times = dict(zip(overall, simulated(run), strict=True))
        compared[run.name] = run, times
        for key, real in (("ttft", run.measured.ttft_s), ("e2e", run.measured.e2e_s)):
            errors = _errors(times[key], real)
            of_runs.update(_summary(key, run.name, errors))
            if not run.shares_experts:
                overall[key].append(errors)
    if not compared:
        raise UserError(f"{folder}: holds no run that can be simulated")
    if plots is not None:
        draw_runs(compared, plots / "fidelity_runs.png")
    figures = {
        f"{key}_median_error": float(np.median(np.abs(np.concatenate(errors))))
        for key, errors in overall.items()
        if errors
    }
    return figures | of_runs


def _errors(predicted: Floats, measured: Floats) -> Floats:
    return 100.0 * (predicted / measured - 1.0)


def _summary(what: str, name: str, errors: Floats) -> Figures:
    return {
        f"{what}_median_error_{name}": float(np.median(np.abs(errors))),
        f"{what}_bias_{name}": float(np.median(errors)),
    }


if __name__ == "__main__":
    run_benchmark_with_options("Errors against real servers", add_options, measure)
