"""What a suite found: every scheduler against the best heuristic, over training seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppo_scheduler.errors import UserError
from vidur_ext.evaluation.comparison import COMPARISON_VERSION
from vidur_ext.evaluation.metrics import LEARNED
from vidur_ext.evaluation.saturation import Saturation, saturation_of
from vidur_ext.suite.plan import Cell, Plan
from vidur_ext.suite.tuning import Tuned, Tuning

RESULTS_VERSION = 2

_OF_ONE_SEED = ("Seed", "Config digest")
"""Facts of a comparison that do not hold for the other seeds of its scenario."""

Kind = Literal["policy", "planner", "heuristic", "oracle", "control"]
"""Policies are learned; planners simulate every choice; oracles are heuristics that know output
lengths; controls are deliberately bad."""


class _Reuse(BaseModel):
    """What is read of what prefix caches gave a scheduler."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    hit_rate: float


class _Pooled(BaseModel):
    """What is read of a scheduler's figures over all workloads."""

    model_config = ConfigDict(strict=True)

    reuse: _Reuse


class _Entry(BaseModel):
    """What is read of a scheduler in a ``comparison.json``."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    name: str
    policy: bool
    planner: bool
    control: bool
    uses_output_lengths: bool
    e2e_vs_best_heuristic: float
    ttft_p99_vs_best_heuristic: float
    pooled: _Pooled


class _Compared(BaseModel):
    """What is read of a ``comparison.json``."""

    model_config = ConfigDict(strict=True)

    best_heuristic: str
    facts: dict[str, str]
    schedulers: list[_Entry] = Field(min_length=1)


@dataclass(frozen=True)
class Ratios:
    """A figure of a scheduler / that of the best heuristic, by training seed: 0.97 is 3 % less."""

    by_seed: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.by_seed)

    @property
    def worst(self) -> float:
        return max(self.by_seed)

    @property
    def worst_seed(self) -> int:
        """The training seed with the largest ratio."""
        return self.by_seed.index(self.worst)


@dataclass(frozen=True)
class SchedulerResult:
    """One scheduler on a scenario: mean E2E and p99 TTFT against the best heuristic.

    ``hit_rate``: found tokens / prompt tokens, by training seed.
    """

    name: str
    kind: Kind
    uses_output_lengths: bool
    e2e: Ratios
    ttft_p99: Ratios
    hit_rate: tuple[float, ...]

    @property
    def learned(self) -> bool:
        """Whether this is the policy that the suite is about."""
        return self.name == LEARNED

    @property
    def label(self) -> str:
        """What it is, in words that a report must not leave out."""
        return f"{self.kind} †" if self.uses_output_lengths else self.kind


@dataclass(frozen=True)
class ScenarioResult:
    """A scenario, with its schedulers from the lowest median of mean E2E on.

    Attributes:
        facts: what the comparisons say of their runs, as far as it holds for all seeds.
        best_heuristics: the one of each training seed, on its held-out workloads.
        saturation: what the cluster sustains; None where the compiled engine does not simulate it.
        tuning: what heuristics were told after tuning.
    """

    name: str
    facts: Mapping[str, str]
    best_heuristics: tuple[str, ...]
    saturation: Saturation | None
    schedulers: tuple[SchedulerResult, ...]
    tuning: Mapping[str, Tuned] = field(default_factory=dict)

    @property
    def best_heuristic(self) -> str:
        """The best heuristic, or each with the number of seeds on which it is the best."""
        counts = Counter(self.best_heuristics).most_common()
        if len(counts) == 1:
            return counts[0][0]
        return ", ".join(f"{name} ({number})" for name, number in counts)

    @property
    def routers(self) -> tuple[SchedulerResult, ...]:
        """The policy under test, then other policies and planners."""
        known = [one for one in self.schedulers if one.kind in ("policy", "planner")]
        return tuple(sorted(known, key=lambda one: not one.learned))


@dataclass(frozen=True)
class SuiteResult:
    """All scenarios of a suite; ``skipped`` says why others were left out."""

    seeds: int
    scenarios: tuple[ScenarioResult, ...]
    skipped: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, fit for strict JSON."""
        return {
            "schema_version": RESULTS_VERSION,
            "seeds": list(range(self.seeds)),
            "scenarios": {
                scenario.name: {
                    one.name: {
                        "e2e_vs_best_heuristic": list(one.e2e.by_seed),
                        "ttft_p99_vs_best_heuristic": list(one.ttft_p99.by_seed),
                        "hit_rate": list(one.hit_rate),
                    }
                    for one in scenario.schedulers
                }
                for scenario in self.scenarios
            },
            "about": {scenario.name: _about(scenario) for scenario in self.scenarios},
            "skipped": dict(self.skipped),
        }


