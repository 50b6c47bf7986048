"""How a training begins: flags first, then a question, never a guess.

The decision table, with the answer that ``--yes`` takes first:

==========  ============  ==========  ======================================================
asked for   external      checkpoint  outcome
==========  ============  ==========  ======================================================
afresh      any           any         warm start; the checkpoint is ignored, kept on disk
``ask``     yes           yes         1 resume, 2 warm start (fine-tuning), 3 external as is
``ask``     yes           no          1 external as is, 2 warm start (fine-tuning)
``ask``     no            yes         1 resume, 2 warm start
``ask``     no            no          warm start, no question
==========  ============  ==========  ======================================================

Without cloning (``warmstart.enabled`` off, ``--skip-bc-training``) nothing can be fine-tuned: an
external model is used as it is, and the option to fine-tune it is not offered. Nor is resuming
offered where it would fail; the other options keep their numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ppo_scheduler.checkpoint.names import LATEST
from ppo_scheduler.checkpoint.store import CheckpointInfo
from ppo_scheduler.errors import UserError
from vidur_ext.config.resume_rules import Effect, differences

Ask = Callable[[str], str]


@dataclass(frozen=True)
class Quit:
    """The operator chose to leave."""


@dataclass(frozen=True)
class WarmStart:
    """Begin a new training; cloning, if it is on, fine-tunes the external model, if there is one.

    Existing checkpoints are moved aside.
    """


@dataclass(frozen=True)
class ExternalOnly:
    """Begin a new training with the external model as it is."""


@dataclass(frozen=True)
class Resume:
    """Continue the training of this checkpoint (a path, or ``latest``)."""

    checkpoint: str


Choice = Quit | WarmStart | ExternalOnly | Resume


@dataclass(frozen=True)
class Wishes:
    """What command line and config say about the beginning."""

    resume: str = "ask"
    """``ask``, ``auto``, ``latest``, ``never``, or a checkpoint's path."""
    external: Path | None = None
    use_external: bool = False
    yes: bool = False
    cloning: bool = True

    def check(self) -> None:
        """Raise ``UserError`` if the flags contradict each other."""
        if self.use_external and self.external is None:
            raise UserError("--use-external needs the model: say --external-pretrain PATH too")
        if self.use_external and self.resume not in ("ask", "auto", "never"):
            raise UserError(
                f"--use-external begins a new training, --resume {self.resume} continues one: say "
                "one of them"
            )


@dataclass(frozen=True)
class _Option:
    key: str
    text: str
    choice: Choice
    flag: str


_Entry = tuple[str, Choice, str]
"""Text, choice and flag of an option that has no number yet."""


def choose(
    wishes: Wishes,
    latest: CheckpointInfo | None,
    ask: Ask | None,
    describe: Callable[[CheckpointInfo], str],
    refused: Callable[[CheckpointInfo], bool] = lambda info: False,
) -> Choice:
    """Decide how to begin.

    Args:
        latest: the newest complete checkpoint of the checkpoint folder, if there is one.
        ask: shows a text and returns a line of input; None without a terminal.
        describe: returns the information block about a checkpoint.
        refused: tells whether to resume from a checkpoint would fail.

    Raises:
        UserError: contradicting flags, ``latest`` without a checkpoint, or a question without a
            terminal.
    """
    wishes.check()
    settled = _settled(wishes, latest)
    if settled is not None:
        return settled
    options = _options(wishes, latest)
    if wishes.yes or len(options) == 1:
        return options[0].choice
    if ask is None:
        raise UserError(_no_terminal(wishes, latest, options))
    if latest is not None and refused(latest):
        options = [option for option in options if not isinstance(option.choice, Resume)]
    return _ask(_question(wishes, latest, options, describe), options, ask)


def _settled(wishes: Wishes, latest: CheckpointInfo | None) -> Choice | None:
    """Return what the flags alone decide, None if a question is left."""
    afresh = ExternalOnly() if _as_is(wishes) else WarmStart()
    if wishes.resume == "never":
        return afresh
    if wishes.resume == "auto" and latest is not None:
        return Resume("latest")
    if wishes.resume == "latest" and latest is None:
        raise UserError(
            "--resume latest: there is no complete checkpoint to resume from; look at "
            "checkpointing.checkpoint_dir, or start afresh with --resume never"
        )
    if wishes.resume not in ("ask", "auto"):
        return Resume(wishes.resume)
    return ExternalOnly() if wishes.use_external else None


def _as_is(wishes: Wishes) -> bool:
    return wishes.external is not None and (wishes.use_external or not wishes.cloning)


def _options(wishes: Wishes, latest: CheckpointInfo | None) -> list[_Option]:
    """Return the row of the decision table, the recommended option first."""
    resume: _Entry = ("resume from this checkpoint", Resume("latest"), "--resume latest")
    begin = "--force-warmstart" if wishes.cloning else "--resume never"
    afresh: _Entry = (_afresh(wishes), WarmStart(), begin)
    external: _Entry = ("use the external model as it is", ExternalOnly(), "--use-external")
    if wishes.external is None:
        row = [afresh] if latest is None else [resume, afresh]
    else:
        row = [external, afresh] if latest is None else [resume, afresh, external]
    options = [_Option(str(number), *entry) for number, entry in enumerate(row, start=1)]
    if wishes.external is not None and not wishes.cloning:
        return [option for option in options if option.choice != WarmStart()]
    return options


