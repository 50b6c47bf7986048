"""The saver: training goes on while a checkpoint is written, and although one fails."""

from __future__ import annotations

import errno
import logging
import threading

import pytest
import torch

from ppo_scheduler import state_file
from ppo_scheduler.checkpoint import store as store_module
from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.saver import Saver, SavesFailed

BACKGROUND = pytest.mark.parametrize("background", [True, False], ids=["async", "sync"])


class Training:
    """Weights that change in place, as an optimizer changes them."""

    def __init__(self) -> None:
        self.weights = torch.zeros(3, 2)
        self.step = 0

    def go_on(self) -> None:
        self.weights += 1.0
        self.step += 1

    def state(self):
        return {"weights": self.weights, "counters": {"ppo_step": self.step}}

    def describe(self) -> Description:
        return Description(
            ppo_step=self.step,
            global_step=self.step,
            reason="interval",
            run_dir="runs/a",
            config_digest="d" * 64,
            num_replicas=4,
            val_score=None,
            versions={},
            facts={},
            settings={},
        )

    def save(self, saver: Saver) -> None:
        saver.save(self.state, self.describe())


class Gate:
    """Holds back every save, before it looks at its tree, until it is opened."""

    def __init__(self, patch) -> None:
        self.entered, self._opened = threading.Event(), threading.Event()
        real = state_file.dump

        def held(tree):
            self.entered.set()
            assert self._opened.wait(30)
            return real(tree)

        patch.setattr(state_file, "dump", held)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open()


@pytest.fixture
def refusing(monkeypatch):
    """Return a set of steps that the disk refuses to store."""
    steps: set[int] = set()
    real = store_module.publish

    def publish(folder, name, *arguments):
        if name.step in steps:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(folder, name, *arguments)

    monkeypatch.setattr(store_module, "publish", publish)
    return steps


def test_training_goes_on_and_what_is_saved_is_the_state_at_the_call(stores, gate):
    training = Training()
    with Saver(stores.open(), background=True) as saver:
        training.go_on()
        training.save(saver)
        assert gate.entered.wait(30)
        training.go_on()
        assert stores.steps() == []
        gate.open()
        saver.wait()
        assert stores.steps() == [1]
        assert stores.latest_step() == 1, "weights and counters tell the step of the call"


@BACKGROUND
def test_every_save_of_a_training_is_there(stores, background):
    training = Training()
    with Saver(stores.open(), background=background) as saver:
        for _ in range(4):
            training.go_on()
            training.save(saver)
    assert stores.steps() == [1, 2, 3, 4]
    assert stores.latest_step() == 4
    assert saver.saved == 4


def test_without_a_background_it_is_on_the_disk_when_save_returns(stores):
    training = Training()
    with Saver(stores.open(), background=False) as saver:
        training.save(saver)
        assert stores.steps() == [0]


def test_the_next_save_waits_for_the_one_under_way(stores, gate):
    training, calls = Training(), []

    def state():
        calls.append(stores.steps())
        return training.state()

    with Saver(stores.open(), background=True) as saver:
        training.save(saver)
        assert gate.entered.wait(30)
        threading.Thread(target=gate.open).start()
        training.go_on()
        saver.save(state, training.describe())
    assert calls == [[0]], "the first one is on the disk before the second state is taken"
    assert stores.steps() == [0, 1]


@BACKGROUND
def test_save_now_returns_the_path_of_what_is_durable(stores, background):
    training = Training()
    with Saver(stores.open(), background=background) as saver:
        training.save(saver)
        training.go_on()
        path = saver.save_now(training.state, training.describe())
        assert path == stores.folder / "checkpoint_step_00000001.pt"
        assert stores.steps() == [0, 1]


@BACKGROUND
def test_a_failed_save_is_told_and_training_goes_on(stores, refusing, background, caplog):
    training = Training()
    refusing.add(1)
    with (
        caplog.at_level(logging.WARNING),
        Saver(stores.open(), background=background) as saver,
    ):
        for _ in range(3):
            training.save(saver)
            training.go_on()
    assert stores.steps() == [0, 2], "the earlier one is untouched, the next one succeeds"
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "saving PPO step 1 failed" in record.getMessage()
    assert "No space left" in record.getMessage()
    assert (len(saver.failed), saver.saved) == (1, 2)
    with pytest.raises(SavesFailed, match=r"1 of 3 saves failed; .*No space left"):
        saver.raise_failures()


def test_a_failed_save_now_returns_nothing(stores, refusing):
    training = Training()
    refusing.add(0)
    with Saver(stores.open(), background=True) as saver:
        assert saver.save_now(training.state, training.describe()) is None
    assert len(saver.failed) == 1


def test_without_failures_nothing_is_raised(stores):
    training = Training()
    with Saver(stores.open(), background=True) as saver:
        training.save(saver)
    saver.raise_failures()


@pytest.mark.parametrize("ending", ["wait", "exit", "next save"])
def test_a_bug_in_the_background_is_not_lost(stores, ending):
    training = Training()
    saver = Saver(stores.open(), background=True)
    saver.save(lambda: {"weights": {1, 2}}, training.describe())
    end = {
        "wait": saver.wait,
        "exit": lambda: saver.__exit__(None, None, None),
        "next save": lambda: training.save(saver),
    }
    with pytest.raises(TypeError, match="not a state tree"):
        end[ending]()


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_saver(stores):
    def train_into_an_error():
        with Saver(stores.open(), background=True) as saver:
            saver.save(lambda: {"weights": {1, 2}}, Training().describe())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_into_an_error()


def test_leaving_waits_for_what_is_under_way(stores, gate):
    training = Training()
    with Saver(stores.open(), background=True) as saver:
        training.save(saver)
        assert gate.entered.wait(30)
        threading.Thread(target=gate.open).start()
    assert stores.steps() == [0]
