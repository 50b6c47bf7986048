"""A run is one thing with one owner: who may write where, and what a refused start changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb

from ppo_scheduler.checkpoint.names import CheckpointName
from ppo_scheduler.checkpoint.publish import publish
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import config_of_settings
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder, home_of
from vidur_ext.runs.ownership import owned_run
from vidur_ext.runs.pipeline import run_pipeline
from vidur_ext.runs.resume_choice import Wishes
from vidur_ext.runs.resumed_config import CommandLine
from vidur_ext.runs.start import Start, decide
from vidur_ext.training.train import Job, run_training

LATEST = Wishes(resume="latest")
SMALL: dict[str, dict[str, object]] = {
    "training": {"total_requests": 80, "episode_requests": 80},
    "warmstart": {"enabled": False},
    "evaluation": {"enabled": False},
    "checkpointing": {"validation_freq": None},
}


@pytest.fixture
def small(make_config) -> Callable[..., TrainingConfig]:
    def make(**groups: dict[str, object]) -> TrainingConfig:
        return make_config(
            **{n: {**SMALL.get(n, {}), **groups.get(n, {})} for n in {*SMALL, *groups}}
        )

    return make


@pytest.fixture
def contents(tmp_path) -> Callable[[], dict[Path, bytes]]:
    """Return what files hold; who holds a lock is not theirs to say."""

    def read(below: Path = tmp_path) -> dict[Path, bytes]:
        files = (path for path in below.rglob("*") if path.is_file())
        return {p: p.read_bytes() for p in files if p.name not in (".lock", ".run.lock")}

    return read


def finished(config: TrainingConfig) -> RunFolder:
    return run_pipeline(Start(config), quiet=True)


def resumed(config: TrainingConfig, *overrides: str, output_dir: Path | None = None) -> Start:
    settings = config.settings()
    for text in overrides:
        name, _, value = text.partition("=")
        settings[name] = json.loads(value)
    present = config_of_settings(settings, "the test")
    start = decide(present, LATEST, output_dir, None, CommandLine(None, overrides))
    assert start is not None
    return start


def go_on(config: TrainingConfig, *overrides: str) -> RunFolder:
    return run_pipeline(resumed(config, *overrides), quiet=True)


def test_the_run_id_stands_in_folder_and_checkpoints(small):
    config = small()
    run = finished(config)
    newest = CheckpointStore(config.checkpointing).latest()
    assert run.record.run_id == newest.manifest.facts["run_id"]
    assert run.record.policy_of == newest.manifest.global_step == 80
    assert run.record.run_id != finished(config).record.run_id


def test_who_owns_a_run_keeps_all_others_out_of_both_folders(small, contents):
    config = small()
    with owned_run(Start(config)) as owned:
        before = contents()
        with pytest.raises(UserError, match="is writing checkpoints there"):
            run_pipeline(Start(config), quiet=True)
        elsewhere = small(checkpointing={"checkpoint_dir": config.training.output_root + "/other"})
        with pytest.raises(UserError, match="is training there"):
            run_pipeline(Start(elsewhere, run_dir=owned.folder.path), quiet=True)
        with pytest.raises(UserError, match="is writing checkpoints there"):
            run_training(Job(config, run_dir=config.training.output_root + "/direct"))
        assert contents() == before
        assert len(list(owned.folder.path.parent.iterdir())) == 1, "no folder is left behind"


@pytest.mark.parametrize(
    "change",
    ["training.seed=3", "observation.clip=5", "actor_critic_architecture.hidden_size=16"],
)
def test_a_resume_that_does_not_fit_changes_nothing(small, contents, change):
    config = small()
    finished(config)
    before = contents()
    with pytest.raises(UserError, match="does not fit this training"):
        go_on(config, change, "workload.qps=30", "training.total_requests=160")
    assert contents() == before


def test_a_checkpoint_that_cannot_be_parsed_is_refused_before_anything_changes(small, contents):
    config = small()
    run = finished(config)
    manifest = CheckpointStore(config.checkpointing).latest().manifest
    content, name = b"whole, but no tree", CheckpointName(999)
    other = {"ppo_step": 999, "file": name.file, "size_bytes": len(content)}
    other["sha256"] = hashlib.sha256(content).hexdigest()
    folder = Path(config.checkpointing.checkpoint_dir)
    publish(folder, name, content, manifest.model_copy(update=other), lambda: None)
    before = contents()
    start = Start(config, load_checkpoint=str(folder / name.file), run_dir=run.path)
    with pytest.raises(UserError, match=name.file):
        run_pipeline(start, quiet=True)
    assert contents() == before


def test_a_copied_tree_goes_on_by_itself_and_the_original_stays(small, contents, tmp_path):
    config = small()
    original = finished(config)
    for name in ("outputs", "checkpoints"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name)
    before = contents(tmp_path / "outputs"), contents(tmp_path / "checkpoints")
    copied = small(
        training={"total_requests": 160, "output_root": str(tmp_path / "copy" / "outputs")},
        checkpointing={"checkpoint_dir": str(tmp_path / "copy" / "checkpoints")},
    )
    run = go_on(copied, "training.total_requests=160")
    assert run.path == tmp_path / "copy" / original.path.relative_to(tmp_path)
    assert run.record.policy_of == 160
    assert (contents(tmp_path / "outputs"), contents(tmp_path / "checkpoints")) == before


def test_a_manifest_leads_to_no_folder_outside_of_the_output_root(small, contents, tmp_path):
    """Whoever writes a checkpoint may write any place into it: it is a hint, never an order."""
    config = small()
    run = finished(config)
    victim = tmp_path / "victim"
    shutil.move(run.path, victim)
    before = contents(victim)
    manifest = CheckpointStore(config.checkpointing).latest().manifest
    root = config.training.output_root
    for place in (str(victim), f"{root}/x/../../victim", "..", "/", f"{root}/..", ""):
        said = manifest.model_copy(update={"run_dir": place})
        assert home_of(said, Path(root)) is None, place
    new = go_on(config, "training.total_requests=160")
    assert new.path.is_relative_to(config.training.output_root)
    assert contents(victim) == before


def test_a_fresh_training_instead_of_a_misfit_has_a_folder_and_a_warm_start_of_its_own(
    small, contents
):
    config = small(warmstart={"enabled": True})
    old = finished(config)
    before = contents(old.path)
    changes = "actor_critic_architecture.hidden_size=16", 'checkpointing.on_incompatible="fresh"'
    new = go_on(config, *changes)
    assert contents(old.path) == before
    assert new.path != old.path
    assert new.pretrained_actor.exists()
    assert "[PPO:checkpoint] Continuing with fresh training state" in new.log.read_text()


def test_a_finished_training_says_so_and_changes_nothing(small, contents):
    config = small()
    run, said = finished(config), []
    before = contents()
    run_pipeline(resumed(config), quiet=True, say=said.append)
    assert contents() == before
    [text] = said
    assert "this training is finished: all 80 requests" in text
    assert str(run.path) in text


def test_a_longer_training_keeps_the_comparison_of_the_shorter_one(small):
    config = small()
    run = finished(config)
    run.comparison.mkdir()
    (run.comparison / "comparison.json").write_text("of 80")
    go_on(config, "training.total_requests=160")
    assert (run.path / "comparison_of_80" / "comparison.json").read_text() == "of 80"
    assert not run.comparison.exists()


def test_a_folder_the_operator_names_is_that_of_the_run_or_a_new_one(small, tmp_path):
    config = small()
    other = finished(config)
    own = finished(config)
    with pytest.raises(UserError, match="holds a run already"):
        resumed(config, output_dir=other.path)
    assert resumed(config, output_dir=own.path).run_dir == own.path
    assert resumed(config, output_dir=tmp_path / "new").run_dir == tmp_path / "new"


@pytest.mark.parametrize("where", ["live", "archived"])
def test_a_fork_saves_beside_no_original(small, contents, where):
    config = small()
    finished(config)
    if where == "archived":
        finished(config)
    [*_, path] = Path(config.checkpointing.checkpoint_dir).rglob("checkpoint_step_*.pt")
    before = contents()
    fork = {"fork_from_checkpoint": str(path)}
    with pytest.raises(UserError, match="into the folder of its original"):
        run_pipeline(Start(small(checkpointing=fork)), quiet=True)
    assert contents() == before
    own = {**fork, "checkpoint_dir": config.training.output_root + "/fork"}
    longer = {"total_requests": 160}
    run = run_pipeline(Start(small(checkpointing=own, training=longer)), quiet=True)
    assert run.record.policy_of == 160
    assert {p: c for p, c in contents().items() if p in before} == before


def test_a_training_that_goes_on_in_one_go_is_none_in_chunks_any_more(small):
    config = small()
    run = finished(config)
    run.progress.write_text("a plan")
    go_on(config, "training.total_requests=160")
    assert not run.progress.exists()
    assert (run.path / "training_progress.earlier.json").read_text() == "a plan"


def test_what_another_training_did_between_answer_and_lock_is_seen(small):
    config = small()
    finished(config)
    start = resumed(config, "training.total_requests=160")
    finished(config)
    with pytest.raises(UserError, match="is not the newest any more"):
        run_pipeline(start, quiet=True)


def test_resuming_without_the_state_of_adamw_is_said(small):
    config = small(checkpointing={"save_optimizer_state": False})
    run = finished(config)
    go_on(config, "training.total_requests=160")
    assert "holds no state of AdamW" in run.log.read_text()


def test_a_damaged_record_makes_the_folder_nobodys(small):
    config = small()
    run = finished(config)
    document = json.loads(run.record_file.read_text())
    run.record_file.write_text(json.dumps({**document, "policy_of": 7}))
    assert run.record is None
    assert resumed(config).run_dir is None


def test_the_output_root_that_leads_nowhere_is_named(tmp_path, small):
    (tmp_path / "outputs").symlink_to(tmp_path / "not mounted")
    with pytest.raises(
        UserError, match=r"cannot create the output folder \(.*outputs is a link that leads"
    ):
        run_pipeline(Start(small()), quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_a_run_that_lies_elsewhere_goes_on_in_a_new_folder_and_says_so(small, tmp_path):
    config = small()
    old = finished(config)
    elsewhere = f'training.output_root="{tmp_path}/elsewhere"'
    longer = "training.total_requests=160"
    [note] = resumed(config, longer, elsewhere).notes
    assert f"{old.path} is left alone" in note
    new = go_on(config, longer, elsewhere)
    assert new.path.is_relative_to(tmp_path / "elsewhere")
    assert new.record.run_id != old.record.run_id
    again = resumed(config, longer, elsewhere)
    assert (again.run_dir, again.notes) == (new.path, ()), "its newest checkpoint is of that one"


def test_a_direct_training_overwrites_no_other_run(small, contents):
    """As ``python -m vidur_ext.main`` does it, without an owner around it."""
    config = small()
    run = finished(config)
    before = contents()
    other = small(checkpointing={"checkpoint_dir": config.training.output_root + "/other"})
    with pytest.raises(UserError, match="holds a run already, which would be overwritten"):
        run_training(Job(other, run_dir=str(run.path)))
    assert {p: c for p, c in contents().items() if p in before} == before
    longer = small(training={"total_requests": 160})
    assert run_training(Job(longer, load_checkpoint="latest")) == run


def test_the_runs_own_config_is_checked_before_it_goes_on(small, contents, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    wandb.teardown()  # it reads its settings once
    config = small()
    finished(config)
    saved = CheckpointStore(config.checkpointing).latest()
    settings = {**saved.manifest.settings, "monitoring.wandb": "online"}
    sent = saved.manifest.model_copy(update={"settings": settings})
    name = CheckpointName(saved.manifest.ppo_step)
    publish(saved.path.parent, name, saved.path.read_bytes(), sent, lambda: None)
    before = contents()
    with pytest.raises(UserError, match=r"W&B: .* cannot be reached"):
        go_on(config, "training.total_requests=160")
    assert contents() == before
    wandb.teardown()


@pytest.mark.parametrize(
    "name", ["metrics", "tensorboard", "comparison", "ppo_training.log", "run.json", "chunk_1.log"]
)
def test_a_run_whose_files_lead_elsewhere_is_refused(small, contents, tmp_path, name):
    config = small()
    run = finished(config)
    there, away = run.path / name, tmp_path / "away"
    if there.exists():
        there.rename(away)
    else:
        away.touch()
    there.symlink_to(away)
    before = contents()
    with pytest.raises(UserError, match=name):
        go_on(config, "training.total_requests=160")
    assert contents() == before


def test_a_run_folder_that_is_a_link_out_of_the_root_is_left_alone(small, contents, tmp_path):
    """A stranger's tree may hold one; whoever moved a run names the new place."""
    config = small()
    run = finished(config)
    away = tmp_path / "away"
    run.path.rename(away)
    run.path.symlink_to(away)
    before = contents(away)
    gone_on = go_on(config, "training.total_requests=160")
    assert gone_on.path != run.path
    assert contents(away) == before
