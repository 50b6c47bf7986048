"""What commands share: their default configs, help from the config in use, and which checkpoints an
operator means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click
import typer

from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config

if TYPE_CHECKING:
    from ppo_scheduler.checkpoint.names import Retention
    from ppo_scheduler.checkpoint.reading import LoadedCheckpoint

CONFIGS = (Path(__file__).parents[1] / "configs").resolve()
"""The program's own configs, from whatever folder it is started: those of the checkout, or in an
installed wheel the same files inside the package."""
DEFAULT_CONFIG = CONFIGS / "ppo_warmstart.json"
QUICK_CONFIG = CONFIGS / "quick_test.json"

Strategy = Literal["last_n", "top_k_val"]


def chosen_folder(dir_: Path | None, config: Path | None) -> Path:
    """Return the checkpoints' folder: the one named, or the config's.

    Raises:
        UserError: neither is known, or the config is wrong.
    """
    if dir_ is not None:
        return dir_
    return Path(load_config(config or DEFAULT_CONFIG).checkpointing.checkpoint_dir)


def chosen_section(
    dir_: Path | None, config: Path | None, keep: int | None
) -> CheckpointingSection:
    """Return the config's section, with the folder that was named.

    Raises:
        UserError: it is not known how many to keep; a guess could delete too much.
    """
    if dir_ is None:
        return load_config(config or DEFAULT_CONFIG).checkpointing
    if config is not None:
        section = load_config(config).checkpointing
        return section.model_copy(update={"checkpoint_dir": str(dir_)})
    if keep is None:
        raise UserError(
            "how many checkpoints to keep is not known: say --keep N, or name with --config the "
            "config whose checkpointing.max_checkpoints says it"
        )
    return CheckpointingSection(checkpoint_dir=str(dir_))


def chosen_retention(
    section: CheckpointingSection,
    keep: int | None,
    keep_every: int | None,
    strategy: Strategy | None,
    recorded_keep_every: int | None,
) -> Retention:
    """Return the config's retention with what the command line changes.

    What the training called permanent stays so, unless config or command line say otherwise.
    """
    from ppo_scheduler.checkpoint.names import Retention

    configured = Retention.of(section)
    return Retention(
        strategy or configured.strategy,
        configured.keep if keep is None else keep,
        keep_every or configured.keep_every or recorded_keep_every,
    )


def load_checkpoint(text: str, dir_: Path | None, config: Path | None) -> LoadedCheckpoint:
    """Read and verify a checkpoint given as a path, a PPO step or ``latest``.

    Bad ones that are newer than the latest good one are named on standard error.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    from ppo_scheduler.checkpoint.reading import read_latest, read_named, read_step

    if text.isascii() and text.isdecimal():
        return read_step(chosen_folder(dir_, config), int(text))
    if text != "latest":
        return read_named(Path(text))
    loaded = read_latest(chosen_folder(dir_, config))
    for path, reason in loaded.skipped:
        typer.echo(f"skipped {path}: {reason}", err=True)
    return loaded


def show_help(context: typer.Context, config: Path, keys: Mapping[str, str]) -> NoReturn:
    """Print the help of a command and leave.

    Args:
        config: file whose values are the defaults; without it those of an empty config are.
        keys: dotted config key of each parameter that sets one.
    """
    settings = load_config(config if config.exists() else None).settings()
    for parameter in context.command.params:
        key = keys.get(parameter.name or "")
        if key is not None and isinstance(parameter, click.Option):
            value = "none" if settings[key] is None else json.dumps(settings[key])
            parameter.help = f"{parameter.help}; default {value} ({key})"
    typer.echo(context.get_help())
    context.exit()
