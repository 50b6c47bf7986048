"""What the report's tables hold: columns and cells as text, the same for terminal and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidur_ext.evaluation.comparison import Comparison, Differences, SchedulerComparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.load_sweep import AtLoad, LoadSweep
from vidur_ext.evaluation.metrics import SLO_METRIC, STATISTICS, Latency
from vidur_ext.evaluation.report import wording
from vidur_ext.evaluation.reuse import TURNS
from vidur_ext.evaluation.statistics import PairedDifference

COMPARED = {
    "e2e_mean_s": "E2E mean",
    "e2e_p99_s": "E2E p99",
    "ttft_mean_s": "TTFT mean",
    "ttft_p99_s": "TTFT p99",
    "tbt_mean_s": "TBT mean",
    "tbt_p99_s": "TBT p99",
    SLO_METRIC: "SLO met",
}
"""Metrics whose differences are shown, and the columns' names."""

_OF_A_RUN = {
    "e2e_mean_s": "E2E mean [s], workload",
    "e2e_p99_s": "E2E p99 [s], workload",
    "ttft_p99_s": "TTFT p99 [s], workload",
    SLO_METRIC: "SLO met, workload",
}
_OF_AN_ENGINE = {
    "e2e_mean_s": "E2E mean [s]",
    "ttft_p99_s": "TTFT p99 [s]",
    "decisions_per_second": "simulated requests/s",
}
_LATENCIES: dict[Latency, str] = {"e2e": "E2E [s]", "ttft": "TTFT [s]", "tbt": "TBT [ms]"}


@dataclass(frozen=True)
class Cell:
    """A figure; below it its 95 % interval, and of a difference the verdict, or ""."""

    text: str
    interval: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Columns:
    """Columns that belong together, and each scheduler's cells in them.

    Attributes:
        names: of the columns.
        cells: as many as names, per scheduler.
        heading: above the names; "" for none.
    """

    names: tuple[str, ...]
    cells: Mapping[str, Sequence[Cell]]
    heading: str = ""


@dataclass(frozen=True)
class TableRow:
    """One scheduler, named with its marks; ``learned`` if it is the policy under test."""

    name: str
    learned: bool
    cells: tuple[Cell, ...]


def rows(comparison: Comparison, groups: Sequence[Columns]) -> list[TableRow]:
    """Return a row per scheduler, best first: dashes where a group does not know it.

    A scheduler that no group knows has no row.
    """
    return [
        TableRow(
            one.marked_name,
            one.learned,
            tuple(cell for group in groups for cell in _cells(group, one.name)),
        )
        for one in comparison.schedulers
        if any(one.name in group.cells for group in groups)
    ]


def _cells(group: Columns, scheduler: str) -> Sequence[Cell]:
    return group.cells.get(scheduler) or [Cell(wording.NOTHING)] * len(group.names)


def latency_columns(comparison: Comparison, latency: Latency) -> Columns:
    """Return mean and percentiles of one latency."""
    metrics = [f"{latency}_{statistic}_s" for statistic in STATISTICS]
    cells = {
        one.name: [_pooled(one, metric) for metric in metrics] for one in comparison.schedulers
    }
    return Columns(STATISTICS, cells, _LATENCIES[latency])


def service_columns(comparison: Comparison) -> Columns:
    """Return SLO attainment, throughput and how the requests were spread."""
    names = ("SLO met", "req/s", "out tok/s", "imbalance", "share of each replica")
    cells = {
        one.name: [
            _pooled(one, SLO_METRIC),
            Cell(wording.number(one.pooled.requests_per_s)),
            Cell(wording.number(one.pooled.output_tokens_per_s)),
            Cell(wording.number(one.pooled.imbalance)),
            Cell(wording.shares(one.pooled.replica_shares, comparison.devices)),
        ]
        for one in comparison.schedulers
    }
    return Columns(names, cells)


def reuse_columns(comparison: Comparison) -> Columns | None:
    """Return what was found of prefixes, and how sessions fared; None where nothing is shared."""
    shown = [one.pooled.reuse for one in comparison.schedulers]
    if not any(reuse.found_tokens or reuse.recomputed_tokens for reuse in shown):
        return None
    names = ("found", "recomputed", "preemptions", *(f"TTFT [s], {turn}" for turn in TURNS))
    cells = {
        one.name: [
            Cell(wording.percent(reuse.hit_rate)),
            Cell(wording.percent(reuse.recomputed_tokens / reuse.prompt_tokens)),
            Cell(wording.number(reuse.preemptions)),
            *(Cell(wording.in_unit("ttft_mean_s", ttft_s)) for ttft_s in reuse.ttft_s),
            Cell(wording.NOTHING if reuse.fairness is None else wording.number(reuse.fairness)),
        ]
        for one, reuse in zip(comparison.schedulers, shown, strict=True)
    }
    return Columns((*names, "fairness"), cells)


def load_columns(comparison: Comparison) -> Columns:
    """Return how busy the replicas were, and how many requests they had."""
    cells = {
        one.name: [
            Cell(wording.percent(one.pooled.load.busy)),
            Cell(wording.number(one.pooled.load.in_service)),
            Cell(wording.number(one.pooled.load.waiting)),
        ]
        for one in comparison.schedulers
    }
    return Columns(("busy", "in service per replica", "waiting"), cells)


def speed_columns(comparison: Comparison) -> Columns:
    """Return how many requests were simulated per second of real time."""
    cells = {
        one.name: [Cell(wording.number(one.pooled.decisions_per_second))]
        for one in comparison.schedulers
    }
    return Columns(("simulated requests/s",), cells)


