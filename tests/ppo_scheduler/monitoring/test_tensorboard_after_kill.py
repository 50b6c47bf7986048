"""A process killed while it opens the events leaves the curves as they were."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_scheduler.monitoring import tensorboard
from ppo_scheduler.monitoring.tensorboard import TensorBoardSink

NAME = "Rollout/RewardMean"


class Killed(BaseException):
    """Nothing of the process's own runs behind this point."""


def curve(folder) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(NAME)]


@pytest.fixture
def three_processes(tmp_path):
    """Three processes one after the other, each of which hid something of the one before."""
    for number, resume_step in enumerate([None, 20, 30]):
        sink = TensorBoardSink(tmp_path, resume_step)
        for step in range(resume_step or 0, (resume_step or 0) + 20, 5):
            sink.record(step, {NAME: number})
        sink.close()
    return tmp_path


@pytest.mark.parametrize("survived", range(4))
def test_between_two_renames_the_curves_are_the_same(three_processes, monkeypatch, survived):
    before = curve(three_processes)
    last = max(int(file.name.split(".")[3]) for file in three_processes.iterdir())
    monkeypatch.setattr(tensorboard.time, "time", lambda: last - 100.0)
    rename, renamed = os.rename, []

    def rename_or_die(source, target):
        if len(renamed) == survived:
            raise Killed
        renamed.append(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_or_die)
    if survived < 3:
        with pytest.raises(Killed):
            TensorBoardSink(three_processes, 1000)
    else:
        TensorBoardSink(three_processes, 1000).close()
    assert curve(three_processes) == before


@given(
    seconds=st.lists(st.integers(10**9, 10**9 + 9), min_size=1, max_size=6),
    now=st.integers(10**9, 10**9 + 12),
)
def test_names_are_made_earlier_only_and_stay_in_order(tmp_path_factory, seconds, now):
    folder = tmp_path_factory.mktemp("events")
    for number, second in enumerate(sorted(seconds)):
        (folder / f"events.out.tfevents.{second}.host.{number}").write_text(str(number))
    tensorboard._name_before(now, sorted(folder.iterdir()))
    files = sorted(folder.iterdir())
    assert [file.read_text() for file in files] == [str(n) for n in range(len(seconds))]
    stamps = [int(file.name.split(".")[3]) for file in files]
    assert all(new <= old for new, old in zip(stamps, sorted(seconds), strict=True))
    assert max(stamps) < now


def test_a_history_that_was_cut_off_is_written_again(tmp_path):
    history = [(step, {NAME: float(step)}) for step in (64, 128, 192)]

    def cut_off():
        yield from history[:2]
        raise Killed

    with pytest.raises(Killed):
        TensorBoardSink(tmp_path, 256, cut_off())
    sink = TensorBoardSink(tmp_path, 256, history)
    sink.record(256, {NAME: 256.0})
    sink.close()
    assert curve(tmp_path) == [(step, float(step)) for step in (64, 128, 192, 256)]
    assert all(".tfevents." in file.name for file in tmp_path.iterdir()), "nothing is left over"
