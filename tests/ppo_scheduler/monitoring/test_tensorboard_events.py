"""TensorBoard shows each point once, at its global_step, whatever crashed in between."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_scheduler.errors import UserError
from ppo_scheduler.monitoring.tensorboard import TensorBoardSink

NAME = "Rollout/RewardMean"


def points(folder) -> list[tuple[int, float]]:
    """Return the points of NAME as TensorBoard shows them."""
    events = EventAccumulator(str(folder)).Reload()
    if NAME not in events.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in events.Scalars(NAME)]


def write(folder, steps, value: float, resume_step: int | None = None) -> None:
    sink = TensorBoardSink(folder, resume_step)
    for step in steps:
        sink.record(step, {NAME: value})
    sink.close()


def test_x_is_the_global_step(tmp_path):
    write(tmp_path, [128, 256, 10_000_000_000], 0.5)
    assert points(tmp_path) == [(128, 0.5), (256, 0.5), (10_000_000_000, 0.5)]


def test_every_scalar_has_its_own_curve(tmp_path):
    sink = TensorBoardSink(tmp_path, None)
    sink.record(128, {"Training/Entropy": 1.25, "Actions/Replica_0": 0.5})
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["Actions/Replica_0", "Training/Entropy"]
    assert events.Scalars("Training/Entropy")[0].value == 1.25


def test_a_resume_hides_the_points_from_its_step_on(tmp_path):
    write(tmp_path, [64, 128, 192], 1.0)
    write(tmp_path, [128, 256], 2.0, resume_step=128)
    assert points(tmp_path) == [(64, 1.0), (128, 2.0), (256, 2.0)]


def test_a_resume_after_the_last_point_hides_nothing(tmp_path):
    write(tmp_path, [64, 128], 1.0)
    write(tmp_path, [192], 2.0, resume_step=129)
    assert points(tmp_path) == [(64, 1.0), (128, 1.0), (192, 2.0)]


def test_a_new_training_hides_all_that_was_there(tmp_path):
    write(tmp_path, [64, 128], 1.0)
    write(tmp_path, [96], 2.0)
    assert points(tmp_path) == [(96, 2.0)]


def test_a_record_is_on_disk_before_training_goes_on(tmp_path):
    sink = TensorBoardSink(tmp_path, None)
    (file,) = tmp_path.iterdir()
    for step in range(20):
        sink.record(step, {**{f"Actions/Replica_{i}": 0.0 for i in range(8)}, f"Last/{step}": 0.0})
        assert f"Last/{step}".encode() in file.read_bytes()
    sink.close()


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "tensorboard").write_text("a file", encoding="utf-8")
    with pytest.raises(UserError, match="tensorboard: metrics cannot be written"):
        TensorBoardSink(tmp_path / "tensorboard", None)


def test_without_this_sink_tensorboard_is_not_imported():
    program = (
        "import sys, ppo_scheduler.monitoring.csv_metrics, ppo_scheduler.monitoring.scalars, "
        "ppo_scheduler.monitoring.run_log, ppo_scheduler.monitoring.progress_bar, "
        "ppo_scheduler.monitoring.tail_latency; print('tensorboard' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "False"


def test_a_new_folder_begins_with_the_history(tmp_path):
    history = [(64, {NAME: 1.0}), (128, {NAME: 2.0})]
    TensorBoardSink(tmp_path, 192, history).close()
    write(tmp_path, [192], 3.0, resume_step=192)
    assert points(tmp_path) == [(64, 1.0), (128, 2.0), (192, 3.0)]


def test_a_folder_with_events_gets_no_history(tmp_path):
    write(tmp_path, [64], 1.0)
    TensorBoardSink(tmp_path, 128, [(64, {NAME: 9.0})]).close()
    assert points(tmp_path) == [(64, 1.0)]


def test_a_clock_that_was_set_back_does_not_mix_the_curves(tmp_path):
    write(tmp_path, [64, 128, 192], 1.0)
    (file,) = tmp_path.iterdir()
    prefix, rest = file.name[:20], file.name[30:]
    file.rename(tmp_path / f"{prefix}4102444800{rest}")  # the clock was in the year 2100
    write(tmp_path, [128, 256], 2.0, resume_step=128)
    assert points(tmp_path) == [(64, 1.0), (128, 2.0), (256, 2.0)]
