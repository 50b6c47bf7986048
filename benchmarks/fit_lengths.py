"""The fit behind the conversation lengths.

``python benchmarks/fit_lengths.py --trace AzureLLMInferenceTrace_conv.csv`` prints the
tables that ``azure_2023.py`` holds, and how far draws from the committed tables are from the trace.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.exits import exit_status
from vidur_ext.workload.azure_2023 import PROBABILITIES
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.synthetic import draw_lengths
from vidur_ext.workload.trace_files import load_trace

Tokens = NDArray[np.int64]
_GRID = 16
_NO_LIMIT = 2**31 - 1


def quantiles(tokens: Tokens) -> Tokens:
    """Return the token counts [Q] at ``PROBABILITIES``."""
    found: Tokens = np.quantile(tokens, PROBABILITIES, method="inverted_cdf").astype(np.int64)
    return found


def joint_counts(prompt: Tokens, output: Tokens, grid: int = _GRID) -> Tokens:
    """Return how many requests fall into each pair of rank classes [grid, grid].

    Ties are broken by a fixed shuffle, so that a frequent length does not tilt the classes.
    """
    order = generator(0, Purpose.WORKLOAD).permutation(len(prompt))
    prompt_class, output_class = (_ranks(x[order]) * grid // len(x) for x in (prompt, output))
    counts = np.zeros((grid, grid), dtype=np.int64)
    np.add.at(counts, (prompt_class, output_class), 1)
    return counts


def _ranks(values: Tokens) -> Tokens:
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def ks_distance(first: Tokens, second: Tokens) -> float:
    """Return the Kolmogorov-Smirnov distance: the largest gap between two empirical CDFs."""
    points = np.union1d(first, second)
    cdfs = [np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (first, second)]
    return float(np.abs(cdfs[0] - cdfs[1]).max())


def total_variation(first: Tokens, second: Tokens) -> float:
    """Return the total variation distance between two tables of counts."""
    return float(np.abs(first / first.sum() - second / second.sum()).sum()) / 2.0


def fit_errors(trace: RequestTable, draws: int = 200_000) -> dict[str, float]:
    """Compare drawn conversation lengths with a trace's.

    Returns:
        KS distances per length and of their sum, relative errors of the means, the total variation
        distance of the joint rank classes, and what it would be were the lengths independent.
    """
    prompt, output = draw_lengths(generator(0, Purpose.WORKLOAD), draws, code_fraction=0.0)
    joint = joint_counts(trace.prefill_tokens, trace.decode_tokens)
    return {
        "prompt_ks": ks_distance(prompt, trace.prefill_tokens),
        "output_ks": ks_distance(output, trace.decode_tokens),
        "total_ks": ks_distance(prompt + output, trace.prefill_tokens + trace.decode_tokens),
        "prompt_mean_error": float(prompt.mean() / trace.prefill_tokens.mean()) - 1.0,
        "output_mean_error": float(output.mean() / trace.decode_tokens.mean()) - 1.0,
        "joint_total_variation": total_variation(joint_counts(prompt, output), joint),
        "independent_total_variation": total_variation(np.ones_like(joint), joint),
    }


def _drawn() -> RequestTable:
    prompt, output = draw_lengths(generator(1, Purpose.WORKLOAD), 20_000, code_fraction=0.0)
    return RequestTable(np.arange(len(prompt), dtype=np.float64), prompt, output)


def run(arguments: list[str]) -> None:
    """Print tables and errors."""
    parser = argparse.ArgumentParser(prog="fit_lengths.py")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, help="AzureLLMInferenceTrace_conv.csv")
    source.add_argument(
        "--quick", action="store_true", help="fit what the present tables draw: it needs no file"
    )
    options = parser.parse_args(arguments)
    trace = _drawn() if options.quick else load_trace(options.trace, "auto", _NO_LIMIT).table
    print("CONVERSATION_PROMPT =", quantiles(trace.prefill_tokens).tolist())
    print("CONVERSATION_OUTPUT =", quantiles(trace.decode_tokens).tolist())
    print("CONVERSATION_JOINT =", joint_counts(trace.prefill_tokens, trace.decode_tokens).tolist())
    for name, value in fit_errors(trace).items():
        print(f"{name}: {value:.4f}")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: run(sys.argv[1:])))
