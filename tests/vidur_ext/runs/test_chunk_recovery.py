"""What a training in chunks goes on from, and every contradiction that stops it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import dump_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RUN_ID, RunFolder
from vidur_ext.runs import chunk_record
from vidur_ext.runs.chunk_record import Order, read_progress, write_progress
from vidur_ext.runs.chunk_recovery import Recovered, find_chunked_run, recover
from vidur_ext.training.inputs import settings_of

BEGUN = datetime(2030, 1, 1, tzinfo=timezone.utc)
ORDER = Order(Path("my.json"), None, None)
WAYS_OUT = ("--resume latest", "--force-warmstart", "--output-dir", "checkpoint_dir")


class Site:
    """Folders as a training in chunks leaves them; its states are real checkpoints, tiny ones."""

    def __init__(self, root: Path, make_config: Callable[..., TrainingConfig]) -> None:
        self.make_config = make_config
        self.config = make_config(training={"total_requests": 240})
        self.folder = self.run("run_1")

    def run(self, name: str, kind: str = "warmstart_training_optimized") -> RunFolder:
        root = Path(self.config.training.output_root)
        folder = RunFolder.at(root / kind / name)
        folder.config.write_text(dump_config(self.config), encoding="utf-8")
        folder.log.touch()
        folder.identify()
        return folder

    @property
    def newest(self) -> str | None:
        """SHA-256 of the newest checkpoint."""
        latest = CheckpointStore(self.config.checkpointing).latest()
        return None if latest is None else latest.manifest.sha256

    def plan(
        self,
        size: int = 100,
        done: int = 0,
        *,
        external: Path | None = None,
        begun: datetime = BEGUN,
    ) -> None:
        progress = chunk_record.planned(
            self.config,
            size,
            self.folder,
            run_id=self.folder.identify(),
            config_file=ORDER.config_file,
            external=external,
            done=0,
            checkpoint=None,
            replaces=self.newest,
            now=begun,
        )
        if done:
            held = str(self.path(done))
            progress = chunk_record.trained(progress, done, held, BEGUN)
        write_progress(self.folder.progress, progress)

    def path(self, done: int) -> Path:
        return Path(self.config.checkpointing.checkpoint_dir) / f"checkpoint_step_{done:08d}.pt"

    def save(self, done: int, run: RunFolder | None = None, *, reason: str = "interval") -> None:
        run = run or self.folder
        with closing(CheckpointStore(self.config.checkpointing, lambda: BEGUN)) as store:
            latest = store.latest()
            if latest is not None and run.saved(latest.manifest):
                store.load("latest")
            store.publish(
                {"learner": {"weights": torch.zeros(3)}, "n": done},
                Description(
                    ppo_step=done,
                    global_step=done,
                    reason=reason,
                    run_dir=str(run.path),
                    config_digest="0" * 64,
                    num_replicas=self.config.cluster.num_replicas,
                    val_score=None,
                    versions={},
                    facts={"requests_done": done, RUN_ID: run.identify()},
                    settings=settings_of(self.config),
                ),
            )

    def recover(self, order: Order = ORDER, **groups: dict[str, object]) -> Recovered:
        training = {"total_requests": 240, **groups.pop("training", {})}
        return recover(self.folder, self.make_config(training=training, **groups), order)


@pytest.fixture
def site(tmp_path, make_config):
    return Site(tmp_path, make_config)


def statuses(recovered: Recovered) -> list[str]:
    return [chunk.status for chunk in recovered.progress.chunks]


def refused(site: Site, order: Order = ORDER, **groups: dict[str, object]) -> str:
    before = site.folder.progress.read_bytes()
    with pytest.raises(UserError) as caught:
        site.recover(order, **groups)
    assert site.folder.progress.read_bytes() == before
    text = str(caught.value)
    assert all(way in text for way in WAYS_OUT)
    return text


def test_a_training_that_never_saved_begins_as_it_began(site):
    site.plan()
    site.config = site.make_config(warmstart={"enabled": False})
    site.folder.config.write_text(dump_config(site.config), encoding="utf-8")
    recovered = site.recover()
    assert recovered.start.load_checkpoint is None
    assert recovered.start.run_dir == site.folder.path
    assert not recovered.start.config.warmstart.enabled, "as answered when it began"
    assert not recovered.start.warm_start_done
    site.folder.pretrained_actor.write_bytes(b"whole, for it appears whole")
    assert site.recover().start.warm_start_done


@pytest.mark.parametrize(
    ("recorded", "held", "expected"),
    [
        (0, 70, ["pending", "pending", "pending"]),
        (0, 100, ["completed", "pending", "pending"]),
        (100, 100, ["completed", "pending", "pending"]),
        (100, 230, ["completed", "completed", "pending"]),
        (200, 240, ["completed", "completed", "pending"]),
    ],
)
def test_checkpoints_say_what_is_trained(site, recorded, held, expected):
    """The record may be older: the driver died before it wrote down what its chunk saved."""
    site.plan(done=recorded)
    site.save(held)
    recovered = site.recover()
    assert statuses(recovered) == expected
    assert recovered.progress.requests_done == held
    assert recovered.progress.latest_checkpoint == str(site.path(held))
    assert recovered.start.load_checkpoint == "latest"


def test_the_size_may_be_left_out_and_may_be_repeated(site):
    site.plan(size=70)
    for size in (None, 70):
        assert site.recover(Order(ORDER.config_file, size, None)).progress.chunk_size == 70


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ({"training": {"total_requests": 300}}, "training.total_requests: 240 then, 300 now"),
        ({"training": {"seed": 9}}, "training.seed: 0 then, 9 now"),
        ({"cluster": {"num_replicas": 5}}, "cluster.num_replicas: 3 then, 5 now"),
        ({"workload": {"qps": 5.0}}, "workload.qps: 24.5 then, 5.0 now"),
        (
            {"workload": {"source": "trace", "trace_file": "x.csv"}},
            'workload.trace_file: null then, "x.csv" now',
        ),
        ({"observation": {"queue_slots": 0}}, "observation.queue_slots"),
    ],
)
@pytest.mark.parametrize("held", [None, 100])
def test_other_settings_are_a_contradiction(site, groups, text, held):
    site.plan()
    if held:
        site.save(held)
    assert text in refused(site, **groups)


def test_another_size_or_model_is_a_contradiction(site):
    site.plan(external=Path("one.pt"))
    text = refused(site, Order(ORDER.config_file, 50, Path("other.pt")))
    assert "--chunk-size: 100 then, 50 now" in text
    assert "--external-pretrain: one.pt then, other.pt now" in text
    assert site.recover(Order(ORDER.config_file, None, Path("one.pt"))).start.external == Path(
        "one.pt"
    )


def test_every_contradiction_is_named_at_once(site):
    site.plan()
    text = refused(site, training={"total_requests": 300, "seed": 9}, workload={"qps": 5.0})
    assert text.count(" then, ") == 3


def test_settings_of_learning_saving_and_watching_may_change(site):
    site.plan()
    recovered = site.recover(
        ppo_config={"learning_rate": 1e-5},
        checkpointing={"checkpoint_interval": 3},
        monitoring={"csv": False},
    )
    assert recovered.start.config.ppo_config.learning_rate == 1e-5


def test_checkpoints_that_hold_less_than_was_trained_are_a_contradiction(site):
    site.save(70)
    site.plan(done=100)
    assert "100 requests are trained by the progress file, 70 by the newest" in refused(site)


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_used(site, caplog):
    site.save(70)
    site.save(100)
    site.plan(done=100)
    content = bytearray(site.path(100).read_bytes())
    content[len(content) // 2] ^= 1
    site.path(100).write_bytes(content)
    recovered = site.recover()
    assert "checkpoint_step_00000100.pt: damaged" in caplog.text
    assert (recovered.progress.requests_done, statuses(recovered)[0]) == (70, "pending")


def test_checkpoints_that_are_gone_are_a_contradiction(site):
    site.save(100)
    site.plan(done=100)
    shutil.rmtree(site.path(100).parent)
    assert "is gone" in refused(site)


def test_checkpoints_of_a_later_training_are_a_contradiction(site):
    site.plan()
    site.save(500, site.run("run_2"))
    assert "another training has saved" in refused(site)


def test_checkpoints_of_an_earlier_training_are_none_of_ours(site):
    site.save(500, site.run("run_0"))
    site.plan()
    assert site.recover().start.load_checkpoint is None


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1', b"\0" * 300])
def test_a_damaged_record_is_made_anew_from_the_checkpoints_and_kept(site, caplog, content):
    site.plan()
    site.save(130)
    site.folder.progress.write_bytes(content)
    recovered = site.recover(Order(ORDER.config_file, 100, None))
    assert statuses(recovered) == ["completed", "pending", "pending"]
    assert read_progress(site.folder.progress).requests_done == 130
    assert (site.folder.path / "training_progress.damaged.json").read_bytes() == content
    assert "made anew from" in caplog.text


def test_a_damaged_record_without_a_checkpoint_is_refused(site):
    site.folder.progress.write_bytes(b"{")
    with pytest.raises(UserError, match="no checkpoint of this run"):
        site.recover()
    assert site.folder.progress.read_bytes() == b"{"


def test_a_record_made_anew_still_has_to_fit_the_command_line(site):
    site.save(130)
    site.folder.progress.write_bytes(b"{")
    assert "training.seed: 0 then, 9 now" in refused(site, training={"seed": 9})


def test_a_record_of_a_newer_version_is_refused(site):
    site.plan()
    site.save(100)
    document = json.loads(site.folder.progress.read_text())
    site.folder.progress.write_text(json.dumps({**document, "schema_version": 3}))
    with pytest.raises(UserError, match="schema_version 3"):
        site.recover()


def test_a_damaged_config_is_replaced_by_the_settings_of_the_checkpoint(site, caplog):
    site.plan()
    site.save(100)
    site.folder.config.write_text("{")
    assert site.recover().start.load_checkpoint == "latest"
    assert "count instead" in caplog.text
    with pytest.raises(UserError, match=r"training\.seed: 0 then, 9 now"):
        site.recover(training={"seed": 9})


def test_what_is_completed_stays_so_without_its_checkpoints(site):
    site.plan(done=240)
    done = chunk_record.completed(read_progress(site.folder.progress), 3, "end.pt", BEGUN)
    write_progress(site.folder.progress, done)
    assert site.recover().progress.status == "completed"


def test_the_run_whose_checkpoint_is_the_newest_is_found_whatever_the_clock_says(site):
    assert find_chunked_run(site.config, None) is None
    site.plan(begun=BEGUN + timedelta(days=700))
    site.save(100)
    finished = site.folder
    assert find_chunked_run(site.config, None) == finished
    site.folder = site.run("run_2", "warmstart_external")
    site.plan()
    assert find_chunked_run(site.config, None) == site.folder, "it began behind that checkpoint"
    site.save(50)
    os.utime(finished.progress, (4e9, 4e9))
    assert find_chunked_run(site.config, None) == site.folder, "and has saved since"


def test_one_that_goes_on_is_found_before_one_that_began_behind_it_and_never_saved(site):
    site.plan()
    site.save(100)
    first, site.folder = site.folder, site.run("run_2")
    site.plan()
    site.save(150, first)
    assert find_chunked_run(site.config, None) == first


def test_among_runs_that_saved_nothing_the_one_begun_last_is_found(site):
    site.plan()
    site.folder = site.run("run_2")
    site.plan(begun=BEGUN + timedelta(hours=1))
    site.run("run_3").progress.write_bytes(b"damaged")
    assert find_chunked_run(site.config, None) == site.folder


def test_a_run_elsewhere_below_the_output_root_is_found_by_its_checkpoint(site):
    site.folder = site.run("run_1", "deeper/anywhere")
    site.plan()
    assert find_chunked_run(site.config, None) is None
    site.save(100)
    assert find_chunked_run(site.config, None) == site.folder


def test_a_moved_tree_goes_on_where_it_lies_now(site, tmp_path):
    site.plan()
    site.save(100)
    there = tmp_path / "there"
    there.mkdir()
    for name in ("outputs", "checkpoints"):
        shutil.move(tmp_path / name, there / name)
    config = site.make_config(
        training={"total_requests": 240, "output_root": str(there / "outputs")},
        checkpointing={"checkpoint_dir": str(there / "checkpoints")},
    )
    found = find_chunked_run(config, None)
    assert found == RunFolder(there / site.folder.path.relative_to(tmp_path))
    recovered = recover(found, config, ORDER)
    assert recovered.progress.latest_checkpoint.startswith(str(there))
    assert recovered.start.run_dir == found.path
    assert not (tmp_path / "outputs").exists()


def test_the_plan_of_another_run_is_a_contradiction(site):
    site.plan()
    progress = site.folder.progress.read_bytes()
    site.folder = site.run("run_2")
    site.folder.progress.write_bytes(progress)
    assert "the plan is that of another run" in refused(site)


def test_runs_of_other_checkpoint_folders_are_other_experiments(site, tmp_path):
    site.plan()
    other = site.make_config(checkpointing={"checkpoint_dir": str(tmp_path / "other")})
    assert find_chunked_run(other, None) is None


def test_a_named_folder_is_taken_or_nothing(site, tmp_path):
    site.plan()
    assert find_chunked_run(site.config, site.folder.path) == site.folder
    assert find_chunked_run(site.config, tmp_path / "new") is None


def test_a_trace_with_another_content_is_a_contradiction(site, tmp_path):
    path = tmp_path / "live.csv"
    workload = {"source": "trace", "trace_file": str(path)}
    site.config = site.make_config(training={"total_requests": 240}, workload=workload)
    site.folder.config.write_text(dump_config(site.config), encoding="utf-8")
    header = "arrived_at,num_prefill_tokens,num_decode_tokens"
    for content in ("0,1,1\n1,1,1", "0,1,1\n2,1,1"):
        path.write_text(f"{header}\n{content}", encoding="utf-8")
        if not site.folder.progress.exists():
            site.plan()
            site.save(100)
            assert site.recover(workload=workload).progress.requests_done == 100
    assert "inputs.trace" in refused(site, workload=workload)


def test_a_record_that_only_misses_the_end_is_completed(site):
    """The driver was killed behind the last chunk: policy and checkpoint are there."""
    site.plan()
    site.save(240, reason="end")
    record = site.folder.record_now()
    site.folder.policy.touch()
    assert site.recover().progress.status == "running", "the policy may be an earlier one"
    site.folder.write_record(record.model_copy(update={"policy_of": 240}))
    assert site.recover().progress.status == "completed"
    assert read_progress(site.folder.progress).status == "completed"
