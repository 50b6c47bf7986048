"""``vidur-ppo pretrain``: clone the teachers into a policy that trainings begin with."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands.options import DEFAULT_CONFIG, show_help
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from vidur_ext.run_folder import RunFolder
    from vidur_ext.warmstart.behaviour_cloning import CloningResult

SHORTCUTS = {
    "bc_epochs": "warmstart.epochs",
    "demo_steps": "warmstart.demo_requests",
    "seed": "training.seed",
}


def _help(context: typer.Context, asked: bool) -> None:
    if asked:
        keys = {**SHORTCUTS, "output_dir": "training.output_root"}
        show_help(context, Path(context.params.get("config") or DEFAULT_CONFIG), keys)


def pretrain(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help=f"JSON config; default: the program's {DEFAULT_CONFIG.name}", is_eager=True
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. workload.qps=30"),
    ] = None,
    demonstrations: Annotated[
        Path | None,
        typer.Option(metavar="SET", help="Clone from this set instead of collecting anew"),
    ] = None,
    finetune: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Policy file to begin with")
    ] = None,
    bc_epochs: Annotated[int | None, typer.Option(help="Epochs of cloning at most")] = None,
    demo_steps: Annotated[
        int | None, typer.Option(help="Demonstrated decisions per teacher and load")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The only seed")] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Empty or new folder, instead of pretrain/run_<time> of the output root"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs")] = False,
    help_: Annotated[
        bool, typer.Option("--help", callback=_help, help="Show this message and exit")
    ] = False,
) -> None:
    """Clone the teachers, or fine-tune a policy, and keep it as pretrained_actor.pt."""
    if demonstrations is not None and demo_steps is not None:
        raise UserError(
            "--demo-steps is for new demonstrations, --demonstrations brings its own: say one"
        )
    options = context.params
    values = {key: options[name] for name, key in SHORTCUTS.items() if options[name] is not None}
    loaded = load_config(
        config or DEFAULT_CONFIG, [*(f"{k}={v}" for k, v in values.items()), *(set_ or [])]
    )
    if demonstrations is not None:
        from vidur_ext.warmstart.sets import open_set

        open_set(demonstrations).check(loaded)
    # The simulator and torch take seconds to import: not before the command line is known good.
    if finetune is not None:
        from vidur_ext.warmstart.external_model import validate_model

        validate_model(finetune, loaded)
    folder, result = _run(loaded, demonstrations, finetune, output_dir, quiet=quiet)
    training = _training_command(config, set_ or [], folder.pretrained_actor)
    document = _document(folder, result, loaded, training)
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif not quiet:
        _print(document)


def _run(
    config: TrainingConfig,
    demonstrations: Path | None,
    finetune: Path | None,
    output_dir: Path | None,
    *,
    quiet: bool,
) -> tuple[RunFolder, CloningResult]:
    from ppo_scheduler.errors import Interrupted
    from vidur_ext.runs.pretraining import Pretraining, pretrain, pretraining_folder
    from vidur_ext.workload.held_out import describe_workload

    # Before there is a folder: a trace that is missing leaves none behind.
    wanted = Pretraining(config, describe_workload(config), demonstrations, finetune)
    folder = pretraining_folder(Path(config.training.output_root), output_dir)
    try:
        return folder, pretrain(wanted, folder, quiet=quiet)
    except KeyboardInterrupt:
        outcome = f"{folder.path} holds no pretrained_actor.pt"
        if folder.pretrained_actor.exists():
            outcome = f"{folder.pretrained_actor} is whole"
        raise Interrupted(signal.SIGINT, outcome) from None


def _training_command(config: Path | None, overrides: list[str], actor: Path) -> str:
    """Return the command that trains from the policy, under the same config."""
    words = ["vidur-ppo", "train", *(["--config", str(config)] if config else [])]
    for override in overrides:
        words += ["--set", override]
    return shlex.join([*words, "--external-pretrain", str(actor)])


def _document(
    folder: RunFolder, result: CloningResult, config: TrainingConfig, command: str
) -> dict[str, Any]:
    from vidur_ext.runs.pretraining import stopped_early

    return {
        "run": str(folder.path),
        "policy": str(folder.pretrained_actor),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "stopped_early": stopped_early(result, config),
        "holdout_loss": result.best.holdout_loss,
        "accuracy": result.best.accuracy,
        "train_with": command,
    }


def _print(document: dict[str, Any]) -> None:
    typer.echo(f"policy       {document['policy']}")
    early = ", stopped early" if document["stopped_early"] else ""
    typer.echo(f"epochs       {document['epochs']} (best: {document['best_epoch']}{early})")
    typer.echo(f"held-out     loss {document['holdout_loss']:.4f}")
    for teacher, share in document["accuracy"].items():
        typer.echo(f"             {share:.1%} as {teacher}")
    typer.echo(f"train with   {document['train_with']}")
