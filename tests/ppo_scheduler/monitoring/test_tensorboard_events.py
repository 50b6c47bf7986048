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


HISTORY = [(step, {NAME: 9.0}) for step in (64, 128, 192)]


def test_a_folder_gets_what_it_lacks_of_the_history_and_its_last_record_anew(tmp_path):
    write(tmp_path, [64, 128], 1.0)
    TensorBoardSink(tmp_path, 256, HISTORY).close()
    assert points(tmp_path) == [(64, 1.0), (128, 9.0), (192, 9.0)]


@pytest.mark.parametrize("resume_step", [129, 193, 256])
def test_a_folder_that_has_more_than_the_history_keeps_its_own(tmp_path, resume_step):
    write(tmp_path, [64, 128, 192, 256], 1.0)
    history = [row for row in HISTORY if row[0] < resume_step]
    TensorBoardSink(tmp_path, resume_step, history).close()
    assert points(tmp_path) == [(step, 1.0) for step, _ in history]


def test_a_resume_that_recorded_nothing_hides_what_it_hid(tmp_path):
    write(tmp_path, [64, 128, 192], 1.0)
    write(tmp_path, [], 0.0, resume_step=128)
    TensorBoardSink(tmp_path, 256, HISTORY).close()
    assert points(tmp_path) == [(64, 1.0), (128, 9.0), (192, 9.0)]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_at_the_end_of_the_events_is_mended_from_the_history(tmp_path, damage):
    write(tmp_path, [64, 128, 192], 1.0)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "cut":
        del content[-9:]
    else:
        content[-9] ^= 1
    file.write_bytes(content)
    TensorBoardSink(tmp_path, 256, HISTORY).close()
    shown = points(tmp_path)
    assert [step for step, _ in shown] == [64, 128, 192]
    assert shown[-1] == (192, 9.0)


def test_events_go_on_where_the_disk_recovers(tmp_path, files_end_at):
    sink = TensorBoardSink(tmp_path, None)
    sink.record(64, {NAME: 1.0})
    (file,) = tmp_path.iterdir()
    with files_end_at(file.stat().st_size + 20), pytest.raises(UserError, match="File too large"):
        sink.record(128, {NAME: 2.0})
    sink.record(128, {NAME: 2.0})
    sink.record(192, {NAME: 3.0})
    assert points(tmp_path) == [(64, 1.0), (128, 2.0), (192, 3.0)]


def test_a_clock_that_was_set_back_does_not_mix_the_curves(tmp_path):
    write(tmp_path, [64, 128, 192], 1.0)
    (file,) = tmp_path.iterdir()
    prefix, rest = file.name[:20], file.name[30:]
    file.rename(tmp_path / f"{prefix}4102444800{rest}")  # the clock was in the year 2100
    write(tmp_path, [128, 256], 2.0, resume_step=128)
    assert points(tmp_path) == [(64, 1.0), (128, 2.0), (256, 2.0)]
