"""A run tells how it is going by what it leaves, however it ended."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from typer.testing import CliRunner

from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.monitoring.run_log import run_log
from vidur_ext.cli import app
from vidur_ext.config.loading import dump_config
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.status import RunStatus, find_run, status_of

LATER = datetime(2100, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def begin(make_config, tmp_path):
    """Return a config whose run folder has begun, and the folder."""

    def run(name: str = "run", **groups: dict[str, object]):
        saving = {"checkpoint_interval": 50, **groups.pop("checkpointing", {})}
        config = make_config(checkpointing=saving, **groups)
        folder = RunFolder.at(tmp_path / name)
        folder.config.write_text(dump_config(config), encoding="utf-8")
        return config, folder

    return run


def test_a_finished_run(begin, train):
    config, folder = begin()
    saved_at = datetime.fromisoformat(train(config).newest.manifest.created_at)
    status = status_of(folder, saved_at + timedelta(hours=2))
    assert (status.state, status.decisions, status.total) == ("finished", 240, 240)
    assert status.eta_s is None
    assert status.checkpoint.manifest.ppo_step == 240
    assert status.checkpoint.age_s == 7200.0
    assert status.speed > 0
    assert status.metrics["tail_latency/latency_p99"] > 0
    assert "global_step" not in status.metrics


def test_a_stopped_run(begin, train, stop_at):
    config, folder = begin()
    stop_at(120)
    with pytest.raises(Interrupted):
        train(config)
    status = status_of(folder, LATER)
    assert (status.state, status.decisions) == ("stopped", 120)


def test_a_run_that_failed_on_an_error(begin, train, at_step):
    def fail(session):
        session.save_now("exception")
        raise KeyError("a bug")

    config, folder = begin()
    at_step(120, fail)
    with pytest.raises(KeyError):
        train(config)
    assert status_of(folder, LATER).state == "failed"


def test_a_killed_run_is_what_nobody_writes_and_nothing_ended(begin, train):
    config, folder = begin()
    trained = train(config)
    for info in trained.infos[-1:]:
        info.path.unlink()  # what a process that is killed has not written
    status = status_of(folder, LATER)
    assert (status.state, status.checkpoint.manifest.ppo_step) == ("killed", 200)


def test_a_running_one_is_what_a_process_logs_to(begin, train):
    config, folder = begin()
    train(config)
    with run_log(folder.log, "info"):
        assert status_of(folder, LATER).state == "running"
    assert status_of(folder, LATER).state == "finished"


def test_a_run_that_has_just_begun(begin):
    _, folder = begin()
    status = status_of(folder, LATER)
    assert (status.decisions, status.speed, status.checkpoint) == (0, None, None)
    assert status.metrics == {}


def test_checkpoints_of_other_runs_do_not_count(begin, train):
    train(begin("first")[0], "first")
    _, second = begin("second")
    assert status_of(second, LATER).checkpoint is None


def test_the_time_left_follows_from_the_measured_speed(begin):
    _, folder = begin()
    status = RunStatus(folder.path, "running", 100, 240, 20.0, {}, None, None)
    assert status.eta_s == 7.0


def test_the_newest_run_is_found(begin, tmp_path):
    for name in ("kind/run_1", "other/run_2"):
        begin(name)
    assert find_run(tmp_path).path == tmp_path / "other" / "run_2"
    assert find_run(tmp_path / "kind" / "run_1").path == tmp_path / "kind" / "run_1"


def test_without_a_training_there_is_nothing_to_look_at(tmp_path):
    with pytest.raises(UserError, match="there is no training to look at"):
        find_run(tmp_path)


def test_the_command_prints_json_and_a_page(begin, train):
    config, folder = begin()
    train(config)
    shown = CliRunner().invoke(app, ["monitor", str(folder.path), "--json"])
    document = json.loads(shown.output)
    assert (document["state"], document["decisions"]) == ("finished", 240)
    assert document["checkpoint"]["reason"] == "end"
    page = CliRunner().invoke(app, ["monitor", str(folder.path), "-v"]).output
    assert "240 of 240 (100%)" in page
    assert "regret" in page  # of choices that were priced


def test_watching_ends_with_the_training(begin, train):
    config, folder = begin()
    train(config)
    shown = CliRunner().invoke(app, ["monitor", str(folder.path), "-w", "60"])
    assert shown.exit_code == 0
    assert "finished" in shown.output
