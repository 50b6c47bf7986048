"""``vidur-ppo train`` as an operator runs it: in a terminal, with signals, a second time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COMMAND = str(Path(sys.executable).with_name("vidur-ppo"))
TINY = {
    "training": {"total_requests": 200, "episode_requests": 100},
    "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
    "ppo_config": {"rollout_len": 32, "minibatch_size": 16, "critic_warmup_updates": 1},
    "statistics_stabilization": {"collect_steps": 16},
    "checkpointing": {"checkpoint_interval": 25},
    "warmstart": {"demo_requests": 32, "epochs": 1, "load_levels": [1.0], "teachers": ["vllm_dp"]},
    "evaluation": {"enabled": False},
}


@pytest.fixture
def folder(tmp_path):
    """A working folder with a space and letters beyond ASCII in its name."""
    place = tmp_path / "mein Ordner äöü"
    place.mkdir()
    (place / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    return place


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "train", "--config", "tiny.json", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _hear_ctrl_c() -> None:
    """A shell that runs the tests in the background makes them, and all below, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def terminal(folder: Path, *arguments: str) -> pexpect.spawn:
    return pexpect.spawn(
        COMMAND,
        ["train", "--config", "tiny.json", *arguments],
        cwd=str(folder),
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 160),
        preexec_fn=_hear_ctrl_c,
    )


def finished(child: pexpect.spawn) -> int:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def run_folders(folder: Path) -> list[Path]:
    return sorted((folder / "outputs" / "warmstart_training_optimized").iterdir())


def manifest(folder: Path) -> dict[str, object]:
    latest = (folder / "outputs" / "checkpoints" / "latest.pt").resolve()
    return json.loads(latest.with_suffix(".json").read_text(encoding="utf-8"))


def tensorboard_steps(run_folder: Path, name: str = "Rollout/RewardMean") -> list[int]:
    events = EventAccumulator(str(run_folder / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


@pytest.fixture
def trained(folder):
    result = run(folder, "--resume", "never")
    assert result.returncode == 0, result.stderr
    return folder


def test_a_training_leaves_everything_behind(trained):
    (run_folder,) = run_folders(trained)
    names = {path.name for path in run_folder.iterdir()}
    assert {
        "ppo_training.log",
        "config.json",
        "tensorboard",
        "metrics",
        "demonstrations.npz",
        "pretrained_actor.pt",
        "policy.pt",
    } <= names
    assert manifest(trained)["global_step"] == 200


def test_tensorboard_counts_decisions(trained):
    (run_folder,) = run_folders(trained)
    # Statistics are collected for 16 decisions, every 32 further ones make an update.
    assert tensorboard_steps(run_folder) == [47, 79, 111, 143, 175]
    assert tensorboard_steps(run_folder, "tail_latency/latency_p99")[-1] == 200


def test_without_a_terminal_an_unanswered_question_is_an_error(trained):
    result = run(trained)
    assert result.returncode == 2
    for flag in ("--resume latest", "--resume PATH", "--resume never", "--resume auto"):
        assert flag in result.stderr
    assert len(run_folders(trained)) == 1


def test_answer_one_resumes(trained):
    child = terminal(trained, "--ppo-requests", "260")
    child.expect("A training can be resumed")
    child.expect("checkpoint_step_00000200.pt")
    child.expect(r"\[1/2/q\]")
    child.sendline("maybe")
    child.expect("'maybe' is none of 1, 2, q")
    child.sendline("1")
    assert finished(child) == 0
    assert manifest(trained)["global_step"] == 260
    (run_folder,) = run_folders(trained)
    log = (run_folder / "ppo_training.log").read_text(encoding="utf-8")
    assert "[Resume] PPO训练恢复" in log
    steps = tensorboard_steps(run_folder)
    assert steps == sorted(set(steps))
    assert steps[-1] > 200


def test_answer_two_starts_afresh_and_keeps_the_old_checkpoints(trained):
    child = terminal(trained)
    child.expect(r"\[1/2/q\]")
    child.sendline("2")
    assert finished(child) == 0
    assert len(run_folders(trained)) == 2
    assert list((trained / "outputs" / "checkpoints" / "archive").rglob("*_00000200.pt"))


def test_answer_q_leaves(trained):
    child = terminal(trained)
    child.expect(r"\[1/2/q\]")
    child.sendline("Q")
    child.expect("nothing was started")
    assert finished(child) == 0
    assert len(run_folders(trained)) == 1


def test_ctrl_c_at_the_question_leaves(trained):
    child = terminal(trained)
    child.expect(r"\[1/2/q\]")
    child.sendintr()
    assert finished(child) == 130
    assert len(run_folders(trained)) == 1


def test_end_of_input_at_the_question_leaves(trained):
    child = terminal(trained)
    child.expect(r"\[1/2/q\]")
    child.sendeof()
    child.expect("the input ended")
    assert finished(child) == 2


def test_ctrl_c_while_training_saves_and_resumes(folder):
    child = terminal(folder, "--ppo-requests", "100000", "--verbose")
    child.expect(r"checkpoint_step_\d+\.pt")
    child.sendintr()
    child.expect(r"stopped by SIGINT; saved .*checkpoint_step_")
    assert finished(child) == 130
    saved = manifest(folder)
    assert saved["reason"] == "signal"
    steps = str(saved["global_step"] + 50)
    assert run(folder, "--resume", "auto", "--ppo-requests", steps).returncode == 0
    assert manifest(folder)["global_step"] == int(steps)


def test_kill_9_loses_at_most_one_interval(folder):
    child = terminal(folder, "--ppo-requests", "100000", "--verbose")
    for _ in range(3):
        child.expect(r"checkpoint_step_\d+\.pt")
    os.kill(child.pid, signal.SIGKILL)
    child.expect(pexpect.EOF)
    child.close()
    assert child.signalstatus == signal.SIGKILL
    assert manifest(folder)["global_step"] >= 75
    steps = str(manifest(folder)["global_step"] + 50)
    assert run(folder, "--resume", "latest", "--ppo-requests", steps).returncode == 0
    assert manifest(folder)["global_step"] == int(steps)


def test_resume_latest_without_a_checkpoint_is_an_error(folder):
    result = run(folder, "--resume", "latest")
    assert result.returncode == 2
    assert "no complete checkpoint" in result.stderr


def test_a_used_output_folder_is_refused(trained):
    (run_folder,) = run_folders(trained)
    result = run(trained, "--resume", "never", "--output-dir", str(run_folder))
    assert result.returncode == 2
    assert "holds a run already" in result.stderr


def test_an_unusable_output_folder_is_named(folder):
    (folder / "file").write_text("in the way", encoding="utf-8")
    result = run(folder, "--resume", "never", "--output-dir", "file/run")
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
        (["--qps", "fast"], "--qps"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_wrong_command_line_ends_in_one_message(folder, arguments, message):
    result = run(folder, *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_quiet_prints_nothing_when_all_is_well(folder):
    result = run(folder, "--resume", "never", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
