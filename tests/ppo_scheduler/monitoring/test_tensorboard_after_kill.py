"""A process killed while it opens the events leaves the curves as they were."""

from __future__ import annotations

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


@given(clocks=st.lists(st.integers(10**9, 10**9 + 9), min_size=1, max_size=6))
def test_files_are_read_in_the_order_of_their_processes_whatever_the_clock_says(
    tmp_path_factory, clocks
):
    folder = tmp_path_factory.mktemp("events")
    names: list[str] = []
    for clock in clocks:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tensorboard.time, "time", lambda clock=clock: float(clock))
            TensorBoardSink(folder, None)
        [new] = {file.name for file in folder.iterdir()} - set(names)
        names.append(new)
    assert names == sorted(names)


def test_a_history_that_was_cut_off_is_written_again(tmp_path, monkeypatch):
    history = [(step, {NAME: float(step)}) for step in (64, 128, 192)]

    record = TensorBoardSink.record

    def killed_at_192(sink, step, scalars):
        if step == 192:
            raise Killed
        record(sink, step, scalars)

    monkeypatch.setattr(TensorBoardSink, "record", killed_at_192)
    with pytest.raises(Killed):
        TensorBoardSink(tmp_path, 256, history)
    monkeypatch.undo()
    sink = TensorBoardSink(tmp_path, 256, history)
    sink.record(256, {NAME: 256.0})
    sink.close()
    assert curve(tmp_path) == [(step, float(step)) for step in (64, 128, 192, 256)]
