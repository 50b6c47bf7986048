"""A training saves when its config, a signal, an error or its end says so."""

from __future__ import annotations

import os
import signal

import pytest

from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import Interrupted
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.training.session import SaveSchedule, Wishes

NOTHING = Wishes(save=False, overdue=False, stop=None)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def schedule(clock: Clock, **keys: object) -> SaveSchedule:
    made = SaveSchedule(CheckpointingSection.model_validate(keys), clock)
    made.start(updates=0)
    return made


def test_an_interval_of_steps():
    due = schedule(Clock(), checkpoint_interval=50).due
    assert [step for step in range(1, 161) if due(step, 0, NOTHING)] == [50, 100, 150]


def test_an_interval_of_time_counts_from_the_last_save_of_any_kind():
    clock = Clock()
    saves = schedule(clock, checkpoint_interval=100, checkpoint_interval_s=10.0)
    reasons = {}
    for step in range(1, 141):
        clock.now += 0.25
        wishes = Wishes(save=step == 50, overdue=saves.overdue(), stop=None)
        if (reason := saves.due(step, 0, wishes)) is not None:
            reasons[step] = reason
    assert reasons == {40: "time", 50: "manual", 90: "time", 100: "interval", 140: "time"}


def test_a_validation_follows_every_nth_update_once():
    due = schedule(Clock(), checkpoint_interval=10_000, validation_freq=2).due
    updates = [0, 1, 1, 2, 2, 3, 4, 4]
    found = [due(step, count, NOTHING) for step, count in enumerate(updates, start=1)]
    assert found == [None, None, None, "validation", None, None, "validation", None]


def test_a_validation_is_not_repeated_behind_a_resume():
    saves = SaveSchedule(
        CheckpointingSection.model_validate({"validation_freq": 2, "checkpoint_interval": 10_000}),
        Clock(),
    )
    saves.start(updates=2)
    assert [saves.due(1, 2, NOTHING), saves.due(2, 4, NOTHING)] == [None, "validation"]


@pytest.mark.shows("checkpointing.checkpoint_on_start")
def test_on_start_step_0_is_saved(make_config, train):
    config = make_config(checkpointing={"checkpoint_on_start": True})
    trained = train(config)
    assert (trained.steps, trained.reasons) == ([0, 240], ["start", "end"])


def test_a_resumed_training_does_not_start_again(make_config, train):
    config = make_config(checkpointing={"checkpoint_on_start": True})
    train(config, stop_at_requests=50)
    trained = train(config, load_checkpoint="latest")
    assert trained.reasons == ["start", "chunk_end", "end"]


def test_the_start_can_be_resumed_exactly(make_config, train):
    config = make_config(checkpointing={"checkpoint_on_start": True})
    straight = train(config, "straight")
    other = make_config(
        checkpointing={
            "checkpoint_dir": config.checkpointing.checkpoint_dir + "_other",
            "resume_from_checkpoint": str(straight.infos[0].path),
        }
    )
    assert train(other, "again").has_weights_of(straight)


@pytest.mark.shows("checkpointing.checkpoint_every_episodes")
def test_every_episodes_saves_between_two_episodes(make_config, train):
    training = {"episode_requests": 40}
    straight = train(
        make_config(training=training, checkpointing={"checkpoint_every_episodes": 2}), "straight"
    )
    assert straight.steps == [80, 160, 240]
    assert straight.reasons == ["episode", "episode", "end"]
    config = make_config(
        training=training,
        checkpointing={
            "checkpoint_dir": str(straight.run.parent / "resumed"),
            "resume_from_checkpoint": str(straight.infos[0].path),
        },
    )
    assert train(config, "resumed").has_weights_of(straight)


@pytest.mark.shows("checkpointing.checkpoint_interval_s")
def test_interval_s_saves_by_the_clock(make_config, train):
    config = make_config(
        checkpointing={"checkpoint_interval_s": 1e-9, "max_checkpoints": None},
        training={"total_requests": 20},
    )
    trained = train(config)
    assert trained.reasons == [*["time"] * 19, "end"]


