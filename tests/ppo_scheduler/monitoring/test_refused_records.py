"""What a sink refuses for a while it gets later, in order; the others get everything at once."""

from __future__ import annotations

import logging

import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.monitoring.scalars import FanOut


class Sink:
    """Takes records unless it is told to refuse them."""

    def __init__(self) -> None:
        self.refuses = False
        self.steps: list[int] = []
        self.closed = False

    def record(self, global_step: int, scalars: dict[str, float]) -> None:
        if self.refuses:
            raise UserError(f"no room for {global_step}")
        self.steps.append(global_step)

    def close(self) -> None:
        self.closed = True
        if self.refuses:
            raise UserError("no room to close")


@pytest.fixture
def sinks():
    return Sink(), Sink()


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, "ppo")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def record(fan_out: FanOut, *steps: int) -> None:
    for step in steps:
        fan_out.record(step, {})


def test_an_outage_costs_no_record_and_is_told_once(sinks, told):
    broken, whole = sinks
    fan_out = FanOut(sinks)
    record(fan_out, 1)
    broken.refuses = True
    record(fan_out, 2, 3, 4)
    assert (broken.steps, whole.steps) == ([1], [1, 2, 3, 4])
    broken.refuses = False
    record(fan_out, 5)
    assert broken.steps == [1, 2, 3, 4, 5]
    assert told() == [
        ("WARNING", "no room for 2; training goes on and tries again"),
        ("INFO", "metrics are written again, with all of the time between"),
    ]
    fan_out.close()
    fan_out.raise_losses()


def test_what_waits_at_the_end_is_tried_once_more(sinks):
    broken, _ = sinks
    fan_out = FanOut(sinks)
    broken.refuses = True
    record(fan_out, 1, 2)
    broken.refuses = False
    fan_out.close()
    assert broken.steps == [1, 2]
    fan_out.raise_losses()


def test_what_was_never_taken_is_counted_with_the_cause(sinks):
    broken, whole = sinks
    fan_out = FanOut(sinks)
    record(fan_out, 1)
    broken.refuses = True
    record(fan_out, 2, 3)
    fan_out.close()
    assert (broken.closed, whole.closed) == (True, True)
    with pytest.raises(UserError, match=r"2 records were not written; no room for 2\n.*a resume"):
        fan_out.raise_losses()
