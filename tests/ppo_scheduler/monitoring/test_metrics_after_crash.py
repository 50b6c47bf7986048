"""A training that crashed and was resumed leaves the metrics of one that ran through."""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_scheduler.monitoring.csv_metrics import CsvSink
from ppo_scheduler.monitoring.scalars import FanOut, scalar_names
from ppo_scheduler.monitoring.tensorboard import TensorBoardSink
from ppo_scheduler.ppo.learner import Learner

STEPS = 400
FIRST_UPDATES = (96, 160, 224)
"""Decisions that bring an update: 32 collect statistics, then a rollout is full after 64."""


class Training:
    """A learner whose metrics go to files."""

    def __init__(self, folder: Path, config, schema, task, resume_step: int | None = None) -> None:
        columns = scalar_names(3, schema.reward_components)
        csv_sink = CsvSink(folder / "training.csv", columns, resume_step)
        self.sink = FanOut([csv_sink, TensorBoardSink(folder / "tensorboard", resume_step)])
        self.learner = Learner(config, schema, 3, self.sink)
        self.task = task

    def run_to(self, step: int) -> None:
        while self.learner.global_step < step:
            self.task.step(self.learner)


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the CSV's rows without the wall clock's columns."""
    with (folder / "training.csv").open(encoding="utf-8", newline="") as file:
        return [
            {name: cell for name, cell in row.items() if not name.startswith("Speed/")}
            for row in csv.DictReader(file)
        ]


def curve(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars("Rollout/RewardMean")]


@pytest.fixture
def straight(tmp_path, make_config, make_task, toy_schema):
    training = Training(tmp_path / "straight", make_config(), toy_schema, make_task())
    training.run_to(STEPS)
    training.sink.close()
    return tmp_path / "straight"


@pytest.mark.parametrize(
    ("checkpoint", "crash_after"), [(1, 150), (95, 10), (95, 150), (96, 0), (96, 150), (97, 150)]
)
def test_no_row_is_lost_or_written_twice(
    tmp_path, make_config, make_task, toy_schema, straight, checkpoint, crash_after
):
    folder = tmp_path / "crashed"
    killed = Training(folder, make_config(), toy_schema, make_task())
    killed.run_to(checkpoint)
    state, task = copy.deepcopy((killed.learner.state_dict(), killed.task))
    killed.run_to(checkpoint + crash_after)

    resumed = Training(folder, make_config(), toy_schema, task, resume_step=checkpoint)
    resumed.learner.load_state_dict(state)
    resumed.run_to(STEPS)
    resumed.sink.close()

    recorded = [int(row["global_step"]) for row in rows(straight)]
    assert recorded[:3] == [decision - 1 for decision in FIRST_UPDATES]
    assert rows(folder) == rows(straight)
    assert curve(folder) == curve(straight)
