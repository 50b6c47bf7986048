"""Names, and the policies on names: which is newest, which are whole, whose they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.checkpoint.names import (
    CheckpointName,
    complete,
    is_staged,
    not_past_of,
    orphaned_manifests,
    parse,
    present,
)
from ppo_scheduler.files import staged_path

names = st.builds(CheckpointName, st.integers(0, 10**10), st.booleans())


def at(*steps: int) -> list[CheckpointName]:
    return [CheckpointName(step) for step in steps]


def test_a_name_holds_eight_digits():
    assert CheckpointName(128).file == "checkpoint_step_00000128.pt"
    assert CheckpointName(128).manifest == "checkpoint_step_00000128.json"


@given(names)
def test_names_are_parsed_back(name):
    assert parse(name.file) == parse(name.manifest) == name


@pytest.mark.parametrize(
    "file",
    [
        "latest.pt",
        "checkpoint_step_128.pt",
        "checkpoint_step_000000128.pt",
        "checkpoint_step_00000128.pt.bak",
        "checkpoint_step_00000128.tar",
        "my_checkpoint_step_00000128.pt",
        ".checkpoint_step_00000128.pt.tmp",
        "checkpoint_step_0000012８.pt",
        "policy.pt",
    ],
)
def test_stray_files_are_no_checkpoints(file):
    assert parse(file) is None
    assert present([file]) == []


@given(names)
def test_staged_names_are_dot_names_and_no_checkpoints(name):
    staged = staged_path(Path(name.file)).name
    assert staged.startswith(".")
    assert is_staged(staged)
    assert not is_staged(name.file)
    assert parse(staged) is None


def test_names_sort_by_number_not_by_text():
    large, small = CheckpointName(123_456_789), CheckpointName(99_999_999)
    assert present([large.file, small.file]) == [small, large]


def test_the_superseded_one_is_the_older_of_its_step():
    name = CheckpointName(5)
    assert sorted([CheckpointName(6), name, name.superseded]) == [
        name.superseded,
        name,
        CheckpointName(6),
    ]


def test_only_pairs_are_complete():
    one, two, three = at(1, 2, 3)
    files = [one.file, one.manifest, two.file, three.manifest, "notes.txt"]
    assert present(files) == [one, two]
    assert complete(files) == [one]
    assert orphaned_manifests(files) == [three.manifest]


def test_later_steps_are_not_the_past_of_a_resumed_training():
    assert not_past_of(CheckpointName(200), at(100, 200, 300)) == at(300)


def test_nothing_is_the_past_of_a_fresh_training():
    assert not_past_of(None, at(100, 200)) == at(100, 200)
