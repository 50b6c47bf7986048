"""Numbers and findings as text, the same in the terminal and on the page. What is not known is a
dash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.engines import TOLERANCE, EngineComparison, SchedulerOnEngines
from vidur_ext.evaluation.metrics import (
    CONTROL_NOTE,
    ORACLE_NOTE,
    PLANNER_NOTE,
    SLO_METRIC,
)
from vidur_ext.evaluation.statistics import MATERIAL, Interval, PairedDifference

NOTHING = "–"
HEADLINE_METRIC = "e2e_mean_s"
_TAIL_METRIC = "ttft_p99_s"
WARNING = "Warning:"
UNCHECKED = "Vidur has not checked these runs: evaluation.vidur_workloads is 0."

_ENGINES = {"compiled": "the compiled engine", "vidur": "Vidur"}

_IN_WORDS = {
    "better": "better than",
    "slightly better": "slightly better than",
    "unclear": "not distinguishable from",
    "slightly worse": "slightly worse than",
    "worse": "worse than",
    NOTHING: "not measurable against",
}
"""Each verdict, before the name or number of what it is about."""

_SHARES_SHOWN = 8
"""With more replicas than this, text gives the range of shares instead of each."""


def number(value: float | None) -> str:
    """Return ``value`` with about four significant digits."""
    if value is None:
        return NOTHING
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}"


def in_unit(metric: str, value: float | None) -> str:
    """Return the value of a compared metric: TBT in ms, SLO attainment in %, the rest in s."""
    if value is None:
        return NOTHING
    if metric == SLO_METRIC:
        return percent(value)
    return number(value * 1000 if metric.startswith("tbt") else value)


def interval_in_unit(metric: str, interval: Interval | None) -> str:
    """Return ``[low, high]`` in the unit of :func:`in_unit`."""
    if interval is None:
        return NOTHING
    return f"[{in_unit(metric, interval.low)}, {in_unit(metric, interval.high)}]"


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


def change(metric: str, difference: PairedDifference | None) -> str:
    """Return the relative change; for SLO attainment the change in percentage points."""
    if difference is None:
        return NOTHING
    if metric == SLO_METRIC:
        return f"{_signed(difference.difference)} pp"
    if difference.ratio is None:
        return NOTHING
    return f"{_signed(difference.ratio - 1)} %"


def change_interval(metric: str, difference: PairedDifference | None) -> str:
    """Return the 95 % interval of :func:`change`, in its unit."""
    if difference is None:
        return NOTHING
    if metric == SLO_METRIC:
        return f"[{_signed(difference.interval.low)}, {_signed(difference.interval.high)}]"
    bounds = difference.ratio_interval
    return NOTHING if bounds is None else f"[{_signed(bounds.low - 1)}, {_signed(bounds.high - 1)}]"


def ratio(value: float | None) -> str:
    """Return a ratio of two figures: ×0.970 is 3 % less."""
    return NOTHING if value is None else f"×{number(value)}"


def ratio_interval(difference: PairedDifference | None) -> str:
    """Return the 95 % interval of a ratio."""
    if difference is None or difference.ratio_interval is None:
        return NOTHING
    bounds = difference.ratio_interval
    return f"[{number(bounds.low)}, {number(bounds.high)}]"


def _signed(share: float) -> str:
    return f"{100 * share:+,.1f}".replace("-", "−")


def verdict(difference: PairedDifference | None) -> str:
    """Return whether the whole interval is on one side of zero; "slightly" below relevance."""
    if difference is None:
        return NOTHING
    if not (difference.win or difference.loss):
        return "unclear"
    side = "better" if difference.win else "worse"
    return side if difference.material else f"slightly {side}"


def shares(values: Sequence[float], devices: Sequence[str] = ()) -> str:
    """Return the share of each replica in %, or their range where there are many.

    Args:
        devices: GPU of each replica; those of one kind stand together, by name, if there are more.
    """
    if len(set(devices)) > 1:
        of_kind = {
            kind: [value for value, device in zip(values, devices, strict=True) if device == kind]
            for kind in dict.fromkeys(devices)
        }
        parts = [f"{kind} {_shares(own, len(values))}" for kind, own in of_kind.items()]
    else:
        parts = [_shares(values, len(values))]
    return ", ".join(parts) + " %"


def _shares(values: Sequence[float], replicas: int) -> str:
    if replicas > _SHARES_SHOWN:
        return f"{100 * min(values):.1f}–{100 * max(values):.1f}"
    return "/".join(f"{100 * value:.0f}" for value in values)


def headline(comparison: Comparison) -> str:
    """Return the answer: how much the policy under test gains on what one would use without it.

    Oracles, planners and controls are shown but not ranked. Without such a policy, name the best
    scheduler.
    """
    rivals = [one for one in comparison.schedulers if one.realistic]
    learned = comparison.under_test
    if learned is None:
        best = (rivals or comparison.schedulers)[0]
        return f"{best.name} has the lowest mean E2E: {number(best.pooled[HEADLINE_METRIC])} s."
    verdicts = {
        one.name: verdict(learned.versus[one.name][HEADLINE_METRIC])
        for one in rivals
        if one is not learned
    }
    return " ".join([*_against_best(comparison, learned), _rank(verdicts)])


def _against_best(comparison: Comparison, learned: SchedulerComparison) -> list[str]:
    mean = f"mean E2E {number(learned.pooled[HEADLINE_METRIC])} s"
    if comparison.best_heuristic is None:
        return [f"{learned.marked_name}: {mean}."]
    best = comparison[comparison.best_heuristic]
    difference = learned.versus[best.name][HEADLINE_METRIC]
    tail = learned.versus[best.name][_TAIL_METRIC]
    return [
        f"{learned.marked_name} is {_IN_WORDS[verdict(difference)]} the best heuristic, "
        f"{best.name}: {mean} against {number(best.pooled[HEADLINE_METRIC])} s, "
        f"{change(HEADLINE_METRIC, difference)} {change_interval(HEADLINE_METRIC, difference)}, "
        f"lower on {learned.against_best.workloads_won} of {len(comparison.workloads)} workloads; "
        f"p99 TTFT {number(learned.pooled[_TAIL_METRIC])} s against "
        f"{number(best.pooled[_TAIL_METRIC])} s, {change(_TAIL_METRIC, tail)} "
        f"{change_interval(_TAIL_METRIC, tail)} ({verdict(tail)})."
    ]


def _rank(verdicts: Mapping[str, str]) -> str:
    """Return how many of the realistic rivals got each verdict; those that none got are left out.

    Args:
        verdicts: by rival, of the policy's difference to it.
    """
    counts = Counter(verdicts.values())
    parts = [f"{words} {counts[one]}" for one, words in _IN_WORDS.items() if counts[one]]
    return f"Of {_counted(len(verdicts), 'realistic rival')} it is {', '.join(parts)}."


def best_title(comparison: Comparison) -> str:
    """Return the title of the table of policies and planners against the best heuristic."""
    return f"Against the best heuristic, {comparison.best_heuristic}"


def notes(comparison: Comparison) -> list[str]:
    """Return the footnotes this comparison needs."""
    texts = [
        f"{_counted(len(comparison.workloads), 'held-out workload')}, simulated by "
        f"{_ENGINES[comparison.engine]}, the same for every scheduler; first "
        f"{percent(comparison.warmup_fraction)} of each run not counted; objectives: TTFT ≤ "
        f"{number(comparison.objectives.ttft_s)} s and TBT ≤ "
        f"{number(1000 * comparison.objectives.tbt_s)} ms; [95 % interval, "
        f"{comparison.bootstrap_samples} resamples]; slightly: less than {percent(MATERIAL)}."
    ]
    if any(one.uses_output_lengths for one in comparison.schedulers):
        texts.append(f"{ORACLE_NOTE}.")
    if any(one.planner for one in comparison.schedulers):
        texts.append(f"{PLANNER_NOTE}.")
    if any(one.control for one in comparison.schedulers):
        texts.append(f"{CONTROL_NOTE}.")
    texts.extend(
        f"{WARNING} the control {name} is not clearly worse than {comparison.baseline}. This "
        "workload cannot tell good schedulers from bad: raise its rate or the number of requests."
        for name in comparison.toothless_controls
    )
    texts.extend(_load_notes(comparison))
    if len(comparison.workloads) == 1:
        texts.append("Only one held-out workload: intervals say nothing about other workloads.")
    return texts


def _load_notes(comparison: Comparison) -> list[str]:
    """Return how loaded the cluster was, and a warning where that says little about routing."""
    name = comparison.best_heuristic or comparison.baseline
    load = comparison[name].pooled.load
    texts = [
        f"Load, with {name}: replicas busy {percent(load.busy)} of the time, "
        f"{number(load.in_service)} requests in service in each, {number(load.waiting)} waiting in "
        "the cluster."
    ]
    if load.ttft_halves_s is not None and load.overloaded(comparison.objectives.ttft_s):
        first, second = load.ttft_halves_s
        texts.append(
            f"{WARNING} the cluster is overloaded: with {name}, mean TTFT is {number(first)} s in "
            f"the first half of a workload and {number(second)} s in the second. Figures of a "
            "queue that grows depend on the length of the workload: lower its rate, or add "
            "replicas."
        )
    elif comparison.indifferent:
        texts.append(
            f"{WARNING} all schedulers that could be at work are within {percent(MATERIAL)} of "
            "each other in mean E2E: where a request goes hardly matters under this load. If the "
            "cluster is idle, raise the rate of the workload."
        )
    return texts


def check_notes(comparison: Comparison, engines: EngineComparison | None) -> list[str]:
    """Return what Vidur's check of the compiled engine says; nothing where Vidur simulated all."""
    if engines is not None:
        return [engine_line(engines), *engine_notes(engines)]
    return [UNCHECKED] if comparison.engine == "compiled" else []


