"""``vidur-ppo monitor`` in a terminal, once by its script: how a training goes, however it ended.

A training is held by SIGSTOP where it is looked at. What is on the disk then, copied, is what
SIGKILL would have left.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

SCRIPT = "monitor_training.sh"


def state(page: str) -> str:
    """Return the state that a page, or the last one of several, shows."""
    return re.findall(r"^state +(\w+) *$", page, re.MULTILINE)[-1]


def child_of(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.fixture
def place(place):
    """A project whose trainings begin at once, in a folder with a space and umlauts."""
    return place.configure(warmstart={"enabled": False}).with_scripts()


@pytest.fixture
def begun(place, until, hold):
    """Start a training that never comes to its end by itself, and hold it behind two updates."""
    begun = []

    def begin(*arguments: str, chunks: bool = False):
        process = place.start(*arguments)
        begun.append(process)
        until(lambda: max(place.steps, default=0) >= 100, process)
        hold(process, *([child_of(process.pid)] if chunks else []))
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


@pytest.fixture
def shown(place, read):
    """Return what the script shows."""

    def show(*arguments: str) -> str:
        status, text = read(place.command("monitor", *arguments))
        assert status == 0, text
        return text

    return show


def test_a_training_is_watched_from_running_to_stopped(place, begun, shown, read, tmp_path):
    training = begun("--total-requests", "100000")

    document = json.loads(shown("--json"))
    done, speed = document["decisions"], document["decisions_per_second"]
    assert (document["state"], document["total_requests"]) == ("running", 100000)
    assert 100 <= done < 100000
    assert document["eta_s"] == pytest.approx((100000 - done) / speed)
    assert document["checkpoint"]["global_step"] >= 100
    assert document["metrics"]["Rollout/RewardMean"] < 0
    assert document["progress"] is None

    page = shown("-v")
    assert state(page) == "running"
    assert str(place.runs[0].relative_to(place.path)) in page
    for line in (f"decisions +{done} of 100000", r"left +\S", r"entropy +\d", r"reward +-\d"):
        assert re.search(rf"^{line}", page, re.MULTILINE), line
    assert place.log().splitlines()[-1] in " ".join(page.split())

    dead = place.copy_to(tmp_path / "nach kill -9")
    assert state(shown(str(dead.runs[0]))) == "killed"

    before = place.files()
    watch = place.command("monitor", "-w", "1000")
    watch.expect("running")
    watch.sendintr()
    status, text = read(watch)
    assert (status, "stopped by SIGINT; the training was only watched" in text) == (130, True)
    assert place.files() == before

    watch = place.command("monitor", "-w", "0.1")
    watch.expect("running")
    training.terminate()
    training.send_signal(signal.SIGCONT)
    status, text = read(watch)
    assert (status, state(text)) == (0, "stopped")
    assert "reason: signal" in text


def test_a_training_in_chunks_is_watched_from_running_to_failed(
    place, begun, shown, read, tmp_path
):
    driver = begun("--chunk-mode", "--chunk-size", "2000", "--total-requests", "6000", chunks=True)

    document = json.loads(shown("--json"))
    progress = document["progress"]
    assert (document["state"], document["total_requests"]) == ("running", 6000)
    left = (6000 - document["decisions"]) / document["decisions_per_second"]
    assert document["eta_s"] == pytest.approx(left)
    assert [chunk["status"] for chunk in progress["chunks"]] == ["running", "pending", "pending"]

    page = shown("-v", str(place.progress_file))
    assert state(page) == "running"
    for line in (r"chunks +0 of 3", r"left +\S", r".*1 .* running .* 2000 .* chunk_1\.log"):
        assert re.search(rf"^{line}", page, re.MULTILINE), line

    dead = place.copy_to(tmp_path / "nach kill -9")
    assert state(shown(str(dead.runs[0].parent))) == "killed"

    os.kill(child_of(driver.pid), signal.SIGKILL)
    driver.send_signal(signal.SIGCONT)
    driver.communicate(timeout=60)
    page = shown(str(place.path / "outputs"))
    assert state(page) == "failed"
    assert re.search(r"^error +.*SIGKILL", page, re.MULTILINE)


def test_a_finished_training(trained, read):
    status, page = read(trained.with_scripts().script(SCRIPT))
    assert (status, state(page)) == (0, "finished")
    assert "120 of 120 (100%)" in page
    assert "reason: end" in page
    assert "left " not in page


def test_a_training_that_ended_is_not_watched_any_longer(trained, read):
    status, page = read(trained.with_scripts().command("monitor", "-w", "1000"))
    assert (status, state(page)) == (0, "finished")


def test_where_nothing_is_yet_it_says_what_to_name(place, read):
    status, text = read(place.command("monitor"))
    assert status == 2
    assert "error: outputs: there is no training to look at; name a run folder" in text
    assert "Traceback" not in text
    assert not (place.path / "outputs").exists()


def test_json_is_printed_once(place, read):
    status, text = read(place.command("monitor", "--json", "-w", "1"))
    assert (status, "leave out --watch" in text) == (2, True)
