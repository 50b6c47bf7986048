"""``vidur-ppo train``: the main job from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands.options import (
    DEFAULT_CONFIG,
    QUICK_CONFIG,
    WARMSTART_SHORTCUTS,
    BcEpochs,
    ConfigOfHelp,
    DemonstrationsOption,
    DemoSteps,
    Quiet,
    Seed,
    help_option,
    overrides,
    set_option,
)
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from vidur_ext.runs.chunk_record import Order
    from vidur_ext.runs.resume_choice import Ask, Wishes


TRAIN_SHORTCUTS = {
    "num_replicas": ("cluster.num_replicas",),
    "qps": ("workload.qps",),
    "ppo_requests": ("training.total_requests",),
    "total_requests": ("training.total_requests",),
    **WARMSTART_SHORTCUTS,
    "seed": ("training.seed",),
    "trace": ("workload.trace_file",),
    "rate_scale": ("workload.rate_scale",),
}
"""Options that set keys of the config; ``--help`` shows the config's value as the default."""


OutputDir = Annotated[
    Path | None, typer.Option(help="Folder of this run; default a new one per run")
]
ResumeOption = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Checkpoint to continue: auto, latest, never or a PATH; default: you are asked",
        show_default=False,
    ),
]
ExternalPretrain = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Policy file to begin with, or to fine-tune by cloning"),
]
ChunkSize = Annotated[
    int | None,
    typer.Option(min=1, help="Decisions per chunk; default an eighth of all, in whole episodes"),
]
TotalRequests = Annotated[
    int | None, typer.Option(help="The same as --ppo-requests, of all chunks together")
]


def _flag(name: str, help_: str, *, is_eager: bool = False) -> Any:
    return typer.Option(name, help=help_, is_eager=is_eager)


def train(
    context: typer.Context,
    config: ConfigOfHelp = None,
    set_: Annotated[list[str] | None, set_option("Override one key, e.g. training.seed=7")] = None,
    num_replicas: Annotated[int | None, typer.Option(help="Replicas of the cluster")] = None,
    qps: Annotated[float | None, typer.Option(help="Requests per second")] = None,
    ppo_requests: Annotated[int | None, typer.Option(help="Decisions to train on")] = None,
    bc_epochs: BcEpochs = None,
    demo_steps: DemoSteps = None,
    seed: Seed = None,
    trace: Annotated[str | None, typer.Option(metavar="FILE", help="Replay this trace")] = None,
    rate_scale: Annotated[float | None, typer.Option(help="Factor on arrival rates")] = None,
    output_dir: OutputDir = None,
    resume: ResumeOption = "ask",
    force_warmstart: Annotated[
        bool, _flag("--force-warmstart", "The same as --resume never")
    ] = False,
    external_pretrain: ExternalPretrain = None,
    use_external: Annotated[
        bool, _flag("--use-external", "Begin with the external model as it is")
    ] = False,
    demonstrations: DemonstrationsOption = None,
    skip_bc_training: Annotated[
        bool, _flag("--skip-bc-training", "No demonstrations, no cloning")
    ] = False,
    yes: Annotated[bool, _flag("--yes", "Take the first answer of every question")] = False,
    chunk_mode: Annotated[
        bool, _flag("--chunk-mode", "Train in chunks, each in a process of its own")
    ] = False,
    chunk_size: ChunkSize = None,
    total_requests: TotalRequests = None,
    quick_test: Annotated[
        bool, _flag("--quick-test", f"The whole job, small ({QUICK_CONFIG.name})", is_eager=True)
    ] = False,
    verbose: Annotated[bool, _flag("--verbose", "Log every detail")] = False,
    quiet: Quiet = False,
    help_: Annotated[bool, help_option(TRAIN_SHORTCUTS)] = False,
) -> None:
    """Warm-start, train and compare a PPO router inside Vidur."""
    _refuse_contradictions(context.params)
    path = QUICK_CONFIG if quick_test else config or DEFAULT_CONFIG
    loaded = load_config(path, [*_overrides(context.params), *(set_ or [])])
    if loaded.monitoring.wandb != "off":
        from ppo_scheduler.monitoring.wandb_run import check_online  # refuses without W&B

        if loaded.monitoring.wandb == "online":
            check_online()
    # The simulator and torch take seconds to import: not before the command line is known good.
    from vidur_ext.runs.chunk_record import Order
    from vidur_ext.runs.resume_choice import Wishes

    wishes = Wishes(
        resume="never" if force_warmstart else resume,
        external=external_pretrain,
        use_external=use_external,
        yes=yes,
        cloning=loaded.warmstart.enabled,
    )
    wishes.check()
    if demonstrations is not None:
        _check_demonstrations(demonstrations, loaded, wishes)
    if external_pretrain is not None:
        from vidur_ext.warmstart.external_model import check_model

        check_model(external_pretrain, loaded)
    if chunk_mode:
        order = Order(path, chunk_size, external_pretrain)
        begun = _run_in_chunks(loaded, wishes, order, output_dir, quiet=quiet)
    else:
        begun = _run_at_once(loaded, wishes, output_dir, demonstrations, quiet=quiet)
    if not begun:
        typer.echo("nothing was started")


