"""What the two engines agree and disagree on, as text."""

from __future__ import annotations

from vidur_ext.evaluation.engines import TOLERANCE, EngineComparison, SchedulerOnEngines
from vidur_ext.evaluation.report import wording


def engine_line(engines: EngineComparison) -> str:
    """Return the line that sums up all schedulers."""
    alike = [one for one in engines.schedulers if _alike(one)]
    text = (
        f"Compiled engine: completion times of {len(alike)} of {len(engines.schedulers)} "
        f"schedulers as on Vidur (largest relative difference "
        f"{difference(max((one.completion_difference for one in alike), default=0.0))})"
    )
    others = [
        f"{one.name}: {one.routed_elsewhere} of {one.requests} requests routed elsewhere, mean E2E "
        f"{wording.number(one.vidur.e2e_mean_s)} s on Vidur, "
        f"{wording.number(one.compiled.e2e_mean_s)} s on the engine"
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
            f"{', '.join(rounding)}: the first request that was routed elsewhere was a near-tie. "
            "A policy's 32-bit arithmetic rounds differently when it decides for several "
            f"workloads at once. All times before agree to {TOLERANCE:g}; from there on each "
            "engine has a course of its own."
        )
    texts.extend(
        f"{wording.WARNING} the engines disagree on {one.name}, and no rounding explains it: "
        f"{one.routed_elsewhere} of {one.requests} requests routed elsewhere, times before differ "
        f"by up to {difference(one.earlier_difference)}. Believe Vidur, and report this."
        for one in engines.schedulers
        if not one.agrees
    )
    return texts


def difference(value: float) -> str:
    """Return a relative difference: 0 if there is none, else two digits."""
    return "0" if value == 0.0 else f"{value:.1e}"


def _alike(one: SchedulerOnEngines) -> bool:
    return one.agrees and not one.routed_elsewhere


def _speed(engines: EngineComparison) -> str:
    """Return the simulated requests per second of all runs of each engine together."""
    requests = sum(one.requests for one in engines.schedulers)
    vidur, compiled = (
        requests / sum(one.requests / speed for one, speed in pairs)
        for pairs in (
            [(one, one.vidur.decisions_per_second) for one in engines.schedulers],
            [(one, one.compiled.decisions_per_second) for one in engines.schedulers],
        )
    )
    return (
        f"{wording.number(compiled)} simulated requests/s, {wording.number(vidur)} on Vidur, "
        "over all schedulers"
    )
