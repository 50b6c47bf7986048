"""What each part of the training is worth: without it, over training seeds, on held-out workloads.

Every row is the shipped config with a few keys changed, trained from the beginning and judged by
the training's own comparison on the compiled engine: mean E2E and p99 TTFT of ``policy.pt`` as
multiples of the best heuristic's on the same workloads, the median of the seeds and the worst one.
Trainings run in ``--processes`` processes; each is printed as it ends.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import run_benchmark_with_options

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.config.sections import ORACLES
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.comparison import is_realistic
from vidur_ext.evaluation.metrics import LEARNED
from vidur_ext.processes import map_unordered
from vidur_ext.runs.pipeline import run_pipeline
from vidur_ext.runs.start import Start

_CONFIGS = Path(__file__).parents[1] / "configs"
_DEFAULT = "default"

ROWS: dict[str, tuple[str, ...]] = {
    "as_shipped": (),
    "no_warm_start": ("warmstart.enabled=false",),
    "imitation_of_heuristics": ("warmstart.method=imitation",),
    "gae": ("ppo_config.advantage=gae",),
    # No rollout is filled: the policy stays that of the warm start.
    "no_ppo": ("training.total_requests=16000",),
    "terminal_value": (
        "terminal_value.enabled=true",
        "kl_regularization.final_coef=0.02",
        "kl_regularization.decay_steps=500000",
    ),
    "no_kl": ("kl_regularization.initial_coef=0",),
    "attention": ("actor_critic_architecture.attention_layers=1",),
    "fewer_features": ("observation.history=false", "observation.queue_slots=0"),
}
"""What each row changes."""

_QUICK = (
    "training.total_requests=48000",
    "warmstart.rounds=1",
    "warmstart.labels_per_round=4000",
    "warmstart.steps_per_round=100",
    "warmstart.demo_requests=512",
    "warmstart.epochs=2",
    "terminal_value.decisions=1000",
    "terminal_value.steps=50",
    "evaluation.num_seeds=2",
    "evaluation.requests=256",
)
_ALONE = (
    "monitoring.progress_bar=false",
    "monitoring.tensorboard=false",
    "monitoring.log_level=warning",
    "parallel_training.num_workers=1",
    "evaluation.vidur_workloads=0",
)


@dataclass(frozen=True)
class Cell:
    """One training of the ablation."""

    scenario: str
    row: str
    seed: int
    quick: bool

    def config(self, folder: str) -> TrainingConfig:
        """Return what is trained in a folder, and judged against heuristics alone."""
        path = _CONFIGS / "ppo_warmstart.json"
        if self.scenario != _DEFAULT:
            path = _CONFIGS / "scenarios" / f"{self.scenario}.json"
        rivals = [
            name
            for name in load_config(path).evaluation.schedulers
            if is_realistic(name, oracle=name in ORACLES)
        ]
        return load_config(
            path,
            [
                *(_QUICK if self.quick else ()),
                *_ALONE,
                f"evaluation.schedulers={json.dumps(rivals)}",
                f"training.seed={self.seed}",
                f"training.output_root={folder}",
                f"checkpointing.checkpoint_dir={folder}/checkpoints",
                *ROWS[self.row],
            ],
        )


@dataclass(frozen=True)
class _Ratios:
    """To the best heuristic: 0.97 is 3 % better."""

    e2e: float
    ttft_p99: float


def _trained(cell: Cell) -> _Ratios:
    with tempfile.TemporaryDirectory() as folder:
        run = run_pipeline(Start(cell.config(folder), run_dir=Path(folder) / "run"), quiet=True)
        document = json.loads((run.comparison / "comparison.json").read_text(encoding="utf-8"))
    [learned] = [one for one in document["schedulers"] if one["name"] == LEARNED]
    return _Ratios(learned["e2e_vs_best_heuristic"], learned["ttft_p99_vs_best_heuristic"])


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenarios", default=_DEFAULT, help="names, with commas between them")
    parser.add_argument("--rows", help="the same of what is left out; --quick: the first two")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each row")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the figures of every row, by scenario."""
    every = list(ROWS)[:2] if arguments.quick else list(ROWS)
    rows = every if arguments.rows is None else arguments.rows.split(",")
    if unknown := [row for row in rows if row not in ROWS]:
        raise UserError(f"--rows {unknown[0]}: there is no such row; there are {', '.join(ROWS)}")
    cells = [
        Cell(scenario, row, seed, arguments.quick)
        for seed in range(1 if arguments.quick else arguments.seeds)
        for scenario in arguments.scenarios.split(",")
        for row in rows
    ]
    ratios: dict[tuple[str, str], list[_Ratios]] = {}
    for index, one in map_unordered(_trained, cells, arguments.processes):
        cell = cells[index]
        print(
            f"{cell.scenario}, {cell.row}, seed {cell.seed}: mean E2E x{one.e2e:.4f}, "
            f"p99 TTFT x{one.ttft_p99:.3f}",
            flush=True,
        )
        ratios.setdefault((cell.scenario, cell.row), []).append(one)
    figures: dict[str, float] = {}
    for scenario, row in dict.fromkeys((cell.scenario, cell.row) for cell in cells):
        for name in ("e2e", "ttft_p99"):
            values = [getattr(one, name) for one in ratios[scenario, row]]
            key = f"{scenario}.{row}.{name}_vs_best_heuristic"
            figures |= {f"{key}.median": statistics.median(values), f"{key}.worst": max(values)}
    return figures


if __name__ == "__main__":
    run_benchmark_with_options("Ablations", _add_options, measure)
