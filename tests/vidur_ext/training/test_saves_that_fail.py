"""A disk that refuses a save does not end a training, and is not passed over in silence."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
from contextlib import contextmanager

import pytest

from ppo_scheduler.checkpoint import store as store_module
from ppo_scheduler.checkpoint.saver import SavesFailed
from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.monitoring.csv_metrics import CsvSink
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.run_folder import RunFolder
from vidur_ext.vidur.engine_inputs import engine_cluster

_SMALLER_THAN_A_CHECKPOINT = 30_000


@pytest.fixture(autouse=True)
def compiled(make_config, make_requests):
    """Compile the engine before the disk is full: its machine code is kept on the disk too."""
    config = make_config()
    envs = RoutingEnvironments(engine_cluster(config), config, num_envs=1)
    envs.begin([make_requests(2)])


@contextmanager
def full_disk():
    """Let every file end at a size that policies, metrics and logs stay below."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_SMALLER_THAN_A_CHECKPOINT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("background", [False, True])
def test_training_goes_on_and_ends_with_an_error(make_config, train, left_by, background):
    config = make_config(
        checkpointing={"checkpoint_interval": 80, "save_async": background},
        monitoring={"log_level": "warning"},
    )
    with full_disk(), pytest.raises(SavesFailed, match=r"^4 of 4 saves failed.*File too large"):
        train(config)
    left = left_by(config)
    assert left.steps == []
    assert (left.run / "policy.pt").exists()
    assert re.findall(r"WARNING saving PPO step (\d+) failed", left.log) == [
        "80", "160", "240", "240",
    ]  # fmt: skip


def test_earlier_checkpoints_survive_and_can_be_resumed(make_config, train, left_by, at_step):
    straight = train(
        make_config(checkpointing={"checkpoint_dir": make_config().training.output_root + "_s"}),
        "straight",
    )
    config = make_config(checkpointing={"checkpoint_interval": 80, "save_async": False})
    limit = full_disk()
    at_step(100, lambda session: limit.__enter__())
    try:
        with pytest.raises(SavesFailed, match=r"^3 of 4 saves failed"):
            train(config)
    finally:
        limit.__exit__(None, None, None)
    assert left_by(config).steps == [80]
    assert train(config, load_checkpoint="latest").has_weights_of(straight)


def test_a_disk_that_recovers_gets_the_next_save(make_config, train, left_by, at_step):
    limit = full_disk()
    at_step(70, lambda session: limit.__enter__())
    config = make_config(checkpointing={"checkpoint_interval": 80, "save_async": False})

    def recovered(session):
        limit.__exit__(None, None, None)

    try:
        at_step(100, recovered)
        with pytest.raises(SavesFailed, match=r"^1 of 4 saves failed"):
            train(config)
    finally:
        recovered(None)
    assert left_by(config).steps == [160, 240]


def test_a_signal_on_a_full_disk_says_what_was_not_saved(make_config, train, stop_at):
    stop_at(57)
    with full_disk(), pytest.raises(Interrupted) as stop:
        train(make_config())
    assert stop.value.outcome.startswith("NOT saved: ")
    assert "File too large" in stop.value.outcome


def test_a_disk_without_room_is_found_before_training_starts(
    make_config, train, left_by, monkeypatch
):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        store_module.shutil, "disk_usage", lambda folder: usage._replace(free=10_000)
    )
    config = make_config()
    with pytest.raises(UserError, match=r"0\.0 MB are free, the checkpoints need \d\.\d MB"):
        train(config)
    assert left_by(config).steps == []


def test_a_read_only_folder_is_found_before_training_starts(make_config, train, monkeypatch):
    def refuse(*arguments, **keys):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=r"checkpoints cannot be saved there \(Read-only file"):
        train(make_config())


def refuse(self, global_step, scalars):
    raise UserError("training.csv: metrics cannot be written (No space left on device)")


def written(left) -> list[int]:
    return [int(row["global_step"]) for row in left.rows]


