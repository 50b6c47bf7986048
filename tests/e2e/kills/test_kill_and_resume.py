"""kill -9 at any instant loses at most one interval, and nothing of the result.

A training that was killed again and again ends with the bits of one that never was: weights,
AdamW, statistics, temperature, counters, random streams, rollout, curves, table and routing.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

INTERVAL = 7
CHUNKS = (70, 140, 200, 240)
CHECKPOINT = r"checkpoint_step_\d+\.pt"
MANIFEST = r"checkpoint_step_\d+\.json"
STAGED_MANIFEST = r"\.checkpoint_step_\d+\.json\.tmp"
EVENTS = r"events\.out\.tfevents\..*"
TRIPS = {
    "an events file is opened": ("open", EVENTS),
    "the table gets its name": ("os.rename", r"training\.csv"),
    "the manifest is written": ("open", STAGED_MANIFEST),
    "the manifest gets its name": ("os.rename", MANIFEST),
    "the checkpoint gets its name": ("os.rename", CHECKPOINT),
    "the link is made": ("os.symlink", r"\.latest\.pt\.tmp"),
    "the link gets its name": ("os.rename", r"latest\.pt"),
    "an old checkpoint is deleted": ("os.remove", CHECKPOINT),
    "an old manifest is deleted": ("os.remove", MANIFEST),
    "the policy is written": ("open", r"\.policy\.pt\.tmp"),
}


@pytest.fixture
def before(moment):
    """Return the moment right before the n-th such call."""

    def trip(name: str, count: int = 1):
        return moment(name, trip=(*TRIPS[name], count))

    return trip


@pytest.fixture
def polled(moment):
    """Return moments of what is seen from outside; the kill lands where it lands."""

    def make(name: str, number: int = 1, polls: int = 0):
        seen = {
            "at once": lambda scene: True,
            "replaying": lambda scene: scene.replayed >= number or scene.first > 0,
            "deciding": lambda scene: scene.first > 0 and scene.last >= scene.first + number - 1,
            "writing": lambda scene: scene.writes,
            "half published": lambda scene: scene.half_published,
            "saved": lambda scene: scene.new_checkpoints >= number,
        }
        return moment(name, seen=seen[name], polls=polls)

    return make


@pytest.fixture
def drawn(before, polled):
    """Draw a moment."""

    def draw(dice: random.Random):
        if dice.random() < 0.4:
            name = dice.choice(list(TRIPS))
            return before(name, 1 if "policy" in name or "events" in name else dice.randint(1, 2))
        name, most, polls = dice.choice(
            [
                ("at once", 1, 5000),
                ("replaying", 40, 50),
                ("replaying", 160, 5),
                ("deciding", 2 * INTERVAL, 200),
                ("writing", 1, 50),
                ("half published", 1, 5),
                ("saved", 2, 200),
            ]
        )
        return polled(name, dice.randint(1, most), dice.randrange(polls))

    return draw


@pytest.mark.slow  # each start simulates on Vidur; the compiled engine is killed by default
def test_a_plain_training_survives_five_kills(
    make_experiment, uninterrupted, outcome_of, before, polled
):
    training = make_experiment("killed", engine="vidur")
    straight = uninterrupted(one_episode=False, engine="vidur")
    training.run(
        iter(
            [
                polled("deciding", 40),
                polled("replaying", 20),
                polled("at once"),
                before("the checkpoint gets its name", 2),
                before("the manifest is written"),
            ]
        ),
        after_kill=lambda: training.must_agree_with(straight),
    )
    assert training.landings.total() == 5
    assert {"start-up", "between the two renames", "staged write"} <= training.landings.keys()
    outcome_of(training).must_equal(straight)


def test_a_chunked_training_that_saves_in_the_background_survives_five_kills(
    make_experiment, uninterrupted, outcome_of, before, polled
):
    training = make_experiment("killed", one_episode=True, save_async=True)
    straight = uninterrupted(one_episode=True)
    training.run(
        iter(
            [
                polled("writing"),
                before("the link is made", 3),
                before("an old manifest is deleted"),
                before("the policy is written"),
                before("an events file is opened"),
            ]
        ),
        CHUNKS,
        after_kill=lambda: training.must_agree_with(straight),
    )
    assert training.landings.total() == 5
    assert {"between rename and link", "inside pruning", "start-up"} <= training.landings.keys()
    logged = 2 * CHUNKS[-1] * training.envs
    assert len(straight.routing[2]) == logged, "two bytes of every request are logged"
    outcome_of(training).must_equal(straight)


@pytest.mark.slow
@pytest.mark.parametrize("save_async", [False, True], ids=["at once", "background"])
@pytest.mark.parametrize("slices", [CHUNKS[-1:], CHUNKS], ids=["plain", "chunks"])
@pytest.mark.parametrize("engine", ["vidur", "compiled"])
def test_fifty_kills_at_random_moments_change_nothing(
    make_experiment, uninterrupted, outcome_of, drawn, polled, slices, save_async, engine
):
    dice = random.Random(1000 * save_async + 100 * len(engine) + len(slices))
    landings: Counter[str] = Counter()
    lost: list[int] = []
    number = 0
    while landings.total() < 50:
        number += 1
        one_episode = number % 2 == 0
        training = make_experiment(
            f"killed_{number}", one_episode=one_episode, save_async=save_async, engine=engine
        )
        training.run(
            itertools.chain(
                [polled("deciding", 50), polled("replaying", 10)],
                (drawn(dice) for _ in range(11)),
            ),
            slices,
            clock=lambda: dice.choice([0, 0, 3600, -3600]),
        )
        outcome_of(training).must_equal(uninterrupted(one_episode, engine))
        landings += training.landings
        lost += training.lost
    print(f"{landings.total()} kills in {number} trainings: {dict(landings.most_common())}")
    print(f"decisions lost by a kill: at most {max(lost)}, {sum(lost) / len(lost):.1f} on average")
    assert {"start-up", "replay", "training", "staged write"} <= landings.keys()


def test_a_checkpoint_damaged_between_two_processes_is_passed_over(
    make_experiment, uninterrupted, outcome_of, polled
):
    training = make_experiment("damaged")
    assert training.attempt(polled("deciding", 60))
    newest = training.store.checkpoints()[-1].path
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    earlier = training.store.checkpoints()[-2].manifest.ppo_step
    assert not training.attempt(resumes=earlier)
    log = (training.root / "run" / "ppo_training.log").read_text(encoding="utf-8")
    assert f"skipped {newest}: damaged: its SHA-256 is not the one in its manifest" in log
    outcome_of(training).must_equal(uninterrupted(one_episode=False))


def test_a_clock_that_goes_backwards_between_processes_mixes_no_curves(
    make_experiment, uninterrupted, outcome_of, polled
):
    training = make_experiment("backwards")
    for hours in (2, 1):
        assert training.attempt(polled("deciding", 50), clock=3600.0 * hours)
    assert not training.attempt(clock=0.0)
    outcome_of(training).must_equal(uninterrupted(one_episode=False))
