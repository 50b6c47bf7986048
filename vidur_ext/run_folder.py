"""The folder of one run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ppo_scheduler.errors import UserError

WARMSTART_RUNS = "warmstart_training_optimized"
EXTERNAL_RUNS = "warmstart_external"
"""Runs that begin with a model of elsewhere have a folder of their own below the output root."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its log, events, metrics, demonstrations, policies and comparison."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "ppo_training.log"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def demonstrations(self) -> Path:
        return self.path / "demonstrations.npz"

    @property
    def warm_start(self) -> Path:
        """How the warm start went, step by step; there only if there was one."""
        return self.path / "warm_start.json"

    @property
    def progress(self) -> Path:
        """Of a training in chunks: what is done and what is left."""
        return self.path / "training_progress.json"

    def chunk_log(self, chunk_id: int) -> Path:
        """What the process of a chunk printed, over all its attempts."""
        return self.path / f"chunk_{chunk_id}.log"

    @property
    def pretrained_actor(self) -> Path:
        return self.path / "pretrained_actor.pt"

    @property
    def policy(self) -> Path:
        return self.path / "policy.pt"

    @property
    def validation(self) -> Path:
        """Which policies were validated, with which result, and which one is ``policy.pt``."""
        return self.path / "validation.json"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison"

    @property
    def comparison_json(self) -> Path:
        """The comparison for programs; it is there when the run is judged."""
        return self.comparison / "comparison.json"

    @property
    def simulator(self) -> Path:
        """Vidur insists on writing its config somewhere."""
        return self.path / "simulator"

    @classmethod
    def create(cls, output_root: Path, kind: str, now: datetime) -> RunFolder:
        """Create ``output_root/kind/run_<YYYYmmdd_HHMMSS>``, with a suffix if that is taken."""
        stem = f"run_{now:%Y%m%d_%H%M%S}"
        parent = output_root / kind
        for attempt in range(1, 1000):
            path = parent / (stem if attempt == 1 else f"{stem}_{attempt}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise _unusable(path, error) from error
            return cls(path)
        raise UserError(f"{parent}: cannot find a free name for {stem}")

    @classmethod
    def at(cls, path: Path) -> RunFolder:
        """Use (and create) exactly ``path``."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, error) from error
        return cls(path)


def _unusable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: cannot create the output folder ({error.strerror}); choose another place with "
        "--output-dir or training.output_root"
    )
