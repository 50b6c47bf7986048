"""Every row of the decision table, every flag that answers it, every answer at the question."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ppo_scheduler.checkpoint.manifest import Manifest
from ppo_scheduler.checkpoint.store import CheckpointInfo
from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.runs.resume_choice import (
    ExternalOnly,
    Quit,
    Resume,
    WarmStart,
    Wishes,
    choose,
    describe,
)

NOW = datetime(2030, 1, 2, 3, 4, tzinfo=timezone.utc)
MODEL = Path("given/policy.pt")


CLIP_RATIO = TrainingConfig().ppo_config.clip_ratio


def checkpoint(folder: Path = Path("saved"), **change: object) -> CheckpointInfo:
    facts = {
        "ppo_step": 128,
        "global_step": 256,
        "reason": "interval",
        "run_dir": "outputs/run_1",
        "config_digest": "0" * 64,
        "num_replicas": 4,
        "val_score": None,
        "versions": {},
        "facts": {"requests_done": 250},
        "settings": TrainingConfig().settings(),
        "schema_version": 2,
        "file": "checkpoint_step_00000128.pt",
        "created_at": (NOW - timedelta(hours=30, minutes=5)).isoformat(),
        "size_bytes": 1_500_000,
        "sha256": "0" * 64,
        "parts": ["learner"],
        **change,
    }
    return CheckpointInfo(folder / "checkpoint_step_00000128.pt", Manifest.model_validate(facts))


class Operator:
    """Types its answers, one after the other, and keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return self.answers.pop(0)


def block(info: CheckpointInfo) -> str:
    return f"<block of {info.path.name}>"


LATEST = checkpoint()
SITUATIONS = list(itertools.product([None, MODEL], [None, LATEST], [True, False]))


@pytest.mark.parametrize(
    ("external", "latest", "answer", "outcome"),
    [
        (MODEL, LATEST, "1", Resume("latest")),
        (MODEL, LATEST, "2", WarmStart()),
        (MODEL, LATEST, "3", ExternalOnly()),
        (MODEL, LATEST, "q", Quit()),
        (MODEL, None, "1", ExternalOnly()),
        (MODEL, None, "2", WarmStart()),
        (MODEL, None, "q", Quit()),
        (None, LATEST, "1", Resume("latest")),
        (None, LATEST, "2", WarmStart()),
        (None, LATEST, "q", Quit()),
    ],
)
def test_every_answer_of_every_row(external, latest, answer, outcome):
    for typed in (answer, answer.upper(), f"  {answer} "):
        assert choose(Wishes(external=external), latest, Operator(typed), block) == outcome


def test_with_nothing_there_nobody_is_asked():
    assert choose(Wishes(), None, None, block) == WarmStart()


@pytest.mark.parametrize(("external", "latest", "cloning"), SITUATIONS)
def test_never_begins_anew_without_a_question(external, latest, cloning):
    wishes = Wishes(resume="never", external=external, cloning=cloning)
    as_is = external is not None and not cloning
    assert choose(wishes, latest, None, block) == (ExternalOnly() if as_is else WarmStart())


@pytest.mark.parametrize("answer", ["", "0", "3", "yes", "12", "1 2", "Q!", "quit"])
def test_anything_else_asks_again(answer):
    operator = Operator(answer, "nonsense", "2")
    assert choose(Wishes(), LATEST, operator, block) == WarmStart()
    assert len(operator.questions) == 3
    assert "is none of 1, 2, q" in operator.questions[1]


def test_the_question_shows_the_checkpoint_the_model_and_the_answers():
    operator = Operator("q")
    choose(Wishes(external=MODEL), LATEST, operator, block)
    [question] = operator.questions
    for text in ("<block of", str(MODEL), "1) resume", "2) warm-start", "3) use", "[1/2/3/q]"):
        assert text in question


@pytest.mark.parametrize("latest", [None, LATEST])
def test_a_model_that_may_not_be_fine_tuned_is_used_as_it_is(latest):
    wishes = Wishes(external=MODEL, cloning=False)
    if latest is None:
        assert choose(wishes, None, None, block) == ExternalOnly()
        return
    operator = Operator("2", "3")
    assert choose(wishes, latest, operator, block) == ExternalOnly()
    assert "[1/3/q]" in operator.questions[0]


@pytest.mark.parametrize(("external", "latest", "cloning"), SITUATIONS)
def test_yes_takes_the_first_answer(external, latest, cloning):
    wishes = Wishes(external=external, cloning=cloning)
    chosen = choose(dataclasses.replace(wishes, yes=True), latest, None, block)
    assert chosen == choose(wishes, latest, Operator("1"), block)


@pytest.mark.parametrize("resume", ["ask", "auto", "never"])
@pytest.mark.parametrize("latest", [None, LATEST])
def test_use_external_answers_except_where_auto_resumes(resume, latest):
    wishes = Wishes(resume=resume, external=MODEL, use_external=True)
    resumes = resume == "auto" and latest is not None
    assert choose(wishes, latest, None, block) == (Resume("latest") if resumes else ExternalOnly())


