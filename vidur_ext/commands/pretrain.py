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
    changes,
    help_option,
    load_changed,
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
    also: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CONFIG",
            help="Another cluster to learn on, for one policy that serves them all; may be "
            "repeated. Of its config the groups cluster, simulation and workload count, and with "
            "observation.objective lookahead",
        ),
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
    texts = changes(context.params, PRETRAIN_SHORTCUTS, set_)
    loaded = load_changed(config or DEFAULT_CONFIG, texts)
    others = _other_clusters(loaded, also or [], demonstrations)
    if demonstrations is not None:
        from vidur_ext.warmstart.sets import open_set

        open_set(demonstrations).check(loaded)
    # The simulator and torch take seconds to import: not before the command line is known good.
    if finetune is not None:
        from vidur_ext.warmstart.external_model import check_model

        check_model(finetune, loaded)
    folder, result = _run(loaded, others, demonstrations, finetune, output_dir, quiet=quiet)
    training = _training_command(config, set_ or [], folder.pretrained_actor)
    document = _document(folder, result, loaded, training)
    if as_json:
        print_json(document)
    elif not quiet:
        _print(document)


def _other_clusters(
    config: TrainingConfig, paths: list[Path], demonstrations: Path | None
) -> tuple[TrainingConfig, ...]:
    """Return the config on the clusters of others.

    Raises:
        UserError: one policy cannot be taught on all of them.
    """
    if not paths:
        return ()
    if config.warmstart.method != "costs":
        raise UserError(
            f'--also: warmstart.method="{config.warmstart.method}" learns on one cluster: set it '
            'to "costs"'
        )
    if demonstrations is not None:
        raise UserError("--demonstrations are of one cluster, --also names more: say one of them")
    return tuple(_other_cluster(config, path) for path in paths)


def _other_cluster(config: TrainingConfig, path: Path) -> TrainingConfig:
    other = load_config(path, [])
    if other.simulation.engine != "compiled":
        raise UserError(
            f'--also {path}: choices are priced on the compiled engine, not on "'
            f'{other.simulation.engine}": set its simulation.engine to "compiled"'
        )
    # Whether the policy sees the objective is for the first config to say: it is made for that.
    shown, here = (one.observation.model_dump(exclude={"objective"}) for one in (other, config))
    for name, value in shown.items():
        if value != here[name]:
            raise UserError(
                f"--also {path}: observation.{name} is {value!r} there and {here[name]!r} in the "
                "config: one policy sees all clusters in the same way"
            )
    return config.on_cluster_of(other)


def _run(
    config: TrainingConfig,
    also: tuple[TrainingConfig, ...],
    demonstrations: Path | None,
    finetune: Path | None,
    output_dir: Path | None,
    *,
    quiet: bool,
) -> tuple[RunFolder, TaughtPolicy]:
    from ppo_scheduler.errors import Interrupted
    from vidur_ext.runs.pretraining import Pretraining, pretraining_folder, run_pretraining
    from vidur_ext.training.feasible import check_feasible
    from vidur_ext.workload.run_workloads import describe_workload

    # Before there is a folder: a trace that is missing leaves none behind.
    for one in (config, *also):
        check_feasible(one)
    wanted = Pretraining(config, describe_workload(config), demonstrations, finetune, also)
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
