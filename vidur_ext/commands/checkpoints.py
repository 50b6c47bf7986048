"""``vidur-ppo checkpoints``: look at the saved states of trainings, and look after them."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands import checkpoint_report as documents
from vidur_ext.commands import checkpoint_report as tables
from vidur_ext.commands.options import (
    DEFAULT_CONFIG,
    Strategy,
    chosen_folder,
    chosen_retention,
    chosen_section,
    load_checkpoint,
)
from vidur_ext.config.training_config import TrainingConfig

# The readers of checkpoints import torch, which takes seconds: not before they are needed.

app = typer.Typer(help="Look at checkpoints, and look after them.", no_args_is_help=True)

_NAMED = "A path, a PPO step of the folder, or latest"
Dir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="FOLDER",
        help="Folder of the checkpoints (default: checkpointing.checkpoint_dir of --config)",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help=f"JSON config (default: the program's {DEFAULT_CONFIG.name})", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]
Named = Annotated[str, typer.Argument(metavar="CHECKPOINT", help=_NAMED)]


@app.command("list")
def list_(
    dir_: Dir = None,
    config: Config = None,
    all_: Annotated[bool, typer.Option("--all", help="Archived ones as well")] = False,
    as_json: Json = False,
) -> None:
    """List the checkpoints of a folder, oldest first. Nothing is verified."""
    from ppo_scheduler.checkpoint.reading import catalog

    folder = chosen_folder(dir_, config)
    entries = catalog(folder, archives=all_)
    document = documents.listing(folder, entries, datetime.now(timezone.utc))
    _show(as_json, document, tables.print_listing)


@app.command()
def show(checkpoint: Named, dir_: Dir = None, config: Config = None, as_json: Json = False) -> None:
    """Read and verify a checkpoint, and tell what it holds and what it was trained with."""
    loaded = load_checkpoint(checkpoint, dir_, config)
    document = documents.description(loaded, TrainingConfig().settings())
    _show(as_json, document, tables.print_description)


@app.command()
def verify(
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHECKPOINT]...", help=f"{_NAMED} (default: all of the folder)"),
    ] = None,
    dir_: Dir = None,
    config: Config = None,
    all_: Annotated[bool, typer.Option("--all", help="Archived ones as well")] = False,
    as_json: Json = False,
) -> None:
    """Read and verify checkpoints completely; the exit status is 2 if one cannot be used."""
    from ppo_scheduler.checkpoint.reading import catalog

    if checkpoints and all_:
        raise UserError("--all means every checkpoint of the folder: leave it out to name some")
    named = checkpoints or [
        str(entry.path) for entry in catalog(chosen_folder(dir_, config), archives=all_)
    ]
    if not named:
        raise UserError(f"{chosen_folder(dir_, config)}: there are no checkpoints to verify")
    results = []
    for text in named:
        try:
            loaded = load_checkpoint(text, dir_, config)
            path = text if Path(text).exists() else str(loaded.path)  # a step, or latest
            results.append(documents.verdict(path, None))
        except UserError as bad:
            if checkpoints or Path(text).exists():  # else a training pruned it meanwhile
                results.append(documents.verdict(text, str(bad)))
    _show(as_json, {"checkpoints": results}, tables.print_verdicts)
    problems = [result["problem"] for result in results if not result["ok"]]
    if problems:
        raise UserError(
            f"{len(problems)} of {len(results)} checkpoints cannot be used:\n" + "\n".join(problems)
        )


@app.command()
def prune(
    dir_: Dir = None,
    config: Config = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="As checkpointing.max_checkpoints", metavar="N")
    ] = None,
    keep_every: Annotated[
        int | None,
        typer.Option(min=1, help="As checkpointing.keep_every of the training", metavar="N"),
    ] = None,
    strategy: Annotated[
        Strategy | None, typer.Option(help="As checkpointing.checkpoint_strategy")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    as_json: Json = False,
) -> None:
    """Delete the checkpoints that are not to be kept, after showing them and asking."""
    from ppo_scheduler.checkpoint.reading import catalog, recorded_keep_every
    from ppo_scheduler.checkpoint.store import CheckpointStore

    if as_json and not yes:
        raise UserError("--json is for programs, which nobody asks: say --yes with it")
    section = chosen_section(dir_, config, keep)
    folder = Path(section.checkpoint_dir)
    recorded = recorded_keep_every(catalog(folder, archives=False))
    retention = chosen_retention(section, keep, keep_every, strategy, recorded)
    with closing(CheckpointStore(section)) as store:
        store.prepare()
        gone = store.outdated(retention)
        newest = store.latest()
        if newest is not None and newest.path in gone:
            raise UserError(
                f"{newest.path}: is the newest good checkpoint and would be deleted, because later "
                "ones are damaged. Move those away first; vidur-ppo checkpoints verify names them"
            )
        document = documents.pruning(catalog(folder, archives=False), gone)
        if not as_json:
            tables.print_pruning(document)
        if gone and not yes and not _confirmed():
            typer.echo("nothing was deleted")
            return
        store.prune(retention)
    _show(as_json, document, tables.print_pruned)


@app.command()
def export(
    checkpoint: Named,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Policy file to write")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists")] = False,
    dir_: Dir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write the policy of a checkpoint alone: weights and feature statistics."""
    from ppo_scheduler.checkpoint.disk import disk_errors
    from ppo_scheduler.policy.routing_policy import save_policy_state

    if output.is_dir():
        raise UserError(f"{output}: is a folder; name the policy file to write")
    if os.path.lexists(output) and not force:
        raise UserError(f"{output}: exists already; name another file, or replace it with --force")
    loaded = load_checkpoint(checkpoint, dir_, config)
    state = documents.policy_state(loaded)
    with disk_errors(output, "the policy was not written", "Name a file in another folder"):
        save_policy_state(state, output)
    _show(as_json, documents.export(loaded, output), tables.print_export)


@app.command()
def diff(
    left: Annotated[str, typer.Argument(metavar="A", help=_NAMED)],
    right: Annotated[str, typer.Argument(metavar="B", help=_NAMED)],
    dir_: Dir = None,
    config: Config = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with status 1 if they differ")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare two checkpoints: settings, versions, counters and tensors bit by bit."""
    document = documents.comparison(
        load_checkpoint(left, dir_, config), load_checkpoint(right, dir_, config)
    )
    _show(as_json, document, tables.print_comparison)
    if exit_code and document["different"]:
        sys.exit(1)


def _show(as_json: bool, document: dict[str, Any], print_it: Any) -> None:
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print_it(document)


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask whether to delete them: say --yes")
    return typer.confirm("Delete them?")
