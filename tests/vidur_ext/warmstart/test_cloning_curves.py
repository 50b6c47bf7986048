"""The curves of a cloning are on the disk after every epoch."""

from __future__ import annotations

import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from vidur_ext.warmstart.cloning import cloning_curves, scalars

from ppo_scheduler.errors import UserError
from vidur_ext.warmstart.behaviour_cloning import EpochReport

EPOCHS = [
    EpochReport(number, 1.0 / (number + 1), 2.0 / (number + 1), {"lor": 0.25 * number, "x": 0.5})
    for number in range(3)
]


def test_csv_and_tensorboard_show_every_epoch_before_the_end(tmp_path):
    table, events = tmp_path / "curves.csv", tmp_path / "tensorboard"
    with cloning_curves(table, events, ("lor", "x")) as record:
        for epoch in EPOCHS:
            record(epoch)
        rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
        shown = EventAccumulator(str(events)).Reload()
    assert [int(row.pop("epoch")) for row in rows] == [0, 1, 2]
    read = [{name: float(cell) for name, cell in row.items()} for row in rows]
    assert read == [scalars(epoch) for epoch in EPOCHS]
    assert set(shown.Tags()["scalars"]) == set(scalars(EPOCHS[0]))
    accuracy = shown.Scalars("BehaviourCloning/Accuracy_lor")
    assert [(point.step, point.value) for point in accuracy] == [(0, 0.0), (1, 0.25), (2, 0.5)]


def test_what_is_switched_off_is_not_written(tmp_path):
    with cloning_curves(None, None, ("lor", "x")) as record:
        record(EPOCHS[0])
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"curves\.csv: the history of the cloning was not written"),
        cloning_curves(tmp_path / "absent" / "curves.csv", None, ()),
    ):
        pass