def baseline_columns(comparison: Comparison, metrics: Mapping[str, str] = COMPARED) -> Columns:
    """Return each other scheduler's paired differences to the baseline.

    Args:
        metrics: which, and the columns' names.
    """
    differences = {
        one.name: one.versus[comparison.baseline]
        for one in comparison.schedulers
        if one.name != comparison.baseline
    }
    return _difference_columns(differences, metrics)


def best_heuristic_columns(comparison: Comparison) -> Columns | None:
    """Return each policy and planner against the best heuristic; None if one side is missing."""
    best = comparison.best_heuristic
    contenders = [one for one in comparison.schedulers if one.policy or one.planner]
    if best is None or not contenders:
        return None
    cells = {one.name: _against_best(comparison, one, best) for one in contenders}
    return Columns(("E2E mean, ratio", "TTFT p99, ratio", "workloads won"), cells)


def _against_best(comparison: Comparison, one: SchedulerComparison, best: str) -> list[Cell]:
    mean, tail = one.versus[best]["e2e_mean_s"], one.versus[best]["ttft_p99_s"]
    return [
        Cell(
            wording.ratio(one.against_best.e2e),
            wording.ratio_interval(mean),
            wording.verdict(mean),
        ),
        Cell(wording.ratio(one.against_best.ttft_p99), wording.ratio_interval(tail)),
        Cell(f"{one.against_best.workloads_won} of {len(comparison.workloads)}"),
    ]


def learned_columns(comparison: Comparison) -> Columns | None:
    """Return the differences of the policy under test to each other scheduler; None without it."""
    learned = comparison.under_test
    return None if learned is None else _difference_columns(learned.versus, COMPARED)


def other_policy_columns(
    comparison: Comparison, metrics: Mapping[str, str] = COMPARED
) -> Columns | None:
    """Return the differences of each other policy to the one under test; None without others.

    Args:
        metrics: which, and the columns' names.
    """
    learned = comparison.under_test
    differences = {
        one.name: one.versus[learned.name]
        for one in comparison.schedulers
        if learned is not None and one.policy and not one.learned
    }
    return _difference_columns(differences, metrics) if differences else None


def seed_columns(comparison: Comparison) -> list[Columns]:
    """Return the main figures of every run, a group per figure, a column per held-out workload."""
    seeds = [workload.seed for workload in comparison.workloads]
    return [
        Columns(
            tuple(map(str, seeds)),
            {
                one.name: [Cell(wording.in_unit(metric, one.per_seed[s][metric])) for s in seeds]
                for one in comparison.schedulers
            },
            heading,
        )
        for metric, heading in _OF_A_RUN.items()
    ]


def load_table(sweep: LoadSweep) -> tuple[tuple[str, ...], list[TableRow]]:
    """Return the names of the columns, and a row per load and scheduler, best first at each."""
    names = (
        "load",
        "requests/s",
        "E2E mean [s]",
        "E2E vs best",
        "TTFT p99 [s]",
        "TTFT p99 vs best",
    )
    return names, [
        TableRow(one.marked_name, one.learned, _at_load(point, one))
        for point in sweep.points
        for one in point.comparison.schedulers
    ]


def _at_load(point: AtLoad, one: SchedulerComparison) -> tuple[Cell, ...]:
    best = point.comparison.best_heuristic
    versus = one.versus.get(best) if best is not None else None

    def against(metric: str) -> Cell:
        if one.name == best:
            return Cell("the best")
        return Cell(wording.NOTHING) if versus is None else _difference(metric, versus[metric])

    return (
        Cell(f"{100 * point.load:g} %"),
        Cell(wording.number(point.rate)),
        Cell(wording.in_unit("e2e_mean_s", one.pooled["e2e_mean_s"])),
        against("e2e_mean_s"),
        Cell(wording.in_unit("ttft_p99_s", one.pooled["ttft_p99_s"])),
        against("ttft_p99_s"),
    )


def engine_columns(engines: EngineComparison) -> list[Columns]:
    """Return every scheduler's figures on both engines, then how far the engines differ."""
    figures = [
        Columns(
            ("Vidur", "compiled"),
            {
                one.name: [
                    Cell(wording.number(getattr(side, figure)))
                    for side in (one.vidur, one.compiled)
                ]
                for one in engines.schedulers
            },
            heading,
        )
        for figure, heading in _OF_AN_ENGINE.items()
    ]
    differences = {
        one.name: [
            Cell(wording.relative_difference(one.completion_difference)),
            Cell(f"{one.routed_elsewhere} of {one.requests}"),
        ]
        for one in engines.schedulers
    }
    return [*figures, Columns(("largest difference", "routed elsewhere"), differences)]


def _pooled(one: SchedulerComparison, metric: str) -> Cell:
    return Cell(
        wording.in_unit(metric, one.pooled[metric]),
        wording.interval_in_unit(metric, one.intervals[metric]),
    )


def _difference_columns(
    differences: Mapping[str, Differences], metrics: Mapping[str, str]
) -> Columns:
    cells = {
        name: [_difference(metric, of_metric[metric]) for metric in metrics]
        for name, of_metric in differences.items()
    }
    return Columns(tuple(metrics.values()), cells)


def _difference(metric: str, difference: PairedDifference | None) -> Cell:
    if difference is None:
        return Cell(wording.NOTHING)
    return Cell(
        wording.change(metric, difference),
        wording.change_interval(metric, difference),
        wording.verdict(difference),
    )
