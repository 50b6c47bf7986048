"""What a suite trains: scenarios by name, seeds, and one cell for each of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.config.sections import CONTROLS, ORACLES, PLANNERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder
from vidur_ext.suite.tuning import Tuning, check_tunable, told
from vidur_ext.training.feasible import check_feasible
from vidur_ext.training.instruments import check_monitoring

RECORD_VERSION = 2

PLACES = ("training.seed", "training.output_root", "checkpointing.checkpoint_dir")
"""What differs from cell to cell of a scenario."""

SET_BY_SUITE = (
    *PLACES,
    "training.torch_threads",
    "parallel_training.num_workers",
    "monitoring.progress_bar",
)
"""A cell is one process with one thread, without a terminal."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One training of a scenario, with its comparison."""

    scenario: str
    seed: int
    config: TrainingConfig
    folder: RunFolder

    @property
    def name(self) -> str:
        return f"{self.scenario}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it is trained and judged; the comparison is written last."""
        return self.folder.comparison_json.exists()


@dataclass(frozen=True)
class Plan:
    """Scenarios in the order in which they are shown, each to be trained with seeds 0 to N - 1."""

    scenarios: Mapping[str, TrainingConfig]
    seeds: int
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why a scenario is left out."""
    tune: bool = False
    """Whether rivals are tuned before they are met."""

    def cells(self, root: Path, tuning: Mapping[str, Tuning]) -> list[Cell]:
        """Return the cells below a folder: the first seed of every scenario, then the second.

        Args:
            tuning: of each scenario whose rivals were tuned.
        """
        scenarios = {n: told(config, tuning.get(n, {})) for n, config in self.scenarios.items()}
        return [
            _cell(name, config, seed, RunFolder(root / name / f"seed_{seed}"))
            for seed in range(self.seeds)
            for name, config in scenarios.items()
        ]

    def record(self) -> dict[str, Any]:
        """Return what the results depend on, as JSON values."""
        return {
            "schema_version": RECORD_VERSION,
            "seeds": self.seeds,
            "tuned": self.tune,
            "scenarios": {name: _settings(config) for name, config in self.scenarios.items()},
        }


def plan_suite(
    files: Mapping[str, Path],
    seeds: int,
    overrides: Sequence[str] = (),
    *,
    traces: Sequence[str] = (),
    asked_for: bool,
    tune: bool = False,
) -> Plan:
    """Return the plan of the scenarios in ``files``, by name.

    Args:
        overrides: texts for ``--set``, for every scenario.
        traces: texts for ``--trace``: files that are replayed instead of those that scenarios name.
        asked_for: somebody named these scenarios: one whose trace is not there is refused; else it
            is left out, and the plan says why.
        tune: rivals are to be tuned.

    Raises:
        UserError: a config is wrong, cannot be trained, or nothing in it would be judged or tuned.
    """
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key in SET_BY_SUITE:
            raise UserError(f"--set {text}: the suite sets {key} itself; leave it out")
    scenarios: dict[str, TrainingConfig] = {}
    skipped: dict[str, str] = {}
    given = _given_traces(files, overrides, traces)
    for name, file in files.items():
        config = _load(file, overrides, given.get(name))
        missing = _missing_trace(config)
        if missing is None:
            _check(name, config)
            scenarios[name] = config
        elif asked_for:
            raise UserError(f"scenario {name}: {missing}")
        else:
            skipped[name] = missing
    check_monitoring(scenarios.values())
    if tune:
        check_tunable(scenarios)
    return Plan(scenarios, seeds, skipped, tune)


def _given_traces(
    files: Mapping[str, Path], overrides: Sequence[str], traces: Sequence[str]
) -> dict[str, str]:
    """Return the file that each scenario replays which ``--trace`` speaks of."""
    replaying = [
        n for n, f in files.items() if load_config(f, overrides).workload.source == "trace"
    ]
    given: dict[str, str] = {}
    for text in traces:
        name, separator, file = text.partition("=")
        if not separator and len(replaying) == 1:
            [name], file = replaying, text
        if not replaying:
            raise UserError(f"--trace {text}: none of {', '.join(files)} replays a trace")
        if name not in replaying:
            examples = " ".join(f"--trace {one}=FILE" for one in replaying)
            raise UserError(
                f"--trace {text}: say which scenario replays it, of those that replay a trace: "
                f"{examples}"
            )
        given[name] = file
    return given


def _load(file: Path, overrides: Sequence[str], trace: str | None) -> TrainingConfig:
    given = [] if trace is None else [f"workload.trace_file={trace}"]
    config = load_config(file, [*overrides, *given])
    if {*config.evaluation.schedulers} <= {*ORACLES, *CONTROLS, *PLANNERS}:
        raise UserError(
            f"{file}: evaluation.schedulers names nothing that a router could be; name a heuristic "
            "to be set against"
        )
    if not config.evaluation.enabled:
        raise UserError(f"{file}: evaluation.enabled=false leaves nothing to judge; set it to true")
    return config


def _check(name: str, config: TrainingConfig) -> None:
    try:
        check_feasible(config)
    except UserError as error:
        raise UserError(f"scenario {name}: {error}") from None


def _missing_trace(config: TrainingConfig) -> str | None:
    """Return why the trace of a workload cannot be replayed; None if there is none, or its file."""
    file = config.workload.trace_file
    if file is None or Path(file).exists():
        return None
    return f"its trace {file} is not there: fetch it (docs/workloads.md), or name one with --trace"


def _cell(scenario: str, config: TrainingConfig, seed: int, folder: RunFolder) -> Cell:
    own = {
        "training": {"seed": seed, "output_root": str(folder.path), "torch_threads": 1},
        "checkpointing": {"checkpoint_dir": str(folder.path / "checkpoints")},
        "parallel_training": {"num_workers": 1},
        "monitoring": {"progress_bar": False},
    }
    groups = {name: getattr(config, name).model_copy(update=keys) for name, keys in own.items()}
    return Cell(scenario, seed, config.model_copy(update=groups), folder)


def _settings(config: TrainingConfig) -> dict[str, Any]:
    return {name: value for name, value in config.settings().items() if name not in SET_BY_SUITE}
