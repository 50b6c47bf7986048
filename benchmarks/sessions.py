"""How close the presets of sessions come to the traffic they are made after."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np
from harness import Figures, run_benchmark_with_options
from numpy.typing import NDArray
from rich.table import Table

from ppo_scheduler.seeding import Purpose
from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.prefix_hits import hit_tokens
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.session_stream import SessionStream
from vidur_ext.workload.sessions import Sessions

_STEPS_PER_USER_REQUEST = 8.8

ASKED: dict[str, Figures] = {
    # Mooncake's conversation trace: 12,031 requests of one hour.
    "chat": {
        "requests_per_s": 3.4,
        "gap_cv_on_a_clock_of_3_s": 3.0,
        "input_mean": 12_035, "input_p50": 6909, "input_p90": 27_367, "input_p99": 85_000,
        "output_mean": 343, "output_p50": 350, "output_p90": 597,
        "continued_share": 0.387,
        "turns_mean": 1.64, "turns_p90": 3, "turns_p99": 8, "turns_max": 43,
        "gap_s_p10": 42, "gap_s_p25": 66, "gap_s_p50": 123, "gap_s_p75": 264, "gap_s_p90": 483,
        "gap_s_p99": 1482,
        "growth_p50": 454, "growth_p90": 4622,
        "hit_rate": 0.374, "hit_rate_of_16_M": 0.336, "hit_rate_of_4_M": 0.178,
        "hit_rate_of_1_M": 0.054,
    },
    # Qwen Bailian's business traffic, arXiv:2506.02634.
    "api_templates": {
        "hit_rate": 0.54,
        "hits_of_single_turns": 0.97,
        "reuse_by_a_tenth_of_the_blocks": 0.77,
        "reuse_within_10_s": 0.8,
    },
    # TraceLab's coding agents, arXiv:2606.30560.
    "agent": {
        "prefix_p25": 65_000, "prefix_p50": 120_000, "prefix_p90": 245_000,
        "appended_p25": 185, "appended_p50": 530, "appended_p90": 6000,
        "output_p50": 205, "output_p90": 1000, "output_p99": 4500,
        "tools_s_p25": 0.058, "tools_s_p50": 0.285, "think_s_p50": 84.0, "think_s_p90": 1236.0,
        "hit_rate": 0.957,
    },
}  # fmt: skip
"""What the sources say, by preset."""

RATES = {"chat": 3.4, "api_templates": 6.0, "agent": 1.0}
"""Requests/s. Only that of chat is known; it decides what a cache of some size holds."""

REQUESTS = {"chat": 60_000, "api_templates": 20_000, "agent": 30_000}
"""Enough for sessions that the first and the last request cut not to count."""

_MAX_TOKENS = {"chat": 131_072, "api_templates": 131_072, "agent": 2**20}
_TRACE_BLOCK = 512
"""Tokens that an id of Mooncake's trace stands for; of agents, whose prompts are long, as well."""
_SERVER_BLOCK = 16


def reached(preset: str, requests: int, seed: int = 0) -> Figures:
    """Return the statistics of a preset's requests under the keys of ``ASKED``."""
    rate, most = RATES[preset], _MAX_TOKENS[preset]
    stream = SessionStream(preset, seed, Purpose.WORKLOAD, rate, "poisson", 1.0, most)
    return _STATISTICS[preset](stream.window(0, requests))


def _chat(table: RequestTable) -> Figures:
    sessions, prompt = _sessions(table), table.prefill_tokens
    waits = sessions.waits
    previous = sessions.previous[waits]
    turns = np.unique(sessions.session, return_counts=True)[1]
    clock = np.diff(np.floor(table.arrived_at / 3.0) * 3.0)
    sizes = {"_of_16_M": 16_000_000, "_of_4_M": 4_000_000, "_of_1_M": 1_000_000}
    return {
        "requests_per_s": len(table) / float(table.arrived_at[-1]),
        "gap_cv_on_a_clock_of_3_s": float(clock.std() / clock.mean()),
        "input_mean": float(prompt.mean()),
        **_quantiles("input", prompt, 50, 90, 99),
        "output_mean": float(table.decode_tokens.mean()),
        **_quantiles("output", table.decode_tokens, 50, 90),
        "continued_share": float((sessions.turn > 0).mean()),
        "turns_mean": float(turns.mean()),
        **_quantiles("turns", turns, 90, 99),
        "turns_max": float(turns.max()),
        **_quantiles(
            "gap_s",
            table.arrived_at[waits] - table.arrived_at[previous],
            *(10, 25, 50, 75, 90, 99),
        ),
        **_quantiles("growth", prompt[waits] - prompt[previous], 50, 90),
        "hit_rate": _hit_rate(table, answers=False),
        **{
            f"hit_rate{name}": _hit_rate(table, capacity, answers=False)
            for name, capacity in sizes.items()
        },
    }