def engine_line(engines: EngineComparison) -> str:
    """Return the line that sums up all schedulers."""
    alike = [one for one in engines.schedulers if _alike(one)]
    text = (
        f"Vidur repeated {_first_workloads(len(engines.seeds))}: completion times of {len(alike)} "
        f"of {len(engines.schedulers)} schedulers as on the compiled engine (largest relative "
        "difference "
        f"{relative_difference(max((one.completion_difference for one in alike), default=0.0))})"
    )
    others = [
        f"{one.name}: {one.routed_elsewhere} of {one.requests} requests routed elsewhere, mean E2E "
        f"{number(one.vidur.e2e_mean_s)} s on Vidur, "
        f"{number(one.compiled.e2e_mean_s)} s on the engine"
        for one in engines.schedulers
        if not _alike(one)
    ]
    return "; ".join([text, *others]) + f"; {_speed(engines)}."


def engine_notes(engines: EngineComparison) -> list[str]:
    """Return what has to be said about differences; warnings where they should not be."""
    rounding = [one.name for one in engines.schedulers if one.agrees and one.routed_elsewhere]
    texts = []
    if rounding:
        texts.append(
            f"{', '.join(rounding)}: what was routed elsewhere goes back to near-ties. "
            "A policy's 32-bit arithmetic rounds differently when it decides for several "
            f"workloads at once. All times before agree to {TOLERANCE:g}; from there on each "
            "engine has a course of its own, on which the policy prefers no other choice."
        )
    texts.extend(
        f"{WARNING} the engines disagree on {one.name}, and no rounding explains it: "
        f"{one.routed_elsewhere} of {one.requests} requests routed elsewhere, times before differ "
        f"by up to {relative_difference(one.earlier_difference)}. Believe Vidur (--set "
        "simulation.engine=vidur --set parallel_training.num_envs=1), and report this."
        for one in engines.schedulers
        if not one.agrees
    )
    return texts


def _first_workloads(count: int) -> str:
    return "the first held-out workload" if count == 1 else f"the first {count} held-out workloads"


def relative_difference(value: float) -> str:
    """Return a relative difference: 0 if there is none, else two digits."""
    return "0" if value == 0.0 else f"{value:.1e}"


def _alike(one: SchedulerOnEngines) -> bool:
    return one.agrees and not one.routed_elsewhere


def _speed(engines: EngineComparison) -> str:
    """Return the simulated requests per second of all runs of each engine together."""
    requests = sum(one.requests for one in engines.schedulers)
    vidur_s = sum(one.requests / one.vidur.decisions_per_second for one in engines.schedulers)
    compiled_s = sum(one.requests / one.compiled.decisions_per_second for one in engines.schedulers)
    return (
        f"{number(requests / compiled_s)} simulated requests/s on the engine, "
        f"{number(requests / vidur_s)} on Vidur, over all schedulers"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