def test_sigusr1_saves_and_training_goes_on(make_config, train, at_step):
    at_step(57, lambda session: os.kill(os.getpid(), signal.SIGUSR1))
    trained = train(make_config(monitoring={"log_level": "info"}))
    assert (trained.steps, trained.reasons) == ([57, 240], ["manual", "end"])
    assert "saving PPO step 57, as asked" in trained.log


def test_a_program_can_save_when_it_wants(make_config, train, at_step):
    at_step(30, lambda session: session.save("manual"))
    assert train(make_config()).steps == [30, 240]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends(make_config, train, left_by, at_step, number):
    at_step(57, lambda session: os.kill(os.getpid(), number))
    config = make_config()
    with pytest.raises(Interrupted) as stop:
        train(config)
    left = left_by(config)
    assert (left.steps, left.reasons) == ([57], ["signal"])
    assert stop.value.number == number
    assert stop.value.outcome == f"saved {left.newest.path}"


def test_without_checkpoints_a_signal_says_that_nothing_is_saved(make_config, train, stop_at):
    stop_at(10)
    with pytest.raises(Interrupted) as stop:
        train(make_config(checkpointing={"enable_checkpoints": False}))
    assert "switched off" in stop.value.outcome


def test_an_error_between_decisions_saves_what_was_before_it(
    make_config, train, left_by, at_step, monkeypatch
):
    original = RoutingEnvironments.step

    def broken(self, actions):
        raise RuntimeError("the simulator broke")

    def break_it(session):
        monkeypatch.setattr(RoutingEnvironments, "step", broken)

    at_step(57, break_it)
    config = make_config()
    with pytest.raises(RuntimeError, match="the simulator broke"):
        train(config)
    left = left_by(config)
    assert (left.steps, left.reasons) == ([57], ["exception"])

    monkeypatch.setattr(RoutingEnvironments, "step", original)
    elsewhere = make_config(
        checkpointing={"checkpoint_dir": config.checkpointing.checkpoint_dir + "_straight"}
    )
    assert train(config, load_checkpoint="latest").has_weights_of(train(elsewhere, "straight"))


def test_an_error_inside_a_decision_saves_no_half_state(
    make_config, train, left_by, at_step, monkeypatch
):
    def break_it(session):
        def broken(*arguments, **keys):
            raise RuntimeError("the policy broke")

        monkeypatch.setattr(session.learner.policy, "evaluate", broken)

    at_step(57, break_it)
    config = make_config(checkpointing={"checkpoint_interval": 50})
    with pytest.raises(RuntimeError, match="the policy broke"):
        train(config)
    assert left_by(config).steps == [50]


@pytest.mark.shows("checkpointing.save_async")
@pytest.mark.parametrize("background", [False, True])
def test_save_async_changes_when_it_is_written_not_what(make_config, train, background):
    config = make_config(checkpointing={"save_async": background, "checkpoint_interval": 32})
    trained = train(config)
    assert trained.steps == [128, 160, 192, 224, 240]
    resumed = make_config(
        checkpointing={
            "checkpoint_dir": config.checkpointing.checkpoint_dir + "_resumed",
            "resume_from_checkpoint": str(trained.infos[1].path),
        }
    )
    assert train(resumed, "resumed").has_weights_of(trained)


@pytest.mark.shows("checkpointing.keep_every")
def test_keep_every_is_permanent(make_config, train):
    config = make_config(
        checkpointing={"checkpoint_interval": 20, "max_checkpoints": 2, "keep_every": 60}
    )
    assert train(config).steps == [60, 120, 180, 220, 240]


def test_max_checkpoints_null_keeps_all(make_config, train):
    config = make_config(checkpointing={"checkpoint_interval": 40, "max_checkpoints": None})
    assert train(config).steps == [40, 80, 120, 160, 200, 240]