def test_metrics_that_a_disk_refuses_for_a_while_are_written_when_it_recovers(
    make_config, train, left_by, at_step, monkeypatch
):
    original = CsvSink.record
    at_step(60, lambda session: monkeypatch.setattr(CsvSink, "record", refuse))
    at_step(130, lambda session: monkeypatch.setattr(CsvSink, "record", original))
    config = make_config()
    train(config)
    left = left_by(config)
    assert written(left) == sorted(written(left))
    assert {79, 111} <= set(written(left))
    assert left.log.count("metrics cannot be written") == 1


def test_metrics_that_were_never_written_are_an_error_and_a_resume_writes_them(
    make_config, train, left_by, at_step, monkeypatch
):
    with monkeypatch.context() as patch:
        at_step(60, lambda session: patch.setattr(CsvSink, "record", refuse))
        config = make_config()
        with pytest.raises(
            UserError, match=r"records were not written.*No space left(.|\n)*resume"
        ):
            train(config)
    assert not {79, 111} & set(written(left_by(config)))
    more = make_config(training={"total_requests": 320})
    assert {79, 111} <= set(written(train(more, load_checkpoint="latest")))


def undeletable(path, *arguments, **keys):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


KEEP_ONE = {"checkpoint_interval": 80, "max_checkpoints": 1, "save_async": False}


def test_a_save_whose_pruning_is_refused_is_a_save(
    make_config, train, left_by, at_step, monkeypatch
):
    config = make_config(checkpointing=KEEP_ONE)
    with monkeypatch.context() as patch:
        at_step(100, lambda session: patch.setattr(os, "unlink", undeletable))
        at_step(200, lambda session: patch.undo())
        train(config)
    left = left_by(config)
    assert left.steps == [240]
    [told] = re.findall(r"WARNING .*000160\.pt is saved, but older ones .*", left.log)
    assert told.endswith("(Operation not permitted). The next save tries again")


def test_a_signal_whose_save_cannot_prune_says_that_it_saved(
    make_config, train, left_by, at_step, monkeypatch
):
    config = make_config(checkpointing=KEEP_ONE)

    def stop(session):
        monkeypatch.setattr(os, "unlink", undeletable)
        os.kill(os.getpid(), signal.SIGTERM)

    at_step(100, stop)
    with pytest.raises(Interrupted) as stopped:
        train(config)
    assert stopped.value.outcome.startswith("saved ")
    assert left_by(config).steps == [80, 100]


def test_a_run_whose_folders_are_removed_goes_on_in_new_ones(make_config, train, left_by, at_step):
    straight = train(
        make_config(checkpointing={"checkpoint_dir": make_config().training.output_root + "_s"}),
        "straight",
    )
    config = make_config(checkpointing={"checkpoint_interval": 80, "save_async": False})

    def remove(session):
        for folder in (left_by(config).run, left_by(config).newest.path.parent):
            shutil.rmtree(folder)

    at_step(100, remove)
    gone_on = train(config)
    assert gone_on.steps == [160, 240]
    assert gone_on.has_weights_of(straight)
    assert gone_on.log.count("is made anew") == 1
    assert written(gone_on) == [step for step in written(straight) if step > 100]
    folder = RunFolder(gone_on.run)
    assert folder.saved(gone_on.newest.manifest)
    assert folder.record.policy_of == 240
    longer = make_config(training={"total_requests": 320})
    resumed = train(longer, load_checkpoint="latest")
    assert written(resumed)[: len(written(straight)) - 1] == written(straight)[:-1]


def test_a_run_that_took_the_folder_of_another_keeps_its_policy(
    make_config, train, left_by, at_step
):
    config = make_config(monitoring={"csv": False, "tensorboard": False})

    def replace(session):
        left_by(config).run.rename(left_by(config).run.with_name("moved"))
        elsewhere = make_config(
            checkpointing={"checkpoint_dir": config.training.output_root + "_other"},
            training={"seed": 3},
        )
        train(elsewhere)

    at_step(100, replace)
    with pytest.raises(UserError, match="is the folder of another run by now"):
        train(config)
    other = left_by(config).run
    assert (other / "policy.pt").exists()
    assert RunFolder(other).record.policy_of == 240
