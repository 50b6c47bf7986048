"""Every monitoring key shows in what a training writes."""

from __future__ import annotations

import csv
import logging

import numpy as np
import pytest
import wandb

from ppo_scheduler.monitoring.run_log import run_log
from ppo_scheduler.parallel.shards import OneProcess
from vidur_ext.run_folder import RunFolder
from vidur_ext.training.instruments import Instruments, open_instruments


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.at(tmp_path / "run")


@pytest.fixture
def open_with(make_config, folder):
    """Open the instruments of a small training with some monitoring keys."""

    def open_(saved=None, same_run: bool = True, num_replicas: int = 3, to=folder, **keys: object):
        step = None if saved is None else 1000
        config = make_config(monitoring=keys)
        return open_instruments(
            config, to, num_replicas, step, saved, same_run=same_run, processes=OneProcess()
        )

    return open_


def complete(instruments: Instruments, latencies_s) -> list[str]:
    alerts = [instruments.tail.add(np.array([[e2e_s, e2e_s / 2]])) for e2e_s in latencies_s]
    return [alert for alert in alerts if alert is not None]


def last_row(folder: RunFolder) -> dict[str, str]:
    with (folder.metrics / "training.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))[-1]


@pytest.mark.shows("monitoring.tensorboard", "monitoring.csv")
@pytest.mark.parametrize("tensorboard", [False, True])
@pytest.mark.parametrize("csv_file", [False, True])
def test_tensorboard_and_csv_are_written_where_asked(open_with, folder, tensorboard, csv_file):
    with open_with(tensorboard=tensorboard, csv=csv_file) as instruments:
        instruments.record(32, {"Rollout/RewardMean": -0.5})
    assert bool(list(folder.path.rglob("events.out.tfevents.*"))) == tensorboard
    assert (folder.metrics / "training.csv").exists() == csv_file


def test_a_record_carries_what_only_the_simulation_knows(open_with, folder):
    with open_with(tensorboard=False) as instruments:
        complete(instruments, [4.0] * 10)
        instruments.checkpoint_seconds = 0.25
        instruments.record(32, {"Rollout/RewardMean": -0.5})
    row = last_row(folder)
    assert (row["global_step"], row["Rollout/RewardMean"]) == ("32", "-0.5")
    assert (row["tail_latency/latency_p99"], row["tail_latency/ttft_p50"]) == ("4.0", "2.0")
    assert (row["curriculum/Stage"], row["curriculum/QpsScale"]) == ("0.0", "1.0")
    assert row["Speed/CheckpointSeconds"] == "0.25"


@pytest.mark.shows("monitoring.tail_window")
@pytest.mark.parametrize(("window", "median"), [(10, "9.0"), (40, "1.0")])
def test_tail_window_is_what_percentiles_look_back_on(open_with, folder, window, median):
    with open_with(tensorboard=False, tail_window=window) as instruments:
        complete(instruments, [1.0] * 30 + [9.0] * 10)
        instruments.record(32, {"Rollout/RewardMean": -0.5})
    assert last_row(folder)["tail_latency/latency_p50"] == median


@pytest.mark.shows("monitoring.tail_alert_s")
@pytest.mark.parametrize(("threshold", "count"), [(5.0, 1), (10.0, 0)])
def test_tail_alert_s_is_where_the_alert_begins(open_with, threshold, count):
    with open_with(tensorboard=False, csv=False, tail_alert_s=threshold) as instruments:
        assert len(complete(instruments, [9.0] * 100)) == count


@pytest.mark.shows("monitoring.log_level")
@pytest.mark.parametrize("level", ["info", "warning"])
def test_log_level_is_what_the_log_holds(make_config, folder, level):
    with run_log(folder.log, make_config(monitoring={"log_level": level}).monitoring.log_level):
        logging.getLogger("ppo").info("detail")
    assert ("detail" in folder.log.read_text(encoding="utf-8")) == (level == "info")


@pytest.mark.shows("monitoring.progress_bar")
@pytest.mark.parametrize("enabled", [False, True])
def test_progress_bar_is_drawn_where_asked(open_with, monkeypatch, capsys, enabled):
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich then takes standard error for a terminal.
    with open_with(tensorboard=False, csv=False, progress_bar=enabled) as instruments:
        instruments.record(32, {"Rollout/RewardMean": -0.5})
        instruments.record_end(240)
    assert ("240/240 decisions" in capsys.readouterr().err) == enabled


def test_the_tail_is_part_of_the_state(open_with):
    with (
        open_with(tensorboard=False, csv=False) as saved,
        open_with(tensorboard=False, csv=False) as restored,
    ):
        complete(saved, range(20))
        restored.load_state_dict(saved.state_dict())
        assert restored.tail.scalars() == saved.tail.scalars()


def saved_by(open_with, **keys):
    """Return the state of instruments that recorded one update."""
    with open_with(**keys) as instruments:
        instruments.record(32, {"Rollout/RewardMean": -0.5})
        return instruments.state_dict()


def test_a_new_folder_gets_the_history_of_a_resumed_training(open_with, tmp_path):
    saved = saved_by(open_with, tensorboard=False)
    elsewhere = RunFolder.at(tmp_path / "elsewhere")
    with open_with(saved, to=elsewhere, tensorboard=False):
        pass
    assert last_row(elsewhere)["Rollout/RewardMean"] == "-0.5"


def test_a_training_without_history_goes_on_with_the_file_it_finds(open_with, folder):
    saved = {**saved_by(open_with, tensorboard=False), "history": None}
    with open_with(saved, tensorboard=False):
        pass
    assert last_row(folder)["Rollout/RewardMean"] == "-0.5"


@pytest.mark.shows("monitoring.wandb")
@pytest.mark.parametrize("same_run", [False, True])
def test_wandb_continues_its_run_unless_the_training_is_forked(open_with, folder, same_run):
    keys = {"tensorboard": False, "csv": False, "wandb": "offline", "wandb_project": "routing"}
    saved = saved_by(open_with, **keys)
    with open_with(saved, same_run=same_run, **keys) as instruments:
        assert (instruments.state_dict()["wandb_run"] == saved["wandb_run"]) == same_run
    assert len(list(folder.path.glob("wandb/offline-run-*"))) == 2


def test_wandb_is_off_by_default(open_with, folder):
    assert saved_by(open_with)["wandb_run"] is None
    assert not (folder.path / "wandb").exists()


@pytest.mark.shows("monitoring.wandb_name", "monitoring.wandb_group", "monitoring.wandb_tags")
@pytest.mark.parametrize(
    ("key", "value"),
    [("wandb_name", "by name"), ("wandb_group", "seeds of a night"), ("wandb_tags", ("bursty",))],
)
def test_wandb_run_is_named_grouped_and_tagged(open_with, folder, key, value):
    saved_by(open_with, tensorboard=False, wandb="offline", **{key: value})
    wandb.teardown()
    (file,) = folder.path.rglob("*.wandb")
    said = value if isinstance(value, str) else value[0]
    assert said.encode() in file.read_bytes()


@pytest.mark.shows("monitoring.wandb_id")
def test_wandb_id_is_the_runs_that_is_begun_or_continued(open_with, folder):
    keys = {"tensorboard": False, "csv": False, "wandb": "offline", "wandb_id": "night_7"}
    assert saved_by(open_with, **keys)["wandb_run"] == "night_7"
    wandb.teardown()
    (file,) = folder.path.rglob("run-night_7.wandb")
    assert b"RewardMean" in file.read_bytes()


@pytest.mark.shows("monitoring.wandb_project")
def test_wandb_project_is_what_the_run_belongs_to(open_with, folder):
    saved_by(open_with, tensorboard=False, wandb="offline", wandb_project="night shift")
    wandb.teardown()  # Its service writes the last bytes after the run has been closed.
    (file,) = folder.path.rglob("*.wandb")
    assert b"night shift" in file.read_bytes()
