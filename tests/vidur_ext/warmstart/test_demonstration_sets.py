"""Demonstration sets: written whole or not at all, found, checked, and deleted alone."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.sets import (
    DATA_FILE,
    DESCRIPTION_FILE,
    SetDescription,
    delete_set,
    find_sets,
    new_set_path,
    open_set,
    staged_set,
    write_set,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def config(**groups: dict[str, object]) -> TrainingConfig:
    """A config of three replicas that learns from costs, unless told otherwise."""
    return TrainingConfig.model_validate({"cluster": {"num_replicas": 3}, **groups})


IMITATION: dict[str, dict[str, object]] = {"warmstart": {"method": "imitation"}}


def demonstrations(of: TrainingConfig, rows: int = 20) -> Demonstrations:
    """Two teachers, each at two loads, with three replicas; priced for what learns from costs."""
    schema = observation_schema(of.observation)
    rng = np.random.default_rng(0)
    priced = of.warmstart.method == "costs"
    return Demonstrations(
        schema.replica,
        schema.context,
        ("vllm_dp", "least_kv"),
        rng.normal(size=(rows, 3, len(schema.replica))).astype(np.float32),
        rng.normal(size=(rows, len(schema.context))).astype(np.float32),
        rng.integers(0, 3, rows),
        np.repeat([0, 1], rows // 2),
        np.tile([0.5, 1.0], rows // 2),
        rng.random((rows, 3 if priced else 0)).astype(np.float32),
    )


def make(path: Path, of: TrainingConfig | None = None, now: datetime = NOW) -> Path:
    of = of or config()
    with staged_set(path) as folder:
        write_set(folder, demonstrations(of), of, "some requests", now)
    return path


@pytest.fixture
def made(tmp_path) -> Path:
    return make(tmp_path / "eine Menge äöü")


def rewrite(path: Path, **changes: object) -> None:
    file = path / DESCRIPTION_FILE
    document = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    file.write_text(json.dumps(document), encoding="utf-8")


def test_a_set_is_read_as_it_was_written(made):
    one = open_set(made)
    data, original = one.load(), demonstrations(config())
    for name in ("replicas", "context", "action", "teacher", "load_level", "costs"):
        np.testing.assert_array_equal(getattr(data, name), getattr(original, name))
    said = one.description
    assert (said.teachers, said.load_levels) == (("vllm_dp", "least_kv"), (0.5, 1.0))
    assert (said.decisions, said.num_replicas, said.seed, said.priced) == (20, 3, 0, True)
    assert said.schema_digest == observation_schema(config().observation).digest()
    assert datetime.fromisoformat(said.created_at) == NOW
    assert one.problem() is None
    assert {path.name for path in made.iterdir()} == {DATA_FILE, DESCRIPTION_FILE}


@given(
    seed=st.integers(0, 2**63 - 1),
    loads=st.lists(st.floats(0.01, 100), min_size=1, unique=True),
    workload=st.text(st.characters(codec="utf-8")).filter(str.isprintable),
    decisions=st.integers(1, 10**9),
    priced=st.booleans(),
)
def test_every_description_survives_its_file(seed, loads, workload, decisions, priced):
    one = SetDescription(
        created_at=NOW.isoformat(), teachers=("lor",), load_levels=tuple(loads),
        decisions=decisions, priced=priced, num_replicas=1, seed=seed, workload=workload,
        engine="vidur", observation={"history": True}, schema_digest="d", versions={}, size_bytes=1,
        sha256="0" * 64,
    )  # fmt: skip
    assert SetDescription.model_validate_json(one.to_json()) == one


@pytest.mark.parametrize("place", [0, 500, -1])
def test_one_changed_byte_of_the_data_is_found(made, place):
    content = bytearray((made / DATA_FILE).read_bytes())
    content[place] ^= 1
    (made / DATA_FILE).write_bytes(content)
    one = open_set(made)
    assert one.problem() is None  # the size is right
    with pytest.raises(UserError, match=r"demonstrations\.npz: damaged: its SHA-256"):
        one.load()


def test_data_that_is_cut_or_missing_is_told_without_reading_it(made):
    data = made / DATA_FILE
    size = data.stat().st_size
    os.truncate(data, size - 1)
    assert open_set(made).problem() == f"{DATA_FILE} has {size - 1} bytes, not {size}"
    data.unlink()
    assert open_set(made).problem() == f"{DATA_FILE} is missing"
    with pytest.raises(UserError, match=r"cannot be read .*Restore the set"):
        open_set(made).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged, it is not JSON"),
        (b"\xff\xfe\x00", "is damaged, it is not JSON"),
        (b"[" * 100_000, "is damaged, it is not JSON"),
        (b"[]", "does not describe demonstrations"),
        (b'{"kind": "something else"}', "does not describe demonstrations"),
        (b'{"kind": "ppo_scheduler demonstrations", "schema_version": 9}', "has schema_version 9"),
        (b'{"kind": "ppo_scheduler demonstrations", "schema_version": 1}', "is damaged .created_a"),
    ],
)
def test_what_is_no_description_is_refused_with_the_reason(made, content, message):
    (made / DESCRIPTION_FILE).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_set(made)


@pytest.mark.parametrize(
    "changes",
    [
        {"decisions": 0},
        {"seed": "0"},
        {"sha256": "xyz"},
        {"created_at": "2026-01-02T03:04:05"},
        {"load_levels": [float("nan")]},
        {"more": 1},
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(made, changes):
    rewrite(made, **changes)
    [name] = changes
    with pytest.raises(UserError, match=rf"is damaged \({name}"):
        open_set(made)


def test_a_folder_without_a_set_is_refused_with_the_ways_out(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"is no demonstration set.*demos collect makes one"):
            open_set(path)


OTHER_VALUES = {
    "output_length": "oracle",
    "queue_slots": 3,
    "objective": True,
    "history": False,
    "history_alpha": 0.2,
    "clip": 3.0,
    "signal_delay_s": 0.1,
    "prefix_knowledge": "approximate",
    "kv_event_delay_s": 0.1,
    "prefix_index_blocks": 100,
}
NEEDED = {"kv_event_delay_s": {"prefix_knowledge": "exact"}}
"""What a value goes with."""


@pytest.mark.parametrize("name", ObservationSection.model_fields)
def test_a_set_fits_the_observation_it_was_recorded_with(made, name):
    other = config(
        observation={**NEEDED.get(name, {}), name: OTHER_VALUES[name]},
        cluster={"num_replicas": 3, "replica_scheduler": "vllm_v1"},  # with caches to be known
        evaluation={"enabled": False},  # planners see nothing late
    )
    open_set(made).check(config())
    if name == "clip":  # states are recorded before they are clipped
        open_set(made).check(other)
    else:
        with pytest.raises(UserError, match=rf"{name} is .* in the set and .* in this config"):
            open_set(made).check(other)


def test_a_set_from_before_a_key_was_recorded_with_its_default(made):
    file = made / "demonstration_set.json"
    description = json.loads(file.read_text())
    del description["observation"]["signal_delay_s"]
    file.write_text(json.dumps(description))
    open_set(made).check(config())
    late = config(observation={"signal_delay_s": 0.1}, evaluation={"enabled": False})
    with pytest.raises(UserError, match=r"signal_delay_s is 0\.0 in the set and 0\.1"):
        open_set(made).check(late)


def test_choices_without_costs_are_refused_where_costs_are_learned_from(tmp_path):
    shown = open_set(make(tmp_path / "shown", config(**IMITATION)))
    shown.check(config(**IMITATION))
    with pytest.raises(UserError, match=r"not what every choice costs.*method to .imitation., or "):
        shown.check(config())


def test_priced_choices_can_be_imitated(made):
    open_set(made).check(config(**IMITATION))


def test_costs_of_another_cluster_do_for_a_single_round_only(made):
    larger = {"cluster": {"num_replicas": 9}}
    with pytest.raises(UserError, match=r"shows 3 replicas.* 9: set warmstart.rounds to 1"):
        open_set(made).check(config(**larger))
    open_set(made).check(config(**larger, warmstart={"rounds": 1}))
    open_set(made).check(config(**larger, **IMITATION))


def test_a_set_from_before_there_were_costs_is_read_without_them(tmp_path):
    old = make(tmp_path / "old", config(**IMITATION))
    file = old / DATA_FILE
    with np.load(file) as arrays:
        content = {name: arrays[name] for name in arrays.files if name != "costs"}
    np.savez_compressed(file, **{**content, "format": np.array(1)})
    document = json.loads((old / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    del document["priced"]
    (old / DESCRIPTION_FILE).write_text(json.dumps(document), encoding="utf-8")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    rewrite(old, size_bytes=file.stat().st_size, sha256=digest)
    one = open_set(old)
    assert (one.problem(), one.description.priced) == (None, False)
    data = one.load()
    assert not data.priced
    assert data.costs.shape == (20, 0)
    np.testing.assert_array_equal(data.action, demonstrations(config(**IMITATION)).action)


def test_features_of_another_version_are_refused(made):
    rewrite(made, schema_digest="0123456789abcdef")
    with pytest.raises(UserError, match="its features have digest 0123456789abcdef"):
        open_set(made).check(config())


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("no"), RuntimeError("bug")])
def test_what_does_not_end_well_leaves_nothing(tmp_path, error):
    def begin() -> None:
        with staged_set(tmp_path / "set") as folder:
            write_set(folder, demonstrations(config()), config(), "", NOW)
            raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        begin()
    assert not list(tmp_path.iterdir())


def test_a_set_is_not_seen_before_it_is_whole(tmp_path):
    with staged_set(tmp_path / "set") as folder:
        write_set(folder, demonstrations(config()), config(), "", NOW)
        assert find_sets(tmp_path) == []
    assert len(find_sets(tmp_path)) == 1


def test_an_empty_folder_may_become_a_set_and_nothing_else_may(made, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    open_set(make(tmp_path / "empty"))
    (tmp_path / "file").write_text("mine")
    for used in (made, tmp_path / "file", tmp_path):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(UserError, match="exists and is no empty folder"):
            make(used)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="exists and is no empty folder"):
        make(Path("."))


def test_what_appears_meanwhile_is_not_overwritten(tmp_path):
    def collide() -> None:
        with staged_set(tmp_path / "set"):
            (tmp_path / "set").mkdir()
            (tmp_path / "set" / "mine").write_text("mine")

    with pytest.raises(UserError, match="cannot be written there"):
        collide()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert (tmp_path / "set" / "mine").read_text() == "mine"


def test_a_read_only_disk_is_told_before_anything_is_collected(tmp_path, monkeypatch):
    def refuse(self, *arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    collected = []
    with (
        pytest.raises(UserError, match=r"Read-only file system.*Choose another --output-dir"),
        staged_set(tmp_path / "set"),
    ):
        collected.append(1)
    assert not collected


def test_new_sets_get_free_names(tmp_path):
    first = new_set_path(tmp_path, NOW)
    assert first == tmp_path / "demonstrations" / "set_20260102_030405"
    make(first)
    second = new_set_path(tmp_path, NOW)
    assert second.name == "set_20260102_030405_2"
    make(second)
    assert new_set_path(tmp_path, NOW).name == "set_20260102_030405_3"


def test_sets_are_found_oldest_first_and_bad_ones_with_their_problem(tmp_path):
    make(tmp_path / "a" / "new", now=NOW + timedelta(days=1))
    make(tmp_path / "b" / "old")
    make(tmp_path / "cut")
    os.truncate(tmp_path / "cut" / DATA_FILE, 5)
    (make(tmp_path / "unreadable") / DESCRIPTION_FILE).write_text("{")
    (make(tmp_path / "elsewhere" / "set")).rename(tmp_path / ".hidden")
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    found = find_sets(tmp_path)
    assert [one.path.name for one in found] == ["old", "cut", "new", "unreadable"]
    assert [one.found is not None for one in found] == [True, True, True, False]
    assert [one.problem is None for one in found] == [True, False, True, False]


def test_a_set_named_itself_is_found(made):
    assert [one.path for one in find_sets(made)] == [made]
    with pytest.raises(UserError, match="no such folder"):
        find_sets(made / DATA_FILE)


def test_deleting_takes_the_set_and_nothing_else(made, tmp_path):
    make(tmp_path / "other")
    assert delete_set(open_set(made))
    assert not made.exists()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    assert not delete_set(open_set(tmp_path / "other"))
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_a_deletion_that_was_cut_short_can_be_finished(made, monkeypatch):
    unlink = Path.unlink

    def refuse(self, *arguments, **options):
        if self.name == DESCRIPTION_FILE:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(self, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UserError, match=r"the set was not deleted .Read-only"):
        delete_set(open_set(made))
    monkeypatch.undo()
    assert delete_set(open_set(made))
