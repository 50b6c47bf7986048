"""A run goes on with its own settings, but for what was changed on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.runs.resumed_config import CommandLine, Resumed, config_of_file, resumed_config


@pytest.fixture
def file(tmp_path):
    """Write a config file; return its path."""

    def write(name: str = "my.json", **groups: dict[str, object]) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(groups), encoding="utf-8")
        return path

    return write


def gone_on(then: Path, flags_then: tuple[str, ...], now: Path | None, *flags: str) -> Resumed:
    """Begin with one command line and go on with another."""
    begun = load_config(then, flags_then)
    present = load_config(now, flags)
    said = CommandLine(now, flags)
    return resumed_config(begun.settings(), present, said, config_of_file(then))


def test_flags_that_were_left_out_today_still_count(file):
    path = file(workload={"qps": 20.0})
    then = ("cluster.num_replicas=8", "workload.qps=40")
    resumed = gone_on(path, then, path, "training.total_requests=5000000")
    assert resumed.config == load_config(path, [*then, "training.total_requests=5000000"])
    assert resumed.kept == (
        "cluster.num_replicas: 8 as the run has it; 4 in the config, not taken over",
        "workload.qps: 40.0 as the run has it; 20.0 in the config, not taken over",
    )


def test_without_a_file_named_the_programs_own_says_nothing(file):
    path = file(workload={"qps": 20.0}, cluster={"num_replicas": 8})
    resumed = gone_on(path, (), None)
    assert resumed.config == load_config(path)


def test_what_the_file_says_otherwise_than_then_counts(file):
    before = file("before.json", workload={"qps": 20.0}, ppo_config={"clip_ratio": 0.3})
    after = file("after.json", workload={"qps": 20.0}, ppo_config={"clip_ratio": 0.1})
    resumed = gone_on(before, ("workload.qps=40",), after)
    assert resumed.config.ppo_config.clip_ratio == 0.1
    assert resumed.config.workload.qps == 40.0


def test_what_is_said_today_wins(file):
    path = file()
    resumed = gone_on(path, ("workload.qps=40",), path, "workload.qps=25")
    assert resumed.config.workload.qps == 25.0
    assert resumed.kept == ()


def test_places_and_beginnings_are_those_of_today(file):
    today = ("training.output_root=there", "checkpointing.checkpoint_dir=there/ck")
    path = file()
    resumed = gone_on(
        path, ("training.output_root=here", "checkpointing.resume_step=3"), path, *today
    )
    assert resumed.config == load_config(path, today)


def test_keys_the_run_did_not_know_have_todays_values():
    settings = TrainingConfig().settings()
    del settings["workload.qps"]
    present = load_config(None, ["workload.qps=7"])
    assert resumed_config(settings, present, CommandLine(), None).config.workload.qps == 7.0
    unknown = {**settings, "gone.key": 1, "inputs.trace": "abc"}
    assert resumed_config(unknown, present, CommandLine(), None).config == present


def test_a_run_without_recorded_settings_has_todays():
    present = load_config(None, ["workload.qps=7"])
    assert resumed_config({}, present, CommandLine(), None) == Resumed(present)


def test_what_is_no_config_together_is_refused(file):
    path = file()
    with pytest.raises(UserError, match="rollout_len=30000 is no multiple"):
        gone_on(
            path,
            ("ppo_config.rollout_len=30000", "parallel_training.num_envs=100"),
            path,
            "parallel_training.num_envs=64",
            "training.total_requests=6400000",
        )
