"""An offline W&B run continues under its id, and nothing leaves the run folder."""

from __future__ import annotations

import http.server
import os
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from ppo_scheduler.errors import UserError
from ppo_scheduler.monitoring.wandb_run import WandbSink, check_online


@pytest.fixture(autouse=True)
def no_home_settings(monkeypatch, tmp_path):
    wandb.teardown()  # it reads its settings once
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def open_sink(folder: Path, run_id: str | None = None, history=()) -> WandbSink:
    return WandbSink(
        folder, mode="offline", project="routing", name="night", run_id=run_id, history=history
    )


def records(file: Path) -> Iterator[Record]:
    """Yield what a run's file holds: a LevelDB log (7 bytes of header, then records of checksum,
    length, type and data) that fits into one block."""
    wandb.teardown()  # Its service writes the last bytes after the run has been closed.
    content = file.read_bytes()
    assert len(content) < 32_768
    position = 7
    while position < len(content):
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += 7
        assert kind == 1, "a whole record"
        record = Record()
        record.ParseFromString(content[position : position + length])
        yield record
        position += length


def logged(file: Path) -> list[dict[str, str]]:
    """Return the history rows in a run's file, values as JSON texts."""
    rows = []
    for record in records(file):
        if record.HasField("history"):
            items = record.history.item
            row = {item.key or ".".join(item.nested_key): item.value_json for item in items}
            rows.append({key: value for key, value in row.items() if not key.startswith("_")})
    return rows


def test_a_resume_continues_the_run_under_its_id(tmp_path):
    first = open_sink(tmp_path)
    first.record(128, {"Rollout/RewardMean": -0.5})
    first.close()
    second = open_sink(tmp_path, first.run_id)
    second.record(256, {"Rollout/RewardMean": -0.25})
    second.close()
    assert second.run_id == first.run_id
    files = sorted(tmp_path.rglob(f"run-{first.run_id}.wandb"))
    rows = [row for file in files for row in logged(file)]
    assert rows == [
        {"global_step": "128", "Rollout/RewardMean": "-0.5"},
        {"global_step": "256", "Rollout/RewardMean": "-0.25"},
    ]


def test_a_new_run_begins_with_the_history(tmp_path):
    sink = open_sink(tmp_path, history=[(64, {"Rollout/RewardMean": -1.5})])
    sink.close()
    (file,) = tmp_path.rglob(f"run-{sink.run_id}.wandb")
    assert logged(file) == [{"global_step": "64", "Rollout/RewardMean": "-1.5"}]


def test_files_go_below_the_run_folder(tmp_path):
    sink = open_sink(tmp_path / "run")
    sink.close()
    assert list((tmp_path / "run").rglob(f"run-{sink.run_id}.wandb"))


def test_online_without_a_login_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    with pytest.raises(UserError, match=r"W&B: .*wandb login.*offline or off"):
        WandbSink(tmp_path, mode="online", project="routing", name="night", run_id=None, history=())


@pytest.fixture
def server(monkeypatch):
    """W&B as far as it is asked here: somebody answers."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as answering:
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{answering.server_port}")
        yield
        answering.shutdown()


def test_who_is_logged_in_and_reaches_wandb_may_begin(server, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    check_online()


def test_a_missing_login_is_found_before_a_training_begins(server, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    with pytest.raises(UserError, match=r"W&B: .*wandb login.*offline or off"):
        check_online()


def test_an_address_that_nobody_answers_at_is_found_before_a_training_begins(monkeypatch):
    """Nobody listens at port 9 of this machine."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"W&B: http://127.0.0.1:9 cannot be reached .*refused"):
        check_online()


def test_a_service_that_was_killed_refuses_records_and_ends_nothing(tmp_path):
    wandb.teardown()  # the service of an earlier test
    before = children_of(os.getpid())
    sink = open_sink(tmp_path)
    [service] = children_of(os.getpid()) - before
    os.kill(service, signal.SIGKILL)
    lost: list[str] = []
    while not lost:  # what was sent before it was missed is gone
        try:
            sink.record(64, {"Rollout/RewardMean": -0.5})
        except UserError as error:
            lost.append(str(error))
    assert lost[0].startswith("W&B: ")
    with suppress(ConnectionError):
        wandb.teardown()


def children_of(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return {int(word) for word in text.split()}