def test_auto_resumes_and_leaves_the_other_questions():
    assert choose(Wishes(resume="auto"), LATEST, None, block) == Resume("latest")
    assert choose(Wishes(resume="auto"), None, None, block) == WarmStart()
    asked = Wishes(resume="auto", external=MODEL)
    assert choose(asked, None, Operator("2"), block) == WarmStart()


def test_a_named_checkpoint_is_taken_whatever_else_is_there():
    for external, latest, cloning in SITUATIONS:
        wishes = Wishes(resume="some/file.pt", external=external, cloning=cloning)
        assert choose(wishes, latest, None, block) == Resume("some/file.pt")


def test_latest_needs_a_checkpoint():
    with pytest.raises(UserError, match="no complete checkpoint"):
        choose(Wishes(resume="latest"), None, None, block)


@pytest.mark.parametrize(
    ("wishes", "latest", "flags"),
    [
        (
            Wishes(external=MODEL),
            LATEST,
            {"--resume latest", "--resume PATH", "--resume never", "--resume auto"}
            | {"--force-warmstart", "--use-external", "--yes"},
        ),
        (Wishes(external=MODEL), None, {"--force-warmstart", "--use-external", "--yes"}),
        (
            Wishes(),
            LATEST,
            {"--resume latest", "--resume PATH", "--resume never", "--resume auto"}
            | {"--force-warmstart", "--yes"},
        ),
    ],
)
def test_without_a_terminal_the_error_lists_exactly_the_flags_that_answer(wishes, latest, flags):
    with pytest.raises(UserError) as caught:
        choose(wishes, latest, None, block)
    listed = [line.split("  ")[1] for line in str(caught.value).splitlines()[1:]]
    assert set(listed) == flags
    assert len(listed) == len(flags)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(use_external=True), "--external-pretrain PATH"),
        (Wishes(resume="latest", external=MODEL, use_external=True), "say one of them"),
        (Wishes(resume="a.pt", external=MODEL, use_external=True), "say one of them"),
    ],
)
def test_contradicting_flags_are_refused(wishes, message):
    with pytest.raises(UserError, match=message):
        choose(wishes, LATEST, None, block)


def test_the_block_names_what_an_operator_asks_for(tmp_path):
    (tmp_path / "latest.pt").symlink_to("checkpoint_step_00000128.pt")
    info = checkpoint(tmp_path)
    info.path.write_bytes(b"")
    now = TrainingConfig.model_validate(
        {"ppo_config": {"clip_ratio": 0.5}, "training": {"seed": 3}, "monitoring": {"csv": False}}
    )
    text = describe(info, now.settings(), ["kept.key: as it was"], NOW)
    for expected in (
        "latest.pt    -> checkpoint_step_00000128.pt",
        "PPO step     128",
        "decisions    256; 250 requests",
        "age          30 h 05 min",
        "saved because of: interval",
        "size         1.50 MB",
        "run folder   outputs/run_1",
        f"ppo_config.clip_ratio: {CLIP_RATIO} in the checkpoint, 0.5 now (counts from here on",
        "training.seed: 0 in the checkpoint, 3 now (cannot be changed",
        "1 other setting has changed, of no concern to learning",
        "kept.key: as it was",
        "training     unfinished",
    ):
        assert expected in text
    assert "monitoring.csv" not in text


def test_the_block_says_when_nothing_changed_and_when_nobody_knows(tmp_path):
    settings = TrainingConfig().settings()
    assert "as they are now" in describe(checkpoint(tmp_path), settings, [], NOW)
    assert "not recorded" in describe(checkpoint(tmp_path, settings={}), settings, [], NOW)


def test_the_block_says_that_a_training_is_finished(tmp_path):
    settings = TrainingConfig().settings()
    end = {"reason": "end", "facts": {"requests_done": settings["training.total_requests"]}}
    ended = checkpoint(tmp_path, **end)
    assert "training     finished; a larger --total-requests" in describe(ended, settings, [], NOW)
    more = {**settings, "training.total_requests": settings["training.total_requests"] + 100}
    assert "training     unfinished" in describe(ended, more, [], NOW)


def test_the_block_says_what_became_of_latest(tmp_path):
    settings = TrainingConfig().settings()
    assert "missing; the newest good" in describe(checkpoint(tmp_path), settings, [], NOW)
    (tmp_path / "latest.pt").symlink_to("nowhere.pt")
    assert "-> nowhere.pt (which is not there)" in describe(checkpoint(tmp_path), settings, [], NOW)
    (tmp_path / "latest.pt").unlink()
    (tmp_path / "latest.pt").write_bytes(b"")
    assert "is no link" in describe(checkpoint(tmp_path), settings, [], NOW)


def test_a_clock_that_went_back_gives_no_negative_age(tmp_path):
    text = describe(checkpoint(tmp_path), TrainingConfig().settings(), [], NOW - timedelta(days=10))
    assert "in the future by this machine's clock" in text
