"""From flags and config to where a run begins, with real checkpoints."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RUN_ID, RunFolder
from vidur_ext.runs.resume_choice import Wishes
from vidur_ext.runs.resumed_config import CommandLine
from vidur_ext.runs.start import Start, begins_with_actor, decide

MODEL = Path("model.pt")


def earlier(config: TrainingConfig) -> RunFolder:
    """Return the folder of the run that saved."""
    run = RunFolder.at(Path(config.training.output_root) / "warmstart" / "earlier")
    run.log.touch()
    return run


@pytest.fixture
def saved(make_config):
    """A checkpoint folder with the steps 10 and 20 of the run ``earlier``."""
    config = make_config()
    run = earlier(config)
    with closing(CheckpointStore(config.checkpointing)) as store:
        for step in (10, 20):
            store.publish(
                {"learner": {"weights": torch.zeros(3)}},
                Description(
                    ppo_step=step,
                    global_step=step,
                    reason="interval",
                    run_dir=str(run.path),
                    config_digest="0" * 64,
                    num_replicas=3,
                    val_score=None,
                    versions={},
                    facts={"requests_done": step, RUN_ID: run.identify()},
                    settings=config.settings(),
                ),
            )
    return Path(config.checkpointing.checkpoint_dir)


def origin(start: Start | None) -> dict[str, object]:
    assert start is not None
    keys = ("resume_from_checkpoint", "resume_step", "fork_from_checkpoint")
    return {name: getattr(start.config.checkpointing, name) for name in keys}


NOWHERE = {"resume_from_checkpoint": False, "resume_step": None, "fork_from_checkpoint": None}


def test_a_resumed_training_goes_on_in_its_own_folder_or_the_named_one(saved, make_config):
    wishes = Wishes(resume="latest")
    own = decide(make_config(), wishes, None, None)
    assert own == Start(make_config(), "latest", earlier(make_config()).path)
    named = decide(make_config(), wishes, Path("there"), None)
    assert named is not None
    assert named.run_dir == Path("there")
    assert not begins_with_actor(own)


@pytest.mark.parametrize(("on_incompatible", "answers"), [("abort", ["1", "2"]), ("fresh", ["1"])])
def test_what_would_fail_is_not_offered(saved, make_config, on_incompatible, answers):
    """The other answers keep their numbers. With "fresh" to resume means to begin anew."""
    changes = ("training.seed=9", f"checkpointing.on_incompatible={on_incompatible}")
    config = make_config(training={"seed": 9}, checkpointing={"on_incompatible": on_incompatible})
    left = list(answers)
    questions = []

    def ask(question: str) -> str:
        questions.append(question)
        return left.pop(0)

    start = decide(config, Wishes(), None, ask, CommandLine(overrides=changes))
    assert start is not None
    assert not left
    assert "training.seed: 0 in the checkpoint, 9 now (cannot be changed" in questions[0]
    offered = on_incompatible == "fresh"
    assert ("1) resume" in questions[0]) == offered
    assert ("cannot be resumed with this config" in questions[0]) == (not offered)
    assert start.load_checkpoint == ("latest" if offered else None)


def test_quitting_starts_nothing(saved, make_config):
    assert decide(make_config(), Wishes(), None, lambda question: "q") is None


def test_a_key_that_names_a_checkpoint_answers_without_a_question(saved, make_config):
    path = str(saved / "checkpoint_step_00000010.pt")
    for keys in ({"resume_from_checkpoint": path}, {"resume_step": 10}):
        start = decide(make_config(checkpointing=keys), Wishes(), None, None)
        assert start is not None
        assert (start.load_checkpoint, start.run_dir) == (path, earlier(make_config()).path)


def test_a_step_that_is_not_there_is_named(saved, make_config):
    with pytest.raises(UserError, match=r"no checkpoint of PPO step 15; there are: 10, 20"):
        decide(make_config(checkpointing={"resume_step": 15}), Wishes(), None, None)


def test_a_fork_begins_a_run_of_its_own_without_a_warm_start(saved, make_config):
    path = str(saved / "checkpoint_step_00000010.pt")
    config = make_config(checkpointing={"fork_from_checkpoint": path})
    start = decide(config, Wishes(), None, None)
    assert start == Start(config)
    assert not begins_with_actor(start)


def test_flags_win_over_keys(saved, make_config):
    path = str(saved / "checkpoint_step_00000010.pt")
    for keys in (
        {"resume_from_checkpoint": path},
        {"resume_step": 10},
        {"fork_from_checkpoint": path},
    ):
        config = make_config(checkpointing=keys)
        assert origin(decide(config, Wishes(resume="never"), None, None)) == NOWHERE
        as_is = decide(config, Wishes(external=MODEL, use_external=True), None, None)
        assert origin(as_is) == NOWHERE
        assert begins_with_actor(as_is)
        latest = decide(config, Wishes(resume="latest"), None, None)
        assert latest is not None
        assert latest.load_checkpoint == "latest"


def test_auto_takes_what_is_there_and_else_what_the_config_names(saved, make_config, tmp_path):
    path = str(saved / "checkpoint_step_00000010.pt")
    keys = {"resume_from_checkpoint": path}
    start = decide(make_config(checkpointing=keys), Wishes(resume="auto"), None, None)
    assert start is not None
    assert start.load_checkpoint == "latest"
    elsewhere = {**keys, "checkpoint_dir": str(tmp_path / "empty")}
    start = decide(make_config(checkpointing=elsewhere), Wishes(resume="auto"), None, None)
    assert start is not None
    assert start.load_checkpoint == path


def test_a_fork_and_a_model_contradict_each_other(saved, make_config):
    path = str(saved / "checkpoint_step_00000010.pt")
    config = make_config(checkpointing={"fork_from_checkpoint": path})
    with pytest.raises(UserError, match="leave one out"):
        decide(config, Wishes(external=MODEL), None, None)


def test_a_model_as_it_is_switches_cloning_off(make_config):
    start = decide(make_config(), Wishes(external=MODEL, use_external=True), None, None)
    assert start is not None
    assert start.external == MODEL
    assert not start.config.warmstart.enabled
    tuned = decide(make_config(), Wishes(resume="never", external=MODEL), None, None)
    assert tuned is not None
    assert tuned.config.warmstart.enabled


def test_without_warm_start_and_model_there_is_no_actor(make_config):
    config: TrainingConfig = make_config(warmstart={"enabled": False})
    assert not begins_with_actor(Start(config))
    assert begins_with_actor(Start(config, external=MODEL))
    assert begins_with_actor(Start(make_config()))


def test_without_checkpoints_nothing_can_be_resumed(saved, make_config):
    config = make_config(checkpointing={"enable_checkpoints": False})
    for resume in ("latest", "some.pt"):
        with pytest.raises(UserError, match="enable_checkpoints=false"):
            decide(config, Wishes(resume=resume), None, None)
    assert decide(config, Wishes(), None, None) == Start(config)


def test_a_used_folder_is_refused_for_a_new_run(make_config, tmp_path):
    (tmp_path / "ppo_training.log").touch()
    with pytest.raises(UserError, match="holds a run already"):
        decide(make_config(), Wishes(), tmp_path, None)
