"""``vidur-ppo train``: the main job from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
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
    Said,
    Seed,
    changes,
    help_option,
    load_changed,
    set_option,
)
from vidur_ext.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from vidur_ext.runs.chunk_record import Order
    from vidur_ext.runs.resume_choice import Ask, Wishes
    from vidur_ext.runs.resumed_config import CommandLine


TRAIN_SHORTCUTS = {
    "num_replicas": ("cluster.num_replicas",),
    "qps": ("workload.qps",),
    "ppo_requests": ("training.total_requests",),
    "total_requests": ("training.total_requests",),
    **WARMSTART_SHORTCUTS,
    "seed": ("training.seed",),
    "num_processes": ("parallel_training.num_processes",),
    "trace": ("workload.trace_file",),
    "rate_scale": ("workload.rate_scale",),
}
"""Options that set keys of the config; ``--help`` shows the config's value as the default."""


_PANELS = {
    "Shortcuts for keys of the config": (*TRAIN_SHORTCUTS, "skip_bc_training"),
    "How to begin": (
        "resume", "force_warmstart", "external_pretrain", "use_external", "demonstrations", "yes",
    ),
    "Training in chunks": ("chunk_mode", "chunk_size"),
    "What is printed": ("verbose", "quiet", "help_"),
}  # fmt: skip
"""What ``--help`` shows together; the rest comes first."""


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
    int | None, typer.Option(help="Decisions to train on, of all chunks together")
]
PpoRequests = Annotated[
    int | None, typer.Option(help="The earlier name of --total-requests", hidden=True)
]
"""Scripts of users may still say it."""


def _flag(name: str, help_: str, *, is_eager: bool = False) -> Any:
    return typer.Option(name, help=help_, is_eager=is_eager)


def train(
    context: typer.Context,
    config: ConfigOfHelp = None,
    set_: Annotated[list[str] | None, set_option("Override one key, e.g. training.seed=7")] = None,
    num_replicas: Annotated[int | None, typer.Option(help="Replicas of the cluster")] = None,
    qps: Annotated[float | None, typer.Option(help="Requests per second")] = None,
    total_requests: TotalRequests = None,
    ppo_requests: PpoRequests = None,
    bc_epochs: BcEpochs = None,
    demo_steps: DemoSteps = None,
    seed: Seed = None,
    num_processes: Annotated[
        int | None, typer.Option(help="Processes that train together; the result is the same")
    ] = None,
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
    quick_test: Annotated[
        bool, _flag("--quick-test", f"The whole job, small ({QUICK_CONFIG.name})", is_eager=True)
    ] = False,
    verbose: Annotated[bool, _flag("--verbose", "Log every detail")] = False,
    quiet: Quiet = False,
    help_: Annotated[bool, help_option(TRAIN_SHORTCUTS, _PANELS)] = False,
) -> None:
    """Warm-start, train and compare a PPO router inside Vidur.

    The whole job, small: vidur-ppo train --quick-test

    Another cluster, another load: vidur-ppo train --num-replicas 8 --qps 40

    Any key: vidur-ppo train --config my.json --set ppo_config.epochs=4

    Go on after a crash: vidur-ppo train --resume latest
    """
    _refuse_contradictions(context.params)
    path = QUICK_CONFIG if quick_test else config or DEFAULT_CONFIG
    texts = changes(context.params, TRAIN_SHORTCUTS, set_, _implied(context.params))
    _refuse_two_origins(resume, texts)
    loaded = load_changed(path, texts)
    # The simulator and torch take seconds to import: not before the command line is known good.
    from vidur_ext.runs.chunk_record import Order
    from vidur_ext.runs.resume_choice import Wishes
    from vidur_ext.runs.resumed_config import CommandLine

    said = CommandLine(QUICK_CONFIG if quick_test else config, tuple(texts))
    wishes = Wishes(
        resume="never" if force_warmstart else resume,
        external=external_pretrain,
        use_external=use_external,
        yes=yes,
        cloning=loaded.warmstart.enabled,
    )
    wishes.check()
    from vidur_ext.workload.run_workloads import describe_workload

    describe_workload(loaded)  # a trace that cannot be read is said before anything is asked
    if demonstrations is not None:
        _check_demonstrations(demonstrations, loaded, wishes)
    if external_pretrain is not None:
        from vidur_ext.warmstart.external_model import check_model

        check_model(external_pretrain, loaded)
    if chunk_mode:
        order = Order(path, chunk_size, external_pretrain)
        begun = _run_in_chunks(loaded, wishes, order, output_dir, said, quiet=quiet)
    else:
        begun = _run_at_once(loaded, wishes, output_dir, demonstrations, said, quiet=quiet)
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
    said: CommandLine,
    *,
    quiet: bool,
) -> bool:
    from vidur_ext.runs.ownership import check_free
    from vidur_ext.runs.start import decide, with_demonstrations

    check_free(config)
    start = decide(config, wishes, output_dir, _operator(), said)
    if start is not None and demonstrations is not None:
        cloning = with_demonstrations(start, demonstrations)
        if cloning is None and not quiet:
            typer.echo(f"nothing is cloned: {demonstrations} is not used")
        start = cloning or start
    if start is not None:
        # The simulator takes seconds more to import: the questions do not wait for it.
        from vidur_ext.runs.pipeline import run_pipeline

        run_pipeline(start, quiet=quiet, say=_sayer(quiet))
    return start is not None


