"""``python -m vidur_ext.main`` as a process of its own, killed from outside."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

INTERVAL = 7


@contextmanager
def process(flags: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a training; whatever happens, it is gone and reaped behind the block."""
    with output.open("ab") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "vidur_ext.main", *flags],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def steps_in(folder: Path) -> set[int]:
    """Return the PPO steps of all checkpoints, complete or being written."""
    names = os.listdir(folder) if folder.exists() else []
    return {int(match[1]) for name in names if (match := re.search(r"_step_(\d+)", name))}


def wait_for_new_steps(running: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    """Return when so many steps have been, or are being, saved that were not there before."""
    before, seen = steps_in(folder), set[int]()
    ended = os.pidfd_open(running.pid)
    try:
        while len(seen) < count:
            # Waiting a moment for its end leaves the processor to the training.
            assert not select.select([ended], [], [], 0.001)[0], "it ended before the kill"
            seen |= steps_in(folder) - before
    finally:
        os.close(ended)


@pytest.mark.parametrize(
    "kills", [1, pytest.param(6, marks=pytest.mark.slow)], ids=lambda kills: f"{kills} kills"
)
def test_a_killed_process_of_its_own_loses_at_most_one_interval(
    make_experiment, uninterrupted, outcome_of, kills
):
    training = make_experiment("killed")
    folder, output = training.root / "checkpoints", training.root / "output.txt"
    dice = random.Random(kills)
    for _ in range(kills):
        before = training.newest_step
        with process(training.flags(), output) as running:
            wait_for_new_steps(running, folder, dice.randint(2, 4))
            for _ in range(dice.randrange(100)):
                steps_in(folder)
            running.send_signal(signal.SIGKILL)
            assert running.wait() == -signal.SIGKILL
        # A save begins at once with the decision that it is due at, so the names tell, to within
        # an interval, how far the training was: only the save that was cut off may be missing.
        assert before <= max(steps_in(folder)) - INTERVAL <= training.newest_step
        training.must_agree_with(uninterrupted(one_episode=False))
    with process(training.flags(), output) as running:
        assert running.wait() == 0, output.read_text(encoding="utf-8")
    assert output.read_text(encoding="utf-8").count("[Resume] PPO训练恢复") == kills
    outcome_of(training).must_equal(uninterrupted(one_episode=False))
