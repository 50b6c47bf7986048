"""Which training to continue, if any: flags first, then a question, never a guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from ppo_scheduler.checkpoint.store import CheckpointInfo
from ppo_scheduler.errors import UserError

Ask = Callable[[str], str]

_FLAGS = "--resume latest, --resume PATH, --resume never, or --resume auto"


@dataclass(frozen=True)
class Quit:
    """The operator chose to leave."""


@dataclass(frozen=True)
class StartAfresh:
    """Warm-start a new training."""


@dataclass(frozen=True)
class Resume:
    """Continue the training of this checkpoint (a path, or ``latest``)."""

    checkpoint: str


Choice = Quit | StartAfresh | Resume


def choose(resume: str, latest: CheckpointInfo | None, ask: Ask | None, now: datetime) -> Choice:
    """Decide what to do.

    Args:
        resume: ``ask`` (the default), ``auto``, ``latest``, ``never``, or a checkpoint's path.
        latest: the newest complete checkpoint of the checkpoint folder, if there is one.
        ask: shows a text and returns a line of input; None without a terminal.
        now: present time, for the age of the checkpoint.

    Raises:
        UserError: ``latest`` without a checkpoint, or a question without a terminal.
    """
    if resume == "never":
        return StartAfresh()
    if resume == "latest":
        if latest is None:
            raise UserError(
                "--resume latest: there is no complete checkpoint to resume from; look at "
                "checkpointing.checkpoint_dir, or start afresh with --resume never"
            )
        return Resume("latest")
    if resume not in ("ask", "auto"):
        return Resume(resume)
    if latest is None:
        return StartAfresh()
    if resume == "auto":
        return Resume("latest")
    if ask is None:
        raise UserError(
            f"there is a checkpoint ({latest.path}) and no terminal to ask whether to resume "
            f"from it: say {_FLAGS}"
        )
    return _ask(latest, ask, now)


def describe(info: CheckpointInfo, now: datetime) -> str:
    """Return the information block about a checkpoint."""
    manifest = info.manifest
    age = now - datetime.fromisoformat(manifest.created_at)
    minutes = int(age.total_seconds() // 60)
    return "\n".join(
        [
            f"  checkpoint   {info.path}",
            f"  PPO step     {manifest.ppo_step}",
            f"  decisions    {manifest.global_step}",
            f"  age          {minutes // 60} h {minutes % 60:02d} min ({manifest.created_at})",
            f"  size         {manifest.size_bytes / 1e6:.2f} MB",
            f"  run folder   {manifest.run_dir}",
        ]
    )


def _ask(latest: CheckpointInfo, ask: Ask, now: datetime) -> Choice:
    question = (
        f"A training can be resumed:\n{describe(latest, now)}\n"
        "  1) resume from this checkpoint\n"
        "  2) warm-start a new training (the checkpoint is moved aside, not deleted)\n"
        "  q) quit\n"
        "Your choice [1/2/q]: "
    )
    answers: dict[str, Choice] = {"1": Resume("latest"), "2": StartAfresh(), "q": Quit()}
    while True:
        answer = ask(question).strip().lower()
        if answer in answers:
            return answers[answer]
        question = f"{answer!r} is none of 1, 2, q. Your choice [1/2/q]: "


def local_now() -> datetime:
    """Return the present time with its zone."""
    return datetime.now(timezone.utc)
