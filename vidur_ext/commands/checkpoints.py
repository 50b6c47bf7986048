"""``vidur-ppo checkpoints``: look at the saved states of trainings, and look after them."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands import checkpoint_report as report
from vidur_ext.commands.options import (
    Config,
    DoNotAsk,
    Json,
    Strategy,
    chosen_folder,
    chosen_retention,
    chosen_section,
    confirmed,
    load_checkpoint,
)
from vidur_ext.commands.printing import show
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from vidur_ext.gateway.trained import Trained

# The readers of checkpoints import torch, which takes seconds: not before they are needed.

app = typer.Typer(help="Look at checkpoints, and look after them.", no_args_is_help=True)

_NAMED = "A path, a PPO step of the folder, or latest"
Dir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="FOLDER",
        help="Folder of the checkpoints (default: that of --config, else the newest run's)",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="Archived ones as well")]
Named = Annotated[str, typer.Argument(metavar="CHECKPOINT", help=_NAMED)]


@app.command("list")
def list_checkpoints(
    dir_: Dir = None,
    config: Config = None,
    all_: All = False,
    as_json: Json = False,
) -> None:
    """List the checkpoints of a folder, oldest first. Nothing is verified."""
    from ppo_scheduler.checkpoint.reading import catalog

    folder = chosen_folder(dir_, config)
    entries = catalog(folder, archives=all_)
    document = report.checkpoints_found(folder, entries, datetime.now(timezone.utc))
    show(document, report.print_checkpoints_found, as_json=as_json)


@app.command("show")
def show_checkpoint(
    checkpoint: Named, dir_: Dir = None, config: Config = None, as_json: Json = False
) -> None:
    """Read and verify a checkpoint, and tell what it holds and what it was trained with."""
    loaded = load_checkpoint(checkpoint, dir_, config)
    document = report.checkpoint_contents(loaded, TrainingConfig().settings())
    show(document, report.print_checkpoint_contents, as_json=as_json)


@app.command()
def verify(
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHECKPOINT]...", help=f"{_NAMED} (default: all of the folder)"),
    ] = None,
    dir_: Dir = None,
    config: Config = None,
    all_: All = False,
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
            results.append(report.verification(path, None))
        except UserError as bad:
            if checkpoints or Path(text).exists():  # else a training pruned it meanwhile
                results.append(report.verification(text, str(bad)))
    show({"checkpoints": results}, report.print_verifications, as_json=as_json)
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
    archives: Annotated[
        int | None,
        typer.Option(min=0, help="Delete archived ones instead, but of the newest N", metavar="N"),
    ] = None,
    yes: DoNotAsk = False,
    as_json: Json = False,
) -> None:
    """Delete the checkpoints that are not to be kept, after showing them and asking."""
    from ppo_scheduler.checkpoint.reading import catalog, recorded_keep_every
    from ppo_scheduler.checkpoint.store import CheckpointStore

    if as_json and not yes:
        raise UserError("--json is for programs, which nobody asks: say --yes with it")
    if archives is not None:
        if (keep, keep_every, strategy) != (None, None, None):
            raise UserError(
                "--archives says what stays of the archive; --keep, --keep-every and --strategy "
                "are for what a training may continue: prune one after the other"
            )
        _prune_archives(chosen_folder(dir_, config), archives, yes=yes, as_json=as_json)
        return
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
        document = report.pruning(catalog(folder, archives=False), gone)
        if not as_json:
            report.print_what_would_go(document)
        if gone and not yes and not confirmed("Delete them?"):
            typer.echo("nothing was deleted")
            return
        store.prune(retention)
    show(document, report.print_pruned, as_json=as_json)


def _prune_archives(folder: Path, keep: int, *, yes: bool, as_json: bool) -> None:
    from ppo_scheduler.checkpoint.reading import catalog
    from ppo_scheduler.checkpoint.store import CheckpointStore
    from ppo_scheduler.config.learner_sections import CheckpointingSection

    listed = catalog(folder, archives=True)
    with closing(CheckpointStore(CheckpointingSection(checkpoint_dir=str(folder)))) as store:
        store.prepare()
        going = store.old_archives(keep)
        archived = [entry for entry in listed if entry.archive is not None]
        gone = [entry.path for entry in archived if entry.path.parent in going]
        document = report.pruning(archived, gone)
        if not as_json:
            report.print_what_would_go(document)
        if gone and not yes and not confirmed("Delete them?"):
            typer.echo("nothing was deleted")
            return
        store.prune_archives(keep)
    show(document, report.print_pruned, as_json=as_json)


@app.command("export")
def export_policy(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help=f"{_NAMED}; or the policy.pt of a run")
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="NAME.pt for this program, or NAME.json for a gateway, to write"
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists")] = False,
    dir_: Dir = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="JSON config of the folder, and of the cluster in front of which NAME.json shall "
            "route (default: the one it was trained for)",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the policy of a checkpoint alone: weights and feature statistics.

    A NAME.json routes without torch, and says what each feature is: see docs/deploy.md.
    """
    from ppo_scheduler.files import disk_errors
    from ppo_scheduler.policy.routing_policy import save_policy_state

    if output.is_dir():
        raise UserError(f"{output}: is a folder; name the policy file to write")
    if output.suffix not in (".pt", ".json"):
        raise UserError(f"{output}: name it NAME.pt for this program, or NAME.json for a gateway")
    if os.path.lexists(output) and not force:
        raise UserError(f"{output}: exists already; name another file, or replace it with --force")
    trained = _trained(checkpoint, dir_, config)
    with disk_errors(output, "the policy was not written", "Name a file in another folder"):
        if output.suffix == ".json":
            from vidur_ext.gateway.export import export_for_gateway

            cluster = trained.config() if config is None else load_config(config)
            export_for_gateway(trained, cluster, output)
        else:
            save_policy_state(trained.state, output)
    show(report.exported(trained, output), report.print_exported, as_json=as_json)


def _trained(text: str, dir_: Path | None, config: Path | None) -> Trained:
    """Return what a training saved, given as a checkpoint or as the file of a policy."""
    from ppo_scheduler.checkpoint.names import parse
    from ppo_scheduler.policy.routing_policy import read_policy_state
    from vidur_ext.gateway.trained import Trained

    file = Path(text)
    if file.is_file() and parse(file.resolve().name) is None:
        return Trained(read_policy_state(file), file, None)
    loaded = load_checkpoint(text, dir_, config)
    return Trained(report.policy_state(loaded), loaded.path, loaded.manifest)


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
    document = report.checkpoint_diff(
        load_checkpoint(left, dir_, config), load_checkpoint(right, dir_, config)
    )
    show(document, report.print_checkpoint_diff, as_json=as_json)
    if exit_code and document["different"]:
        sys.exit(1)
