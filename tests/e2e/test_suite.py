"""A suite as an operator runs it: killed, its training killed, stopped by Ctrl-C, started again.

Slow: its trainings are processes of their own that import torch and the simulators.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

CONFIG: dict[str, dict[str, object]] = {
    "training": {"total_requests": 1600},
    "warmstart": {"method": "imitation"},
    "evaluation": {"enabled": True, "requests": 64, "vidur_workloads": 0},
}
SUITE = ("suite", "--scenarios", "small.json", "--seeds", "2", "--processes", "2")


@pytest.fixture
def place(place):
    return place.configure(**CONFIG)


@pytest.fixture(scope="module")
def undisturbed(new_place):
    """A folder with a suite that was never interrupted."""
    place = new_place(**CONFIG)
    result = place.run_command(*SUITE)
    assert result.returncode == 0, result.stderr
    return place


def start(place) -> subprocess.Popen[str]:
    return place.start_command(*SUITE)


def cell(place, seed: int) -> Path:
    return place.path / "outputs" / "suite" / "small" / f"seed_{seed}"


def trains(place, seed: int = 0) -> bool:
    """Tell whether a cell has saved what can be gone on with."""
    return len(list(cell(place, seed).glob("checkpoints/checkpoint_step_*.pt"))) >= 2


def processes(place) -> list[int]:
    """Return the processes that work in the folder's cells."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line, folder = (entry / "cmdline").read_bytes(), os.readlink(entry / "cwd")
        except OSError:
            continue
        if b"vidur_ext.suite.cell" in line and folder == str(place.path):
            found.append(int(entry.name))
    return found


def results(place) -> dict:
    return json.loads((place.path / "outputs" / "suite" / "results.json").read_text())


def assert_ends_like(place, undisturbed) -> None:
    """Start again, to the end; the policies and the results are those of one go."""
    again = place.run_command(*SUITE)
    assert again.returncode == 0, again.stderr
    assert results(place) == results(undisturbed)
    for seed in (0, 1):
        ours, theirs = (
            torch.load(cell(one, seed) / "policy.pt", weights_only=True)["policy"]["network"]
            for one in (place, undisturbed)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "[Resume]" in (cell(place, 0) / "ppo_training.log").read_text()


def test_results_have_both_seeds_of_every_scheduler(undisturbed) -> None:
    found = results(undisturbed)["scenarios"]["small"]
    assert found.keys() >= {"ppo", "least_outstanding", "round_robin"}
    assert all(len(figures) == 2 for one in found.values() for figures in one.values())


def test_a_finished_suite_is_not_trained_again(undisturbed) -> None:
    before = undisturbed.files()
    assert undisturbed.run_command(*SUITE).returncode == 0
    after = undisturbed.files()
    trained = [path for path in before if "/small/" in path]
    assert trained
    assert [path for path in trained if before[path] != after[path]] == []


def test_a_killed_suite_takes_its_trainings_along_and_goes_on(place, undisturbed, until) -> None:
    suite = start(place)
    until(lambda: trains(place), suite)
    suite.kill()
    suite.communicate()
    # Without waiting: trainings that are still saving are waited for.
    assert_ends_like(place, undisturbed)
    assert processes(place) == []


def test_a_killed_training_fails_alone_and_goes_on(place, undisturbed, until) -> None:
    suite = start(place)
    until(lambda: trains(place), suite)
    [pid] = [
        pid for pid in processes(place) if b"seed_0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(pid, signal.SIGKILL)
    _, err = suite.communicate(timeout=120)
    assert suite.returncode == 2
    assert "1 of 2 trainings failed" in err
    assert "small, seed 0 was killed by SIGKILL" in err
    assert (cell(place, 1) / "comparison" / "comparison.json").exists()
    assert not (place.path / "outputs" / "suite" / "results.json").exists()
    assert_ends_like(place, undisturbed)


def test_ctrl_c_saves_and_says_how_to_go_on(place, undisturbed, until) -> None:
    suite = start(place)
    until(lambda: trains(place) and trains(place, 1), suite)
    suite.send_signal(signal.SIGINT)
    _, err = suite.communicate(timeout=120)
    assert suite.returncode == 130
    assert "stopped by SIGINT; 0 of 2 are done. Start again to go on" in err
    assert processes(place) == []
    assert_ends_like(place, undisturbed)