def _check_demonstrations(demonstrations: Path, config: TrainingConfig, wishes: Wishes) -> None:
    from vidur_ext.runs.start import refuse_two_beginnings
    from vidur_ext.warmstart.sets import open_set

    refuse_two_beginnings(config, wishes, demonstrations)
    open_set(demonstrations).check(config)


def _run_at_once(
    config: TrainingConfig,
    wishes: Wishes,
    output_dir: Path | None,
    demonstrations: Path | None,
    *,
    quiet: bool,
) -> bool:
    from vidur_ext.runs.start import decide, with_demonstrations

    start = decide(config, wishes, output_dir, _operator())
    if start is not None and demonstrations is not None:
        cloning = with_demonstrations(start, demonstrations)
        if cloning is None and not quiet:
            typer.echo(f"nothing is cloned: {demonstrations} is not used")
        start = cloning or start
    if start is not None:
        # The simulator takes seconds more to import: the questions do not wait for it.
        from vidur_ext.runs.pipeline import run_pipeline

        run_pipeline(start, quiet=quiet)
    return start is not None


def _run_in_chunks(
    config: TrainingConfig, wishes: Wishes, order: Order, output_dir: Path | None, *, quiet: bool
) -> bool:
    from vidur_ext.runs.chunk_job import run_in_chunks

    say = (lambda text: None) if quiet else typer.echo
    return run_in_chunks(config, wishes, order, output_dir, _operator(), quiet=quiet, say=say)


def _operator() -> Ask | None:
    """Return who answers questions; None without a terminal."""
    return input if sys.stdin.isatty() else None


def _overrides(options: dict[str, Any]) -> list[str]:
    """Return what the options change in the config, as texts for ``--set``."""
    texts = overrides(options, TRAIN_SHORTCUTS)
    if options["trace"] is not None:
        texts.append("workload.source=trace")
    if options["skip_bc_training"]:
        texts.append("warmstart.enabled=false")
    if options["verbose"]:
        texts.append("monitoring.log_level=debug")
    if options["quiet"]:
        texts.append("monitoring.progress_bar=false")
    return texts


def _refuse_contradictions(options: dict[str, Any]) -> None:
    """Raise ``UserError`` for options that cannot both be meant."""
    for found, text in [*_contradictions(options), *_contradictions_to_demonstrations(options)]:
        if found:
            raise UserError(text)


def _contradictions(options: dict[str, Any]) -> list[tuple[bool, str]]:
    """Return whether it is one, and what to say then."""
    resume, afresh = options["resume"], options["force_warmstart"]
    return [
        (
            options["quick_test"] and options["config"] is not None,
            "--quick-test brings its own config: leave out --config, or --quick-test",
        ),
        (
            afresh and resume not in ("ask", "never"),
            f"--force-warmstart contradicts --resume {resume}: say one of them",
        ),
        (
            afresh and options["use_external"],
            "--force-warmstart clones, --use-external takes the model as it is: say one of them",
        ),
        (
            afresh and options["skip_bc_training"],
            "--force-warmstart contradicts --skip-bc-training: to start afresh without a warm "
            "start, say --resume never --skip-bc-training",
        ),
        (
            options["ppo_requests"] is not None and options["total_requests"] is not None,
            "--ppo-requests and --total-requests are the same: say one of them",
        ),
        (
            options["verbose"] and options["quiet"],
            "--verbose contradicts --quiet: say one of them",
        ),
        (
            options["chunk_size"] is not None and not options["chunk_mode"],
            "--chunk-size has an effect only with --chunk-mode: say both, or none",
        ),
    ]


def _contradictions_to_demonstrations(options: dict[str, Any]) -> list[tuple[bool, str]]:
    if options["demonstrations"] is None:
        return []
    resume = options["resume"]
    return [
        (
            options["skip_bc_training"],
            "--demonstrations is for cloning, --skip-bc-training leaves it out: say one of them",
        ),
        (
            options["use_external"],
            "--demonstrations is for cloning, --use-external takes the model as it is: say one of "
            "them",
        ),
        (
            options["demo_steps"] is not None,
            "--demo-steps is for new demonstrations, --demonstrations brings its own: say one of "
            "them",
        ),
        (
            resume not in ("ask", "auto", "never"),
            f"--demonstrations begins a new training, --resume {resume} continues one: say one of "
            "them",
        ),
        (
            options["chunk_mode"],
            "--demonstrations with --chunk-mode: clone first (vidur-ppo pretrain --demonstrations "
            "SET), then train in chunks with --external-pretrain PATH --use-external",
        ),
    ]
