"""The tables and sentences that the Markdown and the HTML page share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from vidur_ext.evaluation.metrics import LEARNED, ORACLE_NOTE
from vidur_ext.suite.results import Ratios, ScenarioResult, SchedulerResult, SuiteResult
from vidur_ext.suite.tuning import TRIES, WORKLOADS

NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """Cells of one line; ``learned`` rows are emphasized."""

    cells: tuple[str, ...]
    learned: bool


@dataclass(frozen=True)
class Table:
    """Headers, how many of the first columns are text, and the rows."""

    headers: tuple[str, ...]
    text_columns: int
    rows: tuple[Row, ...]


_FIGURES = ("E2E, median", "worst", "p99 TTFT, median", "worst")


def introduction(result: SuiteResult) -> list[str]:
    """Return what has to be known before the tables are read."""
    return [
        f"Each scenario was trained with {_seeds(result.seeds)}, and each policy judged on the "
        "held-out workloads of its seed, the same for every scheduler. All figures are against the "
        "best heuristic: the one that has the lowest mean E2E on these workloads and could be at "
        "work, so no oracle, control or planner. Below 0 % and below x1 is better than it; no seed "
        "is left out.",
        *_about_tuning(result),
        "A training that rounds otherwise becomes another one, and other kinds of processors round "
        "otherwise: expect figures like these, not the same digits.",
    ]


def _about_tuning(result: SuiteResult) -> list[str]:
    if not any(scenario.tuning for scenario in result.scenarios):
        return []
    return [
        "Rivals that have settings were tuned on validation workloads, which are not those of the "
        f"comparison: of {TRIES} settings of each, those of the scenario the first, the ones with "
        f"the lowest mean E2E on {WORKLOADS} workloads. What was found stands below each scenario."
    ]


def notes(result: SuiteResult) -> list[str]:
    """Return the footnotes that these results need."""
    marked = [
        one
        for scenario in result.scenarios
        for one in scenario.schedulers
        if one.uses_output_lengths
    ]
    texts = [f"{ORACLE_NOTE}."] if marked else []
    return texts + [f"Scenario {name} was left out: {why}." for name, why in result.skipped.items()]


def headline(result: SuiteResult) -> str:
    """Return on how many scenarios the policy's median is below the best heuristic, and its worst
    seed."""
    learned = [
        (scenario.name, one.e2e)
        for scenario in result.scenarios
        for one in scenario.schedulers
        if one.learned
    ]
    below = sum(ratios.median < 1.0 for _, ratios in learned)
    worst, ratios = max(learned, key=lambda one: one[1].worst)
    return (
        f"{LEARNED}: median mean E2E below the best heuristic on {below} of {len(learned)} "
        f"scenarios; the worst seed of all is seed {ratios.worst_seed} of {worst}, "
        f"{change(ratios.worst)}."
    )


def routers_table(result: SuiteResult) -> Table:
    """Return policies and planners of all scenarios; what a scenario's rows share stands once."""
    rows = []
    for scenario in result.scenarios:
        shared = (scenario.name, loads(scenario), scenario.best_heuristic)
        for place, one in enumerate(scenario.routers):
            first = shared if place == 0 else ("",) * len(shared)
            rows.append(Row((*first, one.name, *_figures(one)), one.learned))
    headers = ("scenario", "load", "best heuristic", "router", *_FIGURES)
    return Table(headers, 4, tuple(rows))


def schedulers_table(scenario: ScenarioResult) -> Table:
    """Return every scheduler of a scenario, with hit rates where caches found anything."""
    finds = any(rate > 0.0 for one in scenario.schedulers for rate in one.hit_rate)
    rows = [
        Row(
            (
                one.name,
                one.label,
                *_figures(one),
                *([f"{100 * median(one.hit_rate):.1f} %"] if finds else []),
                _by_seed(one.e2e),
            ),
            one.learned,
        )
        for one in scenario.schedulers
    ]
    found = ["tokens found, median"] if finds else []
    return Table(("scheduler", "kind", *_FIGURES, *found, "E2E by seed [%]"), 2, tuple(rows))


def tuning_table(scenario: ScenarioResult) -> Table:
    """Return what heuristics were told after tuning, and what that brought."""
    rows = [
        Row(
            (
                name,
                ", ".join(f"{key} {value:.3g}" for key, value in one.settings.items()),
                change(one.e2e_s / one.untuned_e2e_s),
            ),
            learned=False,
        )
        for name, one in scenario.tuning.items()
    ]
    return Table(
        ("tuned", "settings", "E2E on validation workloads, against before"), 2, tuple(rows)
    )


def description(scenario: ScenarioResult) -> str:
    """Return cluster and workload of a scenario in a sentence."""
    parts = [scenario.facts["Cluster"], scenario.facts["Workload"]]
    if scenario.saturation is not None:
        parts.append(
            f"saturation {scenario.saturation.sustained:.3g} requests/s, load {loads(scenario)}"
        )
    return "; ".join(parts) + "."


def loads(scenario: ScenarioResult) -> str:
    """Return the workload's rates as shares of saturation: ``60 → 110 → 80 %``."""
    if scenario.saturation is None:
        return NOTHING
    return " → ".join(f"{100 * load:.0f}" for load in scenario.saturation.loads) + " %"


def change(ratio: float) -> str:
    """Return a ratio as a relative change in %."""
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−")


def _by_seed(ratios: Ratios) -> str:
    return ", ".join(change(ratio).removesuffix(" %") for ratio in ratios.by_seed)


def _figures(one: SchedulerResult) -> Sequence[str]:
    e2e, ttft_p99 = one.e2e, one.ttft_p99
    return (
        change(e2e.median),
        f"{change(e2e.worst)} (seed {e2e.worst_seed})",
        f"x{ttft_p99.median:.2f}",
        f"x{ttft_p99.worst:.2f} (seed {ttft_p99.worst_seed})",
    )


def _seeds(count: int) -> str:
    return "seed 0 alone" if count == 1 else f"{count} seeds, 0 to {count - 1}"
