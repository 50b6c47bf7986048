"""One page that holds everything: tables, plots, facts; it needs no network and no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.load_sweep import LoadSweep
from vidur_ext.evaluation.metrics import LATENCIES
from vidur_ext.evaluation.report import tables, wording
from vidur_ext.evaluation.report.head import Head
from vidur_ext.evaluation.report.plots.drawing import ANSWER, FEATURES, LOADS, PROMPTS, TIMELINES
from vidur_ext.evaluation.report.tables import Columns

_CAPTIONS = {
    ANSWER: "The policy against each scheduler on the same requests, with 95 % intervals. "
    "An interval that does not touch 0 is certain; within the grey band, a change is slight.",
    "learning.png": "The validated policies of the training, on workloads that are not the "
    "held-out ones, and what they are to beat there: the heuristic with the best objective, and "
    "look-ahead, which plans. The star is the policy that was kept.",
    "tradeoff.png": "All workloads together; the dashed line joins those, of the schedulers that "
    "could be at work, that no other one beats in both.",
    "e2e.png": "End-to-end latency with 95 % intervals.",
    "ttft.png": "Time to first token with 95 % intervals.",
    "slo_attainment.png": "Requests within both objectives with 95 % intervals.",
    "latency_cdf.png": "Distributions over the counted requests; controls may leave the picture.",
    PROMPTS: "Short to long prompts, over the counted requests; without intervals: "
    "a hint of where a gain comes from.",
    TIMELINES: "The first held-out workload, all its requests: dark is empty, bright is full. An "
    "even column is a balanced moment, a bright line a replica that got too much.",
    FEATURES: "Each family of features in turn was taken from another moment, the others left as "
    "they were; look-ahead prices the choices. What several families tell, the policy misses in "
    "none of them: a short bar does not say that a feature is useless.",
    "replica_shares.png": "Requests per replica.",
    LOADS: "The held-out workloads at other rates, with 95 % intervals of paired differences. At "
    "every load the best heuristic is the one with the lowest mean E2E there.",
}


def page_template(package: str) -> Template:
    """Return the template ``page.html`` of a package."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,  # nothing that a user names can become markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")


def render_page(
    comparison: Comparison,
    plots: Mapping[str, bytes],
    facts: Mapping[str, str],
    engines: EngineComparison | None = None,
    head: Head | None = None,
    sweep: LoadSweep | None = None,
) -> str:
    """Return the page.

    Args:
        plots: PNG files by file name, as ``draw_plots`` returns them.
        facts: what the reader must know about the run: workload, cluster, config digest, versions.
        engines: runs that both engines made, if there are any.
        head: of the run that the page is about, if it is about one.
        sweep: the comparison at several loads, if it was made.
    """
    return page_template("vidur_ext.evaluation.report").render(
        head=head,
        headline=wording.headline(comparison),
        notes=_notes([*wording.notes(comparison), *wording.check_notes(comparison, engines)]),
        baseline=comparison.baseline,
        learned=None if comparison.under_test is None else comparison.under_test.name,
        latency=[
            _table(comparison, [tables.latency_columns(comparison, one)]) for one in LATENCIES
        ],
        best_title=wording.best_title(comparison),
        against_best=_optional(comparison, tables.best_heuristic_columns(comparison)),
        against_baseline=_table(comparison, [tables.baseline_columns(comparison)]),
        other_policies=_optional(comparison, tables.other_policy_columns(comparison)),
        learned_against_each=_optional(comparison, tables.learned_columns(comparison)),
        service=_table(
            comparison,
            [
                tables.service_columns(comparison),
                tables.load_columns(comparison),
                tables.speed_columns(comparison),
            ],
        ),
        reuse=_optional(comparison, tables.reuse_columns(comparison)),
        figures={
            name: {"caption": _CAPTIONS[name], "png": base64.b64encode(png).decode("ascii")}
            for name, png in plots.items()
        },
        answer=ANSWER,
        loads=LOADS,
        sweep=None if sweep is None else _load_table(sweep),
        sustained=None if sweep is None else wording.number(sweep.sustained),
        seeds=[_table(comparison, [one]) for one in tables.seed_columns(comparison)],
        engines=None if engines is None else _table(comparison, tables.engine_columns(engines)),
        facts={**({} if head is None else head.facts), **facts, **_workloads(comparison)},
    )


def _table(comparison: Comparison, groups: Sequence[Columns]) -> dict[str, Any]:
    return {
        "groups": groups,
        "labels": [f"{one.heading} {name}".strip() for one in groups for name in one.names],
        "headed": any(group.heading for group in groups),
        "rows": tables.rows(comparison, groups),
    }


def _load_table(sweep: LoadSweep) -> dict[str, Any]:
    names, rows = tables.load_table(sweep)
    return {"groups": [Columns(names, {})], "labels": names, "headed": False, "rows": rows}


def _optional(comparison: Comparison, columns: Columns | None) -> dict[str, Any] | None:
    return None if columns is None else _table(comparison, [columns])


def _notes(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"text": text, "warning": text.startswith(wording.WARNING)} for text in texts]


def _workloads(comparison: Comparison) -> dict[str, str]:
    return {
        f"Held-out workload {workload.seed}": f"{workload.requests} requests, "
        f"{workload.counted_requests} counted, digest {workload.digest}"
        for workload in comparison.workloads
    }
