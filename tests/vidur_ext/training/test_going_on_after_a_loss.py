"""A training whose other processes are lost goes on by itself, as often as it may."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from bits import bits

from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.parallel.process_group import ProcessLost
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import Owner, RunFolder
from vidur_ext.training.session import TrainingSession
from vidur_ext.training.train import Job, run_training

INTERVAL, STEPS = 7, 60


@pytest.fixture
def config(make_config, tmp_path):
    """Return a small training in a folder, with so many processes and restarts."""

    def build(name: str, **parallel: int) -> TrainingConfig:
        return make_config(
            training={"total_requests": 4 * STEPS, "episode_requests": 40},
            ppo_config={"rollout_len": 64, "minibatch_size": 8, "counterfactual_share": 0.25},
            statistics_stabilization={"collect_steps": 64},
            checkpointing={
                "checkpoint_dir": str(tmp_path / name / "checkpoints"),
                "checkpoint_interval": INTERVAL,
                "validation_freq": None,
            },
            monitoring={"tensorboard": False, "progress_bar": False},
            warmstart={"enabled": False},
            parallel_training={"num_envs": 4, **parallel},
        )

    return build


def trained(config: TrainingConfig, folder: Path) -> RunFolder:
    """Train as the owner of a run does."""
    return run_training(Job(config, run_dir=str(folder), owner=Owner(None)))


def end_of(config: TrainingConfig) -> dict[str, object]:
    return bits(CheckpointStore(config.checkpointing).load("latest").tree)


def lose(at_step, step: int, times: int) -> None:
    """Let the others be lost at a step, so many times."""

    def lost(session: TrainingSession) -> None:
        if times > 1:
            lose(at_step, step, times - 1)
        raise ProcessLost("process 1 was killed")

    at_step(step, lost)


@pytest.mark.shows("parallel_training.max_restarts")
@pytest.mark.parametrize(("may", "times"), [(0, 1), (2, 3)])
def test_lost_more_often_than_it_may_go_on_it_ends(config, tmp_path, at_step, may, times):
    lose(at_step, 25, times)
    with pytest.raises(ProcessLost, match="process 1 was killed"):
        trained(config("run", max_restarts=may), tmp_path / "run")


@pytest.mark.parametrize("step", [3, 25])
def test_gone_on_it_ends_with_the_same_bits(config, tmp_path, at_step, step):
    """Also where nothing was saved yet; and the log says where it goes on from."""
    straight, broken = config("straight"), config("broken", max_restarts=2)
    trained(straight, tmp_path / "straight")
    lose(at_step, step, 2)
    folder = trained(broken, tmp_path / "broken")
    assert end_of(broken) == end_of(straight)
    place = "its newest checkpoint" if step > INTERVAL else "where it began: nothing was saved yet"
    assert folder.log.read_text().count(f"process 1 was killed. It goes on from {place}") == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_companion_that_is_really_lost_is_replaced(config, tmp_path, at_step, number):
    straight, broken = config("straight"), config("broken", num_processes=2)
    trained(straight, tmp_path / "straight")

    def signal_companion(session: TrainingSession) -> None:
        [companion] = {
            int(child)
            for path in Path(f"/proc/{os.getpid()}/task").glob("*/children")
            for child in path.read_text().split()
            if "training.team" in Path(f"/proc/{child}/cmdline").read_text()
        }
        os.kill(companion, number)

    at_step(25, signal_companion)
    trained(broken, tmp_path / "broken")
    assert end_of(broken) == end_of(straight)
