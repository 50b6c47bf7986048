"""``vidur-ppo demos``: collect demonstration sets, look at them, and delete them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands import demo_report as report
from vidur_ext.commands.options import (
    DEFAULT_CONFIG,
    WARMSTART_SHORTCUTS,
    Config,
    ConfigOfHelp,
    DemoSteps,
    DoNotAsk,
    Json,
    Quiet,
    changes,
    confirmed,
    help_option,
    load_changed,
    set_option,
)
from vidur_ext.commands.printing import print_json, show
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from vidur_ext.warmstart.sets import FoundSet

app = typer.Typer(help="Collect demonstrations, and look after them.", no_args_is_help=True)

_KEYS = {
    "demo_steps": WARMSTART_SHORTCUTS["demo_steps"],
    "output_dir": ("training.output_root",),
}


@app.command()
def collect(
    config: ConfigOfHelp = None,
    set_: Annotated[
        list[str] | None, set_option("Override one key, e.g. warmstart.load_levels=[1]")
    ] = None,
    demo_steps: DemoSteps = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the new set, instead of demonstrations/set_<time> of the output root"
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    help_: Annotated[bool, help_option(_KEYS)] = False,
) -> None:
    """Collect what a warm start learns from, and keep it as a set.

    With warmstart.method "costs" look-ahead routes and prices every choice, with "imitation" every
    teacher routes at every load level.
    """
    texts = changes({"demo_steps": demo_steps}, {"demo_steps": _KEYS["demo_steps"]}, set_)
    loaded = load_changed(config or DEFAULT_CONFIG, texts)
    from ppo_scheduler.errors import Interrupted
    from vidur_ext.training.feasible import check_feasible
    from vidur_ext.warmstart.sets import new_set_path, open_set

    check_feasible(loaded)
    root = Path(loaded.training.output_root)
    target = output_dir or new_set_path(root, datetime.now())
    say = (lambda text: None) if quiet else (lambda text: typer.echo(text, err=True))
    try:
        _collect(loaded, target, say)
    except Interrupted as stop:
        raise stop.saying("no demonstrations were kept") from None
    document = report.collected_set(open_set(target))
    if as_json:
        print_json(document)
    elif not quiet:
        report.print_collected_set(document)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="SET", help="Folder of a set")],
    as_json: Json = False,
) -> None:
    """Read and verify a set, and tell what it holds and where it comes from."""
    from vidur_ext.warmstart.sets import open_set

    one = open_set(path)
    document = report.set_contents(one, one.load())
    show(document, report.print_set_contents, as_json=as_json)


@app.command("list")
def list_sets(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="Folder to search (default: training.output_root of --config)",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List all sets below a folder, oldest first. Nothing is verified but the sizes."""
    place, found = _found(folder, config)
    show(report.sets_found(place, found), report.print_sets_found, as_json=as_json)


@app.command()
def clean(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SET]",
            help="A set, or a folder whose sets all go (default: training.output_root of --config)",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    yes: DoNotAsk = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Delete sets after showing them and asking; nothing else is touched."""
    if not yes and (as_json or quiet):
        raise UserError(
            f"{'--json' if as_json else '--quiet'} leaves nobody to ask: say --yes with it"
        )
    folder, found = _found(place, config)
    document = report.sets_found(folder, found)
    sets = [one.found for one in found if one.found is not None]
    if not (as_json or quiet):
        report.print_sets_found(document)
    these = "this set" if len(sets) == 1 else f"these {len(sets)} sets"
    if sets and not yes and not confirmed(f"Delete {these}?"):
        typer.echo("nothing was deleted")
        return
    from vidur_ext.warmstart.sets import delete_set

    deleted, kept = [], []
    for one in sets:
        gone = delete_set(one)
        deleted.append(str(one.path))
        kept += [] if gone else [str(one.path)]
    outcome = {"deleted": deleted, "folders_kept": kept}
    if as_json:
        print_json(outcome)
    elif not quiet and sets:
        report.print_deleted_sets(outcome)


def _collect(config: TrainingConfig, target: Path, say: Callable[[str], None]) -> None:
    from vidur_ext.warmstart.sets import staged_set, write_set

    with staged_set(target) as folder:
        # The simulator takes seconds to import: not before it is known where the set can go.
        from vidur_ext.warmstart.teaching import new_demonstrations
        from vidur_ext.workload.run_workloads import describe_workload

        workload = describe_workload(config)
        say(f"workload: {workload}")
        demonstrations = new_demonstrations(config, say)
        write_set(folder, demonstrations, config, workload, datetime.now(timezone.utc))


def _found(place: Path | None, config: Path | None) -> tuple[Path, list[FoundSet]]:
    from vidur_ext.warmstart.sets import find_sets

    if place is not None:
        return place, find_sets(place)
    root = Path(load_config(config or DEFAULT_CONFIG).training.output_root)
    # Before the first run there is no output root, and so no set.
    return root, find_sets(root) if root.exists() else []
