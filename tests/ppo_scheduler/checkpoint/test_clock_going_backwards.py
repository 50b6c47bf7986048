"""Steps give the order, never the clock, which may jump."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

START = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.fixture
def backwards():
    """A clock that goes back one day at every look."""
    times = iter(START - timedelta(days=days) for days in range(1000))
    return lambda: next(times)


def test_the_newest_is_the_highest_step(stores, save, backwards):
    store = stores.open(clock=backwards)
    for step in (1, 2, 3):
        save(store, step)
    created = [info.manifest.created_at for info in stores.open().checkpoints()]
    assert created == sorted(created, reverse=True)
    assert stores.latest_step() == 3
    assert (stores.folder / "latest.pt").resolve().name == "checkpoint_step_00000003.pt"


def test_the_oldest_steps_are_rotated_out(stores, save, backwards):
    store = stores.open(clock=backwards, max_checkpoints=2)
    for step in (1, 2, 3, 4):
        save(store, step)
    assert stores.steps() == [3, 4]


def test_a_step_that_is_saved_again_replaces_the_one_before(stores, save, backwards):
    store = stores.open(clock=backwards)
    save(store, 1, content=5)
    save(store, 1, content=6)
    assert stores.latest_step() == 6


def test_a_resumed_training_keeps_its_past_and_archives_another_future(stores, save, backwards):
    first = stores.open(clock=backwards)
    for step in (1, 2, 3):
        save(first, step)
    first.close()
    second = stores.open(clock=backwards)
    second.load(2)
    save(second, 4)
    assert stores.steps() == [1, 2, 4]
    [archived] = stores.folder.glob("archive/*/*.pt")
    assert archived.name == "checkpoint_step_00000003.pt"


def test_archives_of_the_same_second_do_not_mix(stores, save):
    for _ in range(2):
        store = stores.open(clock=lambda: START)
        save(store, 1)
        store.set_aside()
        store.close()
    assert len(list(stores.folder.glob("archive/*/checkpoint_step_00000001.pt"))) == 2