def _afresh(wishes: Wishes) -> str:
    if wishes.external is not None:
        return "warm-start a new training: new demonstrations fine-tune the external model"
    if wishes.cloning:
        return "warm-start a new training"
    return "start a new training without a warm start"


def _question(
    wishes: Wishes,
    latest: CheckpointInfo | None,
    options: list[_Option],
    describe: Callable[[CheckpointInfo], str],
) -> str:
    lines = []
    if latest is not None:
        resumable = any(isinstance(option.choice, Resume) for option in options)
        can = (
            "can be resumed:" if resumable else "is there, and cannot be resumed with this config:"
        )
        lines += [f"A training {can}", describe(latest)]
    if wishes.external is not None:
        lines += [f"An external model is given: {wishes.external}"]
    lines += [f"  {option.key}) {option.text}" for option in options]
    lines += ["  q) quit"]
    if latest is not None:
        lines += ["A new training moves existing checkpoints aside and deletes none."]
    return "\n".join([*lines, f"Your choice [{_keys(options, '/')}]: "])


def _keys(options: list[_Option], separator: str) -> str:
    return separator.join([*(option.key for option in options), "q"])


def _ask(question: str, options: list[_Option], ask: Ask) -> Choice:
    answers: dict[str, Choice] = {option.key: option.choice for option in options}
    answers["q"] = Quit()
    while True:
        answer = ask(question).strip().lower()
        if answer in answers:
            return answers[answer]
        question = (
            f"{answer!r} is none of {_keys(options, ', ')}. Your choice [{_keys(options, '/')}]: "
        )


def _no_terminal(wishes: Wishes, latest: CheckpointInfo | None, options: list[_Option]) -> str:
    there = [f"a checkpoint ({latest.path})"] if latest is not None else []
    there += [f"an external model ({wishes.external})"] if wishes.external is not None else []
    flags = [(option.flag, option.text) for option in options]
    flags.append(("--yes", options[0].text))
    if latest is not None:
        flags += [
            ("--resume PATH", "resume from another checkpoint"),
            ("--resume never", "start afresh, as --force-warmstart"),
            ("--resume auto", "resume from the newest checkpoint whenever there is one"),
        ]
    listed = "\n".join(f"  {flag:18} {text}" for flag, text in flags)
    return (
        f"there is {' and '.join(there)}, and no terminal to ask how to begin. Say one of\n{listed}"
    )


def describe(
    info: CheckpointInfo, settings: Mapping[str, Any], kept: Sequence[str], now: datetime
) -> str:
    """Return the information block about a checkpoint.

    Args:
        settings: those a training would go on with, by their dotted names.
        kept: what the present config says otherwise, in words.
        now: present time, for the checkpoint's age.
    """
    manifest = info.manifest
    done = requests_done(info)
    age = _age(now, datetime.fromisoformat(manifest.created_at))
    first, *more = [*_changes(manifest.settings, settings), *kept]
    finished = is_finished(info, settings["training.total_requests"])
    state = "finished; a larger --total-requests goes on" if finished else "unfinished"
    return "\n".join(
        [
            f"  latest.pt    {_target(info.path.parent / LATEST)}",
            f"  checkpoint   {info.path}",
            f"  training     {state}",
            f"  PPO step     {manifest.ppo_step}",
            f"  decisions    {manifest.global_step}; {done} requests of the stream",
            f"  age          {age} ({manifest.created_at}, saved because of: {manifest.reason})",
            f"  size         {manifest.size_bytes / 1e6:.2f} MB",
            f"  run folder   {manifest.run_dir}",
            f"  settings     {first}",
            *(f"               {change}" for change in more),
        ]
    )


def requests_done(info: CheckpointInfo) -> int:
    """Return how many requests of the stream are trained in a checkpoint."""
    return int(info.manifest.facts.get("requests_done", info.manifest.global_step))


def is_finished(info: CheckpointInfo, total_requests: int) -> bool:
    """Tell whether a checkpoint is the end of a training of so many requests."""
    return info.manifest.reason == "end" and requests_done(info) >= total_requests


def _target(link: Path) -> str:
    if link.is_symlink():
        return f"-> {os.readlink(link)}" + ("" if link.exists() else " (which is not there)")
    return "is no link" if link.exists() else "missing; the newest good checkpoint counts"


def _age(now: datetime, created: datetime) -> str:
    seconds = int((now - created).total_seconds())
    if seconds < 0:
        return "saved in the future by this machine's clock"
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60:02d} min" if seconds >= 60 else f"{seconds} s"


def _changes(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    if not saved:
        return ["not recorded in this checkpoint"]
    changes = differences(saved, settings)
    listed = [str(change) for change in changes if change.rule.effect is not Effect.NONE]
    others = len(changes) - len(listed)
    if others:
        changed = "other setting has" if others == 1 else "other settings have"
        listed.append(f"{others} {changed} changed, of no concern to learning")
    return listed or ["as they are now"]


def is_refused(info: CheckpointInfo, settings: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint's settings differ in what cannot be changed."""
    changes = differences(info.manifest.settings, settings)
    return any(change.rule.effect is Effect.REFUSED for change in changes)
