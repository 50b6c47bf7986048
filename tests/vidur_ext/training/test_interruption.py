"""What signals ask for, as often as they come."""

from __future__ import annotations

import os
import signal

import pytest

from ppo_scheduler.errors import Interrupted
from vidur_ext.training.signals import SignalRequests


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.fixture
def signals():
    requests = SignalRequests()
    with requests.listening():
        yield requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_stop_is_noted_and_interrupts_nothing(signals, number):
    send(number)
    assert signals.stop == number


def test_a_repeated_sigterm_changes_nothing(signals):
    """The kernel sends several when a parent of several threads is killed; the save must go on."""
    send(signal.SIGTERM, signal.SIGTERM, signal.SIGTERM)
    assert signals.stop == signal.SIGTERM


def test_a_sigterm_behind_ctrl_c_changes_nothing(signals):
    send(signal.SIGINT, signal.SIGTERM)
    assert signals.stop == signal.SIGINT


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_behind_a_stop_ends_the_program_where_it_is(signals, first):
    send(first)
    with pytest.raises(Interrupted, match="SIGINT"):
        send(signal.SIGINT)


def test_a_save_is_asked_for_once(signals):
    send(signal.SIGUSR1)
    assert [signals.take_save(), signals.take_save()] == [True, False]
    assert signals.stop is None


def test_afterwards_the_signals_are_handled_as_before():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    with SignalRequests().listening():
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before
