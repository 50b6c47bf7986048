"""``vidur-ppo pretrain``: teach a policy that trainings begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands.options import (
    DEFAULT_CONFIG,
    WARMSTART_SHORTCUTS,
    BcEpochs,
    ConfigOfHelp,
    DemonstrationsOption,
    DemoSteps,
    Json,
    Quiet,
    Seed,
    help_option,
    overrides,
    set_option,
)
from vidur_ext.commands.printing import Document, print_json
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from vidur_ext.run_folder import RunFolder
    from vidur_ext.warmstart.taught_policy import TaughtPolicy

PRETRAIN_SHORTCUTS = {
    **WARMSTART_SHORTCUTS,
    "seed": ("training.seed",),
}


def pretrain(
    context: typer.Context,
    config: ConfigOfHelp = None,
    set_: Annotated[list[str] | None, set_option("Override one key, e.g. workload.qps=30")] = None,
    demonstrations: DemonstrationsOption = None,
    finetune: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Policy file to begin with")
    ] = None,
    bc_epochs: BcEpochs = None,
    demo_steps: DemoSteps = None,
    seed: Seed = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Empty or new folder, instead of pretrain/run_<time> of the output root"),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    help_: Annotated[
        bool, help_option({**PRETRAIN_SHORTCUTS, "output_dir": ("training.output_root",)})
    ] = False,
) -> None:
    """Teach a policy, new or to be fine-tuned, and keep it as pretrained_actor.pt."""
    if demonstrations is not None and demo_steps is not None:
        raise UserError(
            "--demo-steps is for new demonstrations, --demonstrations brings its own: say one"
        )
    shortcuts = overrides(context.params, PRETRAIN_SHORTCUTS)
    loaded = load_config(config or DEFAULT_CONFIG, [*shortcuts, *(set_ or [])])
    if demonstrations is not None:
        from vidur_ext.warmstart.sets import open_set

        open_set(demonstrations).check(loaded)
    # The simulator and torch take seconds to import: not before the command line is known good.
    if finetune is not None:
        from vidur_ext.warmstart.external_model import check_model

        check_model(finetune, loaded)
    folder, result = _run(loaded, demonstrations, finetune, output_dir, quiet=quiet)
    training = _training_command(config, set_ or [], folder.pretrained_actor)
    document = _document(folder, result, loaded, training)
    if as_json:
        print_json(document)
    elif not quiet:
        _print(document)


def _run(
    config: TrainingConfig,
    demonstrations: Path | None,
    finetune: Path | None,
    output_dir: Path | None,
    *,
    quiet: bool,
) -> tuple[RunFolder, TaughtPolicy]:
    from ppo_scheduler.errors import Interrupted
    from vidur_ext.runs.pretraining import Pretraining, pretraining_folder, run_pretraining
    from vidur_ext.workload.run_workloads import describe_workload

    # Before there is a folder: a trace that is missing leaves none behind.
    wanted = Pretraining(config, describe_workload(config), demonstrations, finetune)
    folder = pretraining_folder(Path(config.training.output_root), output_dir)
    try:
        return folder, run_pretraining(wanted, folder, quiet=quiet)
    except Interrupted as stop:
        outcome = f"{folder.path} holds no pretrained_actor.pt"
        if folder.pretrained_actor.exists():
            outcome = f"{folder.pretrained_actor} is whole"
        raise stop.saying(outcome) from None


def _training_command(config: Path | None, set_: list[str], actor: Path) -> str:
    """Return the command that trains from the policy, under the same config."""
    words = ["vidur-ppo", "train", *(["--config", str(config)] if config else [])]
    for override in set_:
        words += ["--set", override]
    return shlex.join([*words, "--external-pretrain", str(actor)])


def _document(
    folder: RunFolder, result: TaughtPolicy, config: TrainingConfig, command: str
) -> Document:
    from vidur_ext.runs.pretraining import stopped_early

    return {
        "run": str(folder.path),
        "policy": str(folder.pretrained_actor),
        "method": config.warmstart.method,
        "steps": len(result.history),
        "best": result.report.to_dict(),
        "stopped_early": stopped_early(result, config),
        "train_with": command,
    }


def _print(document: Document) -> None:
    typer.echo(f"policy       {document['policy']}")
    early = ", stopped early" if document["stopped_early"] else ""
    best = document["best"]
    if document["method"] == "imitation":
        typer.echo(f"epochs       {document['steps']} (best: {best['number']}{early})")
        typer.echo(f"held-out     loss {best['holdout_loss']:.4f}")
        for teacher, share in best["accuracy"].items():
            typer.echo(f"             {share:.1%} as {teacher}")
    else:
        typer.echo(f"rounds       {document['steps']} ({best['labels']} priced decisions)")
        typer.echo(
            f"held-out     regret {best['regret']:.4f} request-seconds "
            f"(at random {best['regret_at_random']:.4f})"
        )
        typer.echo(f"             {best['agreement']:.1%} best choices")
    typer.echo(f"train with   {document['train_with']}")
