"""Which checkpoints stay, decided on steps and scores alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.checkpoint.names import CheckpointName, Retention
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError

names = st.builds(CheckpointName, st.integers(0, 12), st.booleans())
scores = st.one_of(st.none(), st.sampled_from([-1.5, 0.0, 0.5, 0.75]))
folders = st.dictionaries(names, scores, max_size=10)
retentions = st.builds(
    Retention,
    st.sampled_from(["last_n", "top_k_val"]),
    st.one_of(st.none(), st.integers(1, 6)),
    st.one_of(st.none(), st.integers(1, 5)),
)


def folder(*steps: int, **scored: float) -> dict[CheckpointName, float | None]:
    """Return checkpoints without a score, and with one: ``s50=0.45``."""
    return {
        **{CheckpointName(step): None for step in steps},
        **{CheckpointName(int(step[1:])): score for step, score in scored.items()},
    }


def gone(retention: Retention, scores: dict[CheckpointName, float | None]) -> list[int]:
    return [name.step for name in retention.outdated(scores)]


def timeline(retention: Retention, saves: dict[int, float | None]) -> dict[int, list[int]]:
    """Return what each save makes the store delete."""
    present: dict[CheckpointName, float | None] = {}
    deleted = {}
    for step, score in saves.items():
        present[CheckpointName(step)] = score
        outdated = retention.outdated(present)
        deleted[step] = [name.step for name in outdated]
        for name in outdated:
            del present[name]
    return deleted


def test_last_n_deletes_the_oldest_from_the_sixth_on():
    saves = dict.fromkeys(range(50, 351, 50))
    deleted = timeline(Retention("last_n", 5), saves)
    assert deleted == {50: [], 100: [], 150: [], 200: [], 250: [], 300: [50], 350: [100]}


def test_top_k_deletes_the_lowest_score_from_the_fourth_on():
    saves = {50: 0.45, 100: 0.52, 150: 0.48, 200: 0.55, 250: 0.51}
    deleted = timeline(Retention("top_k_val", 3), saves)
    assert deleted == {50: [], 100: [], 150: [], 200: [50], 250: [150]}


def test_last_n_pays_no_attention_to_scores():
    assert gone(Retention("last_n", 1), folder(s1=9.0, s2=0.0)) == [1]


def test_of_equal_scores_the_later_stays():
    assert gone(Retention("top_k_val", 1), folder(s1=0.5, s2=0.5, s3=0.1)) == [1]


def test_the_newest_stays_beside_the_best_however_bad_it_is():
    assert gone(Retention("top_k_val", 2), folder(s1=0.3, s2=0.1, s3=0.2, s4=-9.0)) == [2]


def test_without_a_score_only_the_newest_stays():
    assert gone(Retention("top_k_val", 2), folder(2, 4, 6, s1=0.1, s3=0.2, s5=0.3)) == [1, 2, 4]


@pytest.mark.parametrize("strategy", ["last_n", "top_k_val"])
def test_null_keeps_all(strategy):
    assert gone(Retention(strategy, None), folder(1, 2, 3, s4=0.1)) == []


@pytest.mark.parametrize("strategy", ["last_n", "top_k_val"])
def test_multiples_of_keep_every_are_permanent(strategy):
    steps = folder(0, 10, 15, 20, 25, 30, 31)
    assert gone(Retention(strategy, 1, keep_every=10), steps) == [15, 25]


def test_a_superseded_one_stays_until_it_is_replaced():
    one, two = CheckpointName(1), CheckpointName(2)
    keep_two = Retention("last_n", 2, keep_every=1)
    assert keep_two.outdated({one: None, two.superseded: None}) == []
    assert keep_two.outdated({one: None, two.superseded: None, two: None}) == [two.superseded]


@given(retentions, folders)
def test_the_newest_is_never_deleted_and_deleting_again_finds_nothing(retention, present):
    outdated = retention.outdated(present)
    assert outdated == sorted(set(outdated) & set(present))
    left = {name: score for name, score in present.items() if name not in set(outdated)}
    assert retention.outdated(left) == []
    if present:
        assert max(present) in left
    steps = [name.step for name in left]
    assert len(steps) == len(set(steps))


@given(st.integers(1, 6), folders)
def test_last_n_keeps_exactly_the_newest_steps(keep, present):
    left = set(present) - set(Retention("last_n", keep).outdated(present))
    assert sorted(name.step for name in left) == sorted({name.step for name in present})[-keep:]


@given(st.integers(1, 6), folders)
def test_top_k_deletes_all_but_the_best_and_the_newest(keep, present):
    ranked = {name: score for name, score in present.items() if name.current and score is not None}
    deleted = set(Retention("top_k_val", keep).outdated(ranked))
    order = sorted(ranked, key=lambda name: (ranked[name], name.step), reverse=True)
    assert deleted == set(order[keep:]) - {max(ranked, default=None)}


def test_the_config_decides():
    section = CheckpointingSection(
        checkpoint_strategy="top_k_val", validation_freq=5, max_checkpoints=3, keep_every=100
    )
    assert Retention.of(section) == Retention("top_k_val", 3, 100)
    assert Retention.of(CheckpointingSection()) == Retention("last_n", 5, None)
    assert Retention.of(CheckpointingSection(max_checkpoints=None)).keep is None
    single = CheckpointingSection(incremental_checkpoints=False, max_checkpoints=None)
    assert Retention.of(single) == Retention("last_n", 1, None)


def test_one_that_cannot_be_deleted_keeps_no_other_from_being_deleted(stores, save, monkeypatch):
    store = stores.open(max_checkpoints=2)
    save(store, 1)
    stuck, real = CheckpointName(1).file, Path.unlink

    def unlink(path, missing_ok=False):
        if path.name == stuck:
            raise PermissionError(1, "Operation not permitted")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for step in (2, 3, 4, 5):
        save(store, step)
    assert stores.steps() == [1, 4, 5]
    with pytest.raises(UserError, match="cannot be deleted"):
        store.prune(Retention("last_n", 1))
    assert stores.steps() == [1, 5]
