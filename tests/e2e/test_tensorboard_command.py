"""``vidur-ppo tensorboard`` serves on a free port, says where, and ends with Ctrl-C."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request

import pexpect
import pytest

from ppo_scheduler.monitoring.tensorboard import TensorBoardSink


@pytest.fixture
def runs(tmp_path):
    """A folder of one run, with a space and letters beyond ASCII in its name."""
    folder = tmp_path / "Läufe und mehr"
    sink = TensorBoardSink(folder / "run_1" / "tensorboard", None)
    for step in (128, 256):
        sink.record(step, {"Rollout/RewardMean": -0.5})
    sink.close()
    return folder


def test_it_serves_the_runs_until_ctrl_c(place, runs):
    child = place.with_scripts().script("tensorboard.sh", str(runs))
    child.expect(r"http://127\.0\.0\.1:(\d+)/")
    port = int(child.match[1])
    url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars"
    query = f"{url}?run=run_1%2Ftensorboard&tag=Rollout%2FRewardMean"
    for _ in range(100):  # its first look at the folder takes a moment
        try:
            with urllib.request.urlopen(query) as answer:
                points = json.load(answer)
            break
        except urllib.error.HTTPError:
            continue
    assert [(step, value) for _, step, value in points] == [(128, -0.5), (256, -0.5)]
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    with socket.create_server(("127.0.0.1", port)):
        """The port is free again."""


@pytest.fixture
def refused(place):
    def run(*arguments: str) -> str:
        done = place.run_command("tensorboard", *arguments)
        assert done.returncode == 2
        return re.sub(r"\s+", " ", done.stderr)

    return run


def test_a_port_that_is_taken_is_left_alone(runs, refused):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert "cannot listen there" in refused(str(runs), "--port", str(port))


def test_a_folder_that_is_not_there_is_named(refused, tmp_path):
    assert "there is no such folder" in refused(str(tmp_path / "none"))