def collect(plan: Plan, cells: Sequence[Cell], tuning: Mapping[str, Tuning]) -> SuiteResult:
    """Return what the finished cells of a plan found.

    Args:
        tuning: of each scenario whose rivals were tuned.

    Raises:
        UserError: a cell's comparison cannot be read, or the seeds of a scenario do not compare the
            same schedulers.
    """
    scenarios = [
        scenario_result(
            name,
            [_read(cell) for cell in cells if cell.scenario == name],
            saturation_of(config) if config.simulation.engine == "compiled" else None,
            tuning.get(name, {}),
        )
        for name, config in plan.scenarios.items()
    ]
    return SuiteResult(plan.seeds, tuple(scenarios), plan.skipped)


def scenario_result(
    name: str,
    comparisons: Sequence[Mapping[str, Any]],
    saturation: Saturation | None,
    tuning: Mapping[str, Tuned] | None = None,
) -> ScenarioResult:
    """Return what the comparisons of a scenario's seeds, in their order, found.

    Args:
        comparisons: documents as in ``comparison.json``.

    Raises:
        UserError: they do not compare the same schedulers.
    """
    seeds = [{entry["name"]: entry for entry in one["schedulers"]} for one in comparisons]
    names = list(seeds[0])
    for number, entries in enumerate(seeds):
        if entries.keys() != seeds[0].keys():
            raise UserError(
                f"scenario {name}: seed {number} compares {', '.join(entries)}, seed 0 "
                f"{', '.join(names)}; begin the suite anew with another --output-dir"
            )
    schedulers = [
        SchedulerResult(
            scheduler,
            kind_of(seeds[0][scheduler]),
            seeds[0][scheduler]["uses_output_lengths"],
            e2e=_ratios([one[scheduler] for one in seeds], "e2e_vs_best_heuristic"),
            ttft_p99=_ratios([one[scheduler] for one in seeds], "ttft_p99_vs_best_heuristic"),
            hit_rate=tuple(one[scheduler]["pooled"]["reuse"]["hit_rate"] for one in seeds),
        )
        for scheduler in names
    ]
    return ScenarioResult(
        name,
        {fact: text for fact, text in comparisons[0]["facts"].items() if fact not in _OF_ONE_SEED},
        tuple(comparison["best_heuristic"] for comparison in comparisons),
        saturation,
        tuple(sorted(schedulers, key=lambda one: one.e2e.median)),
        tuning or {},
    )


def kind_of(entry: Mapping[str, Any]) -> Kind:
    """Return what a scheduler of a comparison is."""
    for kind in ("policy", "planner", "control"):
        if entry[kind]:
            return kind
    return "oracle" if entry["uses_output_lengths"] else "heuristic"


def _ratios(entries: Sequence[Mapping[str, Any]], figure: str) -> Ratios:
    """Return a figure of one scheduler, by seed."""
    return Ratios(tuple(float(entry[figure]) for entry in entries))


def _read(cell: Cell) -> dict[str, Any]:
    file = cell.folder.comparison_json
    again = f"delete {cell.folder.comparison} to compare again"
    try:
        document: dict[str, Any] = json.loads(file.read_bytes())
        version = document["schema_version"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error}); {again}") from None
    if version != COMPARISON_VERSION:
        raise UserError(f"{file}: has schema version {version}, not {COMPARISON_VERSION}; {again}")
    try:
        _Compared.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: is damaged ({where}: {first['msg']}); {again}") from None
    return document


def _about(scenario: ScenarioResult) -> dict[str, Any]:
    saturation = scenario.saturation
    return {
        "facts": dict(scenario.facts),
        "best_heuristics": list(scenario.best_heuristics),
        "saturation_requests_per_s": None if saturation is None else saturation.sustained,
        "loads": None if saturation is None else list(saturation.loads),
        "kinds": {one.name: one.kind for one in scenario.schedulers},
        "tuning": {name: asdict(tuned) for name, tuned in scenario.tuning.items()},
    }
