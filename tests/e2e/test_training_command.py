"""``vidur-ppo train`` as an operator runs it: what it leaves, signals, wrong command lines."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pexpect
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def tensorboard_steps(run_folder: Path, name: str = "Rollout/RewardMean") -> list[int]:
    events = EventAccumulator(str(run_folder / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_a_training_leaves_everything_behind(trained):
    [run_folder] = trained.runs
    names = {path.name for path in run_folder.iterdir()}
    assert {
        "ppo_training.log",
        "config.json",
        "tensorboard",
        "metrics",
        "demonstrations.npz",
        "warm_start.json",
        "pretrained_actor.pt",
        "policy.pt",
        "validation.json",
    } <= names
    assert trained.manifest["global_step"] == 120
    # Statistics are collected for 16 decisions, every 32 further ones make an update.
    assert tensorboard_steps(run_folder) == [47, 79, 111]
    assert tensorboard_steps(run_folder, "tail_latency/latency_p99")[-1] == 120


def test_a_resumed_training_goes_on_in_folder_log_and_curves(trained):
    result = trained.run("--resume", "auto", "--total-requests", "200")
    assert result.returncode == 0, result.stderr
    assert trained.manifest["global_step"] == 200
    [run_folder] = trained.runs
    assert "[Resume] PPO训练恢复" in trained.log()
    steps = tensorboard_steps(run_folder)
    assert steps == sorted(set(steps))
    assert steps[-1] > 120


def test_ctrl_c_while_training_saves_and_resumes(place, until, finished):
    child = place.terminal("--total-requests", "100000", "--skip-bc-training")
    until(lambda: 25 in place.steps, child)
    child.sendintr()
    child.expect(r"stopped by SIGINT; saved .*checkpoint_step_")
    assert finished(child)[0] == 130
    assert place.manifest["reason"] == "signal"
    total = place.manifest["global_step"] + 50
    assert place.run("--resume", "auto", "--total-requests", str(total)).returncode == 0
    assert place.manifest["global_step"] == total


def test_a_terminal_that_is_closed_lets_the_training_save(place, until):
    child = place.terminal("--total-requests", "100000", "--skip-bc-training")
    until(lambda: 25 in place.steps, child)
    os.close(child.child_fd)
    _, status = os.waitpid(child.pid, 0)
    child.terminated = True
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert place.manifest["reason"] == "signal"
    assert "ended: stopped by SIGHUP; saved " in place.log()


def test_ctrl_c_in_the_comparison_ends_it_at_once_and_says_how_to_judge_later(trained, finished):
    """Vidur would need minutes for the rest of what it is asked to repeat."""
    many = [f"--set=evaluation.{key}=200" for key in ("num_seeds", "vidur_workloads")]
    more = ("--resume", "latest", "--total-requests", "150", "--set=evaluation.enabled=true")
    child = trained.terminal(*more, *many)
    child.expect("Vidur repeats 200 of 200 workloads")
    child.sendintr()
    status, text = finished(child)
    assert status == 130
    said = "stopped by SIGINT; the training is saved: judge it with vidur-ppo compare --run outputs"
    assert said in " ".join(text.split())
    assert (trained.runs[0] / "policy.pt").exists()


@pytest.mark.slow
def test_kill_9_loses_at_most_one_interval(place, until, finished):
    child = place.terminal("--total-requests", "100000", "--skip-bc-training")
    until(lambda: bool(place.steps) and place.steps[-1] >= 75, child)
    os.kill(child.pid, signal.SIGKILL)
    assert finished(child)[0] == 128 + signal.SIGKILL
    total = place.manifest["global_step"] + 50
    assert total >= 125
    assert place.run("--resume", "latest", "--total-requests", str(total)).returncode == 0
    assert place.manifest["global_step"] == total


def test_resume_latest_without_a_checkpoint_is_an_error(place):
    result = place.run("--resume", "latest")
    assert result.returncode == 2
    assert "no complete checkpoint" in result.stderr


def test_a_used_output_folder_is_refused(trained):
    result = trained.run("--resume", "never", "--output-dir", str(trained.runs[0]))
    assert result.returncode == 2
    assert "holds a run already" in result.stderr


def test_an_unusable_output_folder_is_named(place):
    (place.path / "file").write_text("in the way", encoding="utf-8")
    result = place.run("--resume", "never", "--output-dir", "file/run")
    assert result.returncode == 2
    assert "cannot create the output folder" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "ppo_config.clip_ratoi=1"], "did you mean ppo_config.clip_ratio"),
        (
            ["--trace", "nowhere.csv", "--resume", "never"],
            "nowhere.csv: there is no such trace file",
        ),
        (["--quick-test"], "--quick-test brings its own config"),
        (["--force-warmstart", "--resume", "latest"], "contradicts"),
        (["--force-warmstart", "--skip-bc-training"], "contradicts"),
        (["--verbose", "--quiet"], "contradicts"),
        (["--chunk-size", "10"], "only with --chunk-mode"),
        (["--chunk-mode", "--total-requests", "9", "--ppo-requests", "5"], "are the same"),
        (["--chunk-mode", "--chunk-size", "0"], "--chunk-size"),
        (
            ["--chunk-mode", "--set", "checkpointing.enable_checkpoints=false"],
            "switch checkpoints on",
        ),
        (["--use-external"], "--external-pretrain PATH"),
        (["--qps", "fast"], "--qps"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_wrong_command_line_ends_in_one_message(place, arguments, message):
    result = place.run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (place.path / "outputs").exists()


def test_quiet_prints_nothing_when_all_is_well(place):
    rollout = ("--set", "checkpointing.checkpoint_interval=32")
    result = place.run("--skip-bc-training", "--quiet", "--total-requests", "60", *rollout)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.slow
def test_quiet_still_asks(trained, finished):
    child = trained.terminal("--quiet")
    child.expect(r"\[1/2/q\]")
    child.sendline("q")
    child.expect("nothing was started")
    child.expect(pexpect.EOF)
