"""A run tells how it is going by what it leaves, however it ended."""

from __future__ import annotations

import json
import logging
import os
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
        folder.log.touch()
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


@pytest.mark.parametrize("saves", [True, False])
def test_a_finished_run_is_known_from_any_folder(begin, train, monkeypatch, tmp_path, saves):
    monkeypatch.chdir(tmp_path)
    config, folder = begin(checkpointing={"checkpoint_dir": "./saved", "enable_checkpoints": saves})
    train(config)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status = status_of(folder, LATER)
    assert status.state == "finished"
    assert (status.checkpoint is not None) == saves


def test_a_moved_run_has_the_checkpoints_that_moved_with_it(begin, train, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config, _ = begin("here/run", checkpointing={"checkpoint_dir": "./saved"})
    train(config, "here/run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").rename(tmp_path / "there")
    status = status_of(RunFolder(tmp_path / "there" / "run"), LATER)
    assert status.checkpoint.path.parent == tmp_path / "there" / "saved"


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
    folder.write_record(folder.record.model_copy(update={"policy_of": None}))
    status = status_of(folder, LATER)
    assert (status.state, status.checkpoint.manifest.ppo_step) == ("killed", 200)


def test_a_trained_run_that_a_process_logs_to_is_comparing(begin, train):
    config, folder = begin()
    train(config)
    with run_log(folder.log, "info"):
        assert status_of(folder, LATER).state == "comparing"  # all is trained
    assert status_of(folder, LATER).state == "finished"


def test_a_process_that_has_not_trained_all_is_running_and_says_where_it_is(begin):
    _, folder = begin()
    with run_log(folder.log, "info"):
        logging.getLogger("ppo").info("collecting demonstrations")
        status = status_of(folder, LATER)
        assert (status.state, status.last_line) == ("running", "collecting demonstrations")
        page = CliRunner().invoke(app, ["monitor", str(folder.path)]).output
    assert "collecting demonstrations" in page


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


def test_the_newest_run_is_of_any_config(begin, tmp_path):
    """Scenarios and the quick test have an output root of their own below the default one."""
    begin("kind/run_1")
    _, scenario = begin("scenario/kind/run_0")
    _, named = begin("by_hand/mine")
    os.utime(scenario.log, (4e9, 4e9))
    assert find_run(tmp_path).path == scenario.path
    os.utime(named.log, (5e9, 5e9))
    assert find_run(tmp_path).path == named.path


def test_what_is_no_training_is_not_found(begin, tmp_path):
    for place in ("pretraining/run_2", "scheduler_comparison/run_3/simulator/2030"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "config.json").write_text("{}")
    with pytest.raises(UserError, match="there is no training to look at"):
        find_run(tmp_path)


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