def _api_templates(table: RequestTable) -> Figures:
    prompts = _prompts(table)
    blocks = block_runs(prompts, np.zeros(len(table), dtype=np.int64), _SERVER_BLOCK)
    number = blocks.of_all()
    reuses = np.sort(np.bincount(number) - 1)[::-1]
    used_at = np.repeat(table.arrived_at, blocks.counts)
    by_block = np.argsort(number, kind="stable")  # in the order of time, as before
    again = np.diff(number[by_block]) == 0
    after_s = np.diff(used_at[by_block])[again]
    hits = hit_tokens(table, _SERVER_BLOCK, answers=False)
    single = np.ones(len(table)) if table.sessions is None else table.sessions.turn == 0
    return {
        "hit_rate": float(hits.sum() / table.prefill_tokens.sum()),
        "hits_of_single_turns": float((hits * single).sum() / hits.sum()),
        "reuse_by_a_tenth_of_the_blocks": float(reuses[: len(reuses) // 10].sum() / reuses.sum()),
        "reuse_within_10_s": float((after_s <= 10.0).mean()),
    }


def _agent(table: RequestTable) -> Figures:
    sessions, prompts = _sessions(table), _prompts(table)
    continued = sessions.turn > 0
    appended = prompts.tokens[prompts.first[1:] - 1][continued]
    # A wait is a tool's or a user's. Which one, a table does not tell; but half of the tools' are
    # shorter than nearly all of the users', and half of the users' longer than all of the tools'.
    requests_of_users = len(table) / _STEPS_PER_USER_REQUEST
    waits = len(table) - len(np.unique(sessions.session))
    tools = (len(table) - requests_of_users) / waits
    wait_s = sessions.think_s[sessions.waits]
    return {
        **_quantiles("prefix", table.prefill_tokens[continued] - appended, 25, 50, 90),
        **_quantiles("appended", appended, 25, 50, 90),
        **_quantiles("output", table.decode_tokens, 50, 90, 99),
        **{f"tools_s_p{q}": float(np.quantile(wait_s, q / 100 * tools)) for q in (25, 50)},
        **{
            f"think_s_p{q}": float(np.quantile(wait_s, tools + q / 100 * (1.0 - tools)))
            for q in (50, 90)
        },
        "hit_rate": _hit_rate(table, answers=True),
    }


_STATISTICS: dict[str, Callable[[RequestTable], Figures]] = {
    "chat": _chat,
    "api_templates": _api_templates,
    "agent": _agent,
}


def _quantiles(name: str, values: NDArray[np.generic], *percent: int) -> Figures:
    found = np.quantile(values.astype(np.float64), np.array(percent) / 100)
    return {f"{name}_p{q}": float(value) for q, value in zip(percent, found, strict=True)}


def _hit_rate(table: RequestTable, capacity: int | None = None, *, answers: bool) -> float:
    hits = hit_tokens(table, _TRACE_BLOCK, capacity, answers=answers)
    return float(hits.sum() / table.prefill_tokens.sum())


def _sessions(table: RequestTable) -> Sessions:
    assert table.sessions is not None
    return table.sessions


def _prompts(table: RequestTable) -> Prompts:
    assert table.prompts is not None
    return table.prompts


def measure(arguments: argparse.Namespace) -> Figures:
    """Return asked, reached and relative error of every statistic of every preset."""
    figures: Figures = {}
    for preset, asked in ASKED.items():
        requests = REQUESTS[preset] // (6 if arguments.quick else 1)
        found = reached(preset, requests, arguments.seed)
        for name, value in asked.items():
            figures[f"{preset}_{name}_asked"] = value
            figures[f"{preset}_{name}_reached"] = found[name]
            figures[f"{preset}_{name}_error"] = found[name] / value - 1.0
    return figures


def _shown(description: str, figures: Mapping[str, float]) -> Table:
    table = Table("figure", "asked", "reached", "error", title=description)
    for name in (key.removesuffix("_asked") for key in figures if key.endswith("_asked")):
        asked, found, error = (figures[f"{name}_{part}"] for part in ("asked", "reached", "error"))
        table.add_row(name, f"{asked:,.5g}", f"{found:,.5g}", f"{error:+.1%}")
    return table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--seed``."""
    parser.add_argument("--seed", type=int, default=0, help="of the streams (default: 0)")


if __name__ == "__main__":
    run_benchmark_with_options("presets of sessions", add_options, measure, _shown)