def _run_in_chunks(
    config: TrainingConfig,
    wishes: Wishes,
    order: Order,
    output_dir: Path | None,
    said: CommandLine,
    *,
    quiet: bool,
) -> bool:
    from vidur_ext.runs.chunk_job import run_in_chunks

    return run_in_chunks(
        config, wishes, order, output_dir, _operator(), said, quiet=quiet, say=_sayer(quiet)
    )


def _sayer(quiet: bool) -> Callable[[str], None]:
    """Return what tells the operator something that belongs into no log."""
    return (lambda text: None) if quiet else typer.echo


def _operator() -> Ask | None:
    """Return who answers questions; None without a terminal."""
    return input if sys.stdin.isatty() else None


def _implied(options: dict[str, Any]) -> list[Said]:
    """Return what options change in the config that are no shortcuts for a key."""
    said = [
        ("--trace", "workload.source=trace", options["trace"] is not None),
        ("--skip-bc-training", "warmstart.enabled=false", options["skip_bc_training"]),
        ("--verbose", "monitoring.log_level=debug", options["verbose"]),
        ("--quiet", "monitoring.progress_bar=false", options["quiet"]),
    ]
    return [(typed, text) for typed, text, given in said if given]


def _refuse_two_origins(resume: str, texts: Sequence[str]) -> None:
    """A key on the command line and ``--resume`` must not both say where to go on from."""
    for text in texts:
        key = text.partition("=")[0].strip()
        if key in _ORIGINS and resume not in ("ask", "auto"):
            raise UserError(
                f"--set {text} and --resume {resume} each say how to begin: say one of them"
            )


_ORIGINS = tuple(
    f"checkpointing.{name}"
    for name in ("resume_from_checkpoint", "resume_step", "fork_from_checkpoint")
)


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
            options["skip_bc_training"] and options["bc_epochs"] is not None,
            "--bc-epochs is for cloning, --skip-bc-training leaves it out: say one of them",
        ),
        (
            options["skip_bc_training"] and options["demo_steps"] is not None,
            "--demo-steps is for cloning, --skip-bc-training leaves it out: say one of them",
        ),
        (
            options["external_pretrain"] is not None and resume not in ("ask", "auto", "never"),
            f"--external-pretrain begins a new training, --resume {resume} continues one: say one "
            "of them",
        ),
        (
            options["trace"] is not None and options["qps"] is not None,
            "--trace brings its own rate, --qps is for synthetic requests: leave it out; "
            "--rate-scale changes the trace's rate",
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
