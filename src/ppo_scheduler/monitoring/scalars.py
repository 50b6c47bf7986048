"""Scalars: their fixed names in the order of the CSV's columns, where they go, and the history of
them that a checkpoint carries, so that a new folder can show them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors
from ppo_scheduler.state import StateDict

_LOG = logging.getLogger("ppo")

_TRAINING = (
    "PolicyLoss",
    "ValueLoss",
    "Entropy",
    "ApproxKL",
    "ClipFraction",
    "ExplainedVariance",
    "GradientNorm",
    "LearningRate",
    "ReferenceKL",
    "ReferenceKLCoef",
    "EntropyCoef",
    "ActionBalance",
    "MinibatchSize",
    "EpochsDone",
    "SkippedSteps",
    "RewardScale",
)
_ROLLOUT = (
    "RewardMean",
    "RewardStd",
    "RewardMin",
    "RewardMax",
    "ValueMean",
    "ReturnMean",
    "AdvantageStd",
    "Regret",
)
_CONTROL = ("Temperature", "TemperaturePulses", "CollapseInterventions")
_CURRICULUM = ("Stage", "QpsScale", "LatencyThresholdScale", "PenaltyScale")
_VALIDATION = ("Objective", "BestHeuristic", "MeanLatency", "MeanTTFT")
_SPEED = ("DecisionsPerSecond", "UpdateSeconds", "CheckpointSeconds")
TAIL_PERCENTILES = {"latency": (50, 90, 95, 99), "ttft": (50, 90, 99)}


def scalar_names(num_replicas: int, reward_components: Sequence[str]) -> tuple[str, ...]:
    """Return every scalar that a training of this shape records."""
    tail = [f"{what}_p{p}" for what, ranks in TAIL_PERCENTILES.items() for p in ranks]
    groups: dict[str, Sequence[str]] = {
        "Training": _TRAINING,
        "Rollout": _ROLLOUT,
        "Actions": [f"Replica_{index}" for index in range(num_replicas)],
        "Reward": reward_components,
        "tail_latency": tail,
        "Control": _CONTROL,
        "curriculum": _CURRICULUM,
        "Validation": _VALIDATION,
        "Speed": _SPEED,
    }
    return tuple(f"{group}/{name}" for group, names in groups.items() for name in names)


ScalarRow = tuple[int, Mapping[str, float]]
"""``global_step`` and the scalars recorded at it."""


class MetricsRecorder(Protocol):
    """Takes scalars; x is always ``global_step``, the number of routing decisions.

    When ``record`` returns, the operating system has the record, so a checkpoint that is taken
    afterwards never knows of an update that a crash could still take away.
    """

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None: ...


def metrics_disk_errors(path: Path) -> AbstractContextManager[None]:
    """Turn an ``OSError`` about ``path`` into a ``UserError`` that says how to go on."""
    return disk_errors(
        path,
        "metrics cannot be written",
        "Free some space or give rights there, or choose another --output-dir",
    )


class MetricsSink(MetricsRecorder, Protocol):
    """A recorder that is closed at the end."""

    def close(self) -> None: ...


class PatientSink:
    """Gives a sink what it refused again, in order, before what comes next."""

    def __init__(self, sink: MetricsSink) -> None:
        self._sink = sink
        self._waiting: deque[ScalarRow] = deque()
        self._refused: str | None = None

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        self._waiting.append((global_step, scalars))
        self._catch_up()

    def close(self) -> None:
        """Try for the last time, then close the sink."""
        self._catch_up()
        with suppress(UserError):  # it had the chance to take all, and has said what it could not
            self._sink.close()

    @property
    def lost(self) -> str | None:
        """What was never written, and why; None if all was."""
        if not self._waiting:
            return None
        return f"{len(self._waiting)} records were not written; {self._refused}"

    def _catch_up(self) -> None:
        try:
            while self._waiting:
                self._sink.record(*self._waiting[0])
                self._waiting.popleft()
        except UserError as error:
            if self._refused is None:
                _LOG.warning("%s; training goes on and tries again", error)
            self._refused = str(error)
            return
        if self._refused is not None:
            _LOG.info("metrics are written again, with all of the time between")
            self._refused = None


class FanOut:
    """Hands every record to all sinks; what one of them refuses does not reach the others."""

    def __init__(self, sinks: Sequence[MetricsSink]) -> None:
        self._sinks = [PatientSink(sink) for sink in sinks]

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.record(global_step, scalars)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def raise_losses(self) -> None:
        """End with an error if something was never written.

        Raises:
            UserError: naming what, and why.
        """
        lost = [sink.lost for sink in self._sinks if sink.lost is not None]
        if lost:
            raise UserError(
                "\n".join(lost) + "\nThe checkpoints hold them: a resume writes what is missing"
            )


class MetricsHistory:
    """Rows of (``global_step``, scalars) in a table that grows; NaN is a scalar that is missing."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._begin(columns)

    def _begin(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._index = {name: i for i, name in enumerate(self._columns)}
        self._steps: NDArray[np.int64] = np.zeros(64, np.int64)
        self._values: NDArray[np.float64] = np.full((64, len(self._columns)), np.nan)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, global_step: int, scalars: Mapping[str, float]) -> None:
        if self._count == len(self._steps):
            self._steps = np.concatenate([self._steps, np.zeros_like(self._steps)])
            empty = np.full_like(self._values, np.nan)
            self._values = np.concatenate([self._values, empty])
        self._steps[self._count] = global_step
        for name, value in scalars.items():
            self._values[self._count, self._index[name]] = value
        self._count += 1

    def rows(self) -> Iterator[ScalarRow]:
        """Yield what was recorded, in order."""
        for step, values in zip(self._steps[: self._count], self._values, strict=False):
            present = np.flatnonzero(~np.isnan(values))
            yield int(step), {self._columns[i]: float(values[i]) for i in present}

    def state_dict(self) -> StateDict:
        return {
            "columns": list(self._columns),
            "steps": torch.from_numpy(self._steps[: self._count]),
            "values": torch.from_numpy(self._values[: self._count]),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore. Columns that only the saved training had come after the present ones."""
        names: list[str] = state["columns"]
        self._begin([*self._columns, *(name for name in names if name not in self._index)])
        for step, values in zip(state["steps"].tolist(), state["values"].tolist(), strict=True):
            self.append(step, dict(zip(names, values, strict=True)))
