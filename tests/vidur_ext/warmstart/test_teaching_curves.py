"""The curves of a warm start are on the disk after every step."""

from __future__ import annotations

import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import GrowingFile
from vidur_ext.warmstart.behaviour_cloning import EpochReport
from vidur_ext.warmstart.cost_learning import RoundReport
from vidur_ext.warmstart.teaching import teaching_curves

EPOCHS = [
    EpochReport(number, 1.0 / (number + 1), 2.0 / (number + 1), {"lor": 0.25 * number, "x": 0.5})
    for number in range(3)
]
ROUNDS = [
    RoundReport(number, 100 * (number + 1), 0.5 / (number + 1), 2.0, 0.75) for number in (0, 1)
]


@pytest.mark.parametrize(
    ("steps", "name", "values"),
    [
        (EPOCHS, "WarmStart/Accuracy_lor", [0.0, 0.25, 0.5]),
        (EPOCHS, "WarmStart/HoldoutLoss", [2.0, 1.0, pytest.approx(2 / 3)]),
        (ROUNDS, "WarmStart/HoldoutRegret", [0.5, 0.25]),
        (ROUNDS, "WarmStart/HoldoutRegretAtRandom", [2.0, 2.0]),
        (ROUNDS, "WarmStart/HoldoutAgreement", [0.75, 0.75]),
        (ROUNDS, "WarmStart/Labels", [100.0, 200.0]),
    ],
)
def test_csv_and_tensorboard_show_every_step_before_the_end(tmp_path, steps, name, values):
    table, events = tmp_path / "curves.csv", tmp_path / "tensorboard"
    with teaching_curves(table, events) as record:
        for step in steps:
            record(step)
        rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
        shown = EventAccumulator(str(events)).Reload()
    assert [int(row.pop("step")) for row in rows] == [step.number for step in steps]
    assert [float(row[name]) for row in rows] == values
    assert all(set(row) == set(steps[0].scalars()) for row in rows)
    assert set(shown.Tags()["scalars"]) == set(steps[0].scalars())
    assert [(point.step, point.value) for point in shown.Scalars(name)] == list(enumerate(values))


def test_what_is_switched_off_is_not_written(tmp_path):
    with teaching_curves(None, None) as record:
        record(EPOCHS[0])
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"curves\.csv: metrics cannot be written"),
        teaching_curves(tmp_path / "absent" / "curves.csv", None),
    ):
        pass


@pytest.mark.parametrize("room_again", [True, False])
def test_a_full_disk_does_not_end_the_teaching_and_costs_no_step(
    tmp_path, monkeypatch, caplog, room_again
):
    caplog.set_level("INFO", "ppo")
    table, events = tmp_path / "curves.csv", tmp_path / "tensorboard"
    append = GrowingFile.append

    def full(file: GrowingFile, piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with teaching_curves(table, events) as record:
        record(EPOCHS[0])
        monkeypatch.setattr(GrowingFile, "append", full)
        record(EPOCHS[1])
        if room_again:
            monkeypatch.setattr(GrowingFile, "append", append)
        record(EPOCHS[2])
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["step"] for row in rows] == (["0", "1", "2"] if room_again else ["0"])
    points = EventAccumulator(str(events)).Reload().Scalars("WarmStart/HoldoutLoss")
    assert [point.step for point in points] == ([0, 1, 2] if room_again else [0])
    warned = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(warned) == (2 if room_again else 4)
    assert room_again or warned[-1].startswith("2 records were not written; ")
