"""``vidur-ppo train``: the main job from the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppo_scheduler.config.loading import load_config
from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError

if TYPE_CHECKING:
    from vidur_ext.training.resume_choice import Choice

DEFAULT_CONFIG = Path("configs/ppo_warmstart.json")
QUICK_CONFIG = Path("configs/quick_test.json")


def train(
    config: Annotated[
        Path | None,
        typer.Option(help=f"JSON config [default: {DEFAULT_CONFIG}]", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. training.seed=7"),
    ] = None,
    num_replicas: Annotated[int | None, typer.Option(help="cluster.num_replicas")] = None,
    qps: Annotated[float | None, typer.Option(help="workload.qps")] = None,
    ppo_requests: Annotated[int | None, typer.Option(help="training.total_requests")] = None,
    bc_epochs: Annotated[int | None, typer.Option(help="warmstart.epochs")] = None,
    demo_steps: Annotated[int | None, typer.Option(help="warmstart.demo_requests")] = None,
    seed: Annotated[int | None, typer.Option(help="training.seed")] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="FILE", help="Replay this trace (workload.trace_file)")
    ] = None,
    rate_scale: Annotated[float | None, typer.Option(help="workload.rate_scale")] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder of this run [default: a new one per run]")
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            metavar="auto|latest|never|PATH",
            help="Which checkpoint to continue; by default you are asked if there is one",
        ),
    ] = "ask",
    force_warmstart: Annotated[
        bool, typer.Option("--force-warmstart", help="The same as --resume never")
    ] = False,
    quick_test: Annotated[
        bool, typer.Option("--quick-test", help=f"The whole job, small ({QUICK_CONFIG})")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every detail")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only")] = False,
) -> None:
    """Warm-start, train and compare a PPO router inside Vidur."""
    if quick_test and config is not None:
        raise UserError("--quick-test brings its own config: leave out --config, or --quick-test")
    if force_warmstart and resume not in ("ask", "never"):
        raise UserError(f"--force-warmstart contradicts --resume {resume}: say one of them")
    path = QUICK_CONFIG if quick_test else config or DEFAULT_CONFIG
    shortcuts = {
        "cluster.num_replicas": num_replicas,
        "workload.qps": qps,
        "training.total_requests": ppo_requests,
        "warmstart.epochs": bc_epochs,
        "warmstart.demo_requests": demo_steps,
        "training.seed": seed,
        "workload.rate_scale": rate_scale,
        "workload.source": None if trace is None else "trace",
        "workload.trace_file": trace,
        "monitoring.log_level": "debug" if verbose else None,
        "monitoring.progress_bar": "false" if quiet else None,
    }
    overrides = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    loaded = load_config(path, [*overrides, *(set_ or [])])
    _run(loaded, "never" if force_warmstart else resume, output_dir, quiet)


def _run(config: TrainingConfig, resume: str, output_dir: Path | None, quiet: bool) -> None:
    # The simulator and torch take seconds to import: not before the command line is known good.
    from vidur_ext.training.pipeline import run_pipeline
    from vidur_ext.training.resume_choice import Quit, Resume

    choice = _choice(config, resume)
    if isinstance(choice, Quit):
        typer.echo("nothing was started")
        return
    checkpoint = choice.checkpoint if isinstance(choice, Resume) else None
    folder = _folder(config, checkpoint, output_dir)
    run_pipeline(config, load_checkpoint=checkpoint, run_dir=folder, quiet=quiet)


def _choice(config: TrainingConfig, resume: str) -> Choice:
    from ppo_scheduler.checkpoint.store import CheckpointStore
    from vidur_ext.training.resume_choice import StartAfresh, choose, local_now

    if not config.checkpointing.enable_checkpoints:
        if resume not in ("ask", "never", "auto"):
            raise UserError(
                f"--resume {resume} with checkpointing.enable_checkpoints=false: switch "
                "checkpoints on to continue a training"
            )
        return StartAfresh()
    latest = CheckpointStore(config.checkpointing).latest()
    ask = input if sys.stdin.isatty() else None
    return choose(resume, latest, ask, local_now())


def _folder(config: TrainingConfig, checkpoint: str | None, chosen: Path | None) -> Path | None:
    """Return the run folder: the chosen one, the resumed training's own, or None for a new one."""
    from ppo_scheduler.checkpoint.store import CheckpointStore

    if chosen is None and checkpoint is not None:
        manifest = CheckpointStore(config.checkpointing).load(checkpoint).manifest
        return Path(manifest.run_dir)
    if chosen is not None and checkpoint is None and (chosen / "ppo_training.log").exists():
        raise UserError(
            f"--output-dir {chosen}: holds a run already. Choose another folder, continue that "
            "run with --resume latest, or leave --output-dir out for a new folder"
        )
    return chosen
