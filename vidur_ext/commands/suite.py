"""``vidur-ppo suite``: every scenario trained and judged over several seeds, in parallel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ppo_scheduler.errors import UserError
from vidur_ext.commands.options import DEFAULT_CONFIG, set_option

if TYPE_CHECKING:
    from vidur_ext.suite.folder import SuiteFolder
    from vidur_ext.suite.plan import Plan
    from vidur_ext.suite.tuning import Tuning

_SCENARIOS = DEFAULT_CONFIG.parent / "scenarios"
_DEFAULT = "default"


def suite(
    scenarios: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names of configs/scenarios, default, or paths of configs, with commas between "
            "them (default: all that there are)",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each: 0 to N - 1")] = 3,
    set_: Annotated[
        list[str] | None, set_option("Override one key of every scenario, e.g. ppo_config.epochs=4")
    ] = None,
    trace: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="What the scenario with a trace replays; where there are several, NAME says which",
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First look for the best settings of each rival that has any (routers.*), on "
            "validation workloads",
        ),
    ] = False,
    output_dir: Annotated[
        Path, typer.Option(help="Folder of the suite; what is done there is not done again")
    ] = Path("outputs/suite"),
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trainings side by side (default: one per core)", show_default=False
        ),
    ] = None,
    json_: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the results there as well, as JSON"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the results there as well, e.g. docs/results.md"),
    ] = None,
) -> None:
    """Train and judge scenarios over seeds; an interrupted suite goes on where it was."""
    # The simulator and torch take seconds to import: not for the help.
    from vidur_ext.suite.display import Display
    from vidur_ext.suite.driver import run_cells
    from vidur_ext.suite.folder import SuiteFolder, open_suite
    from vidur_ext.suite.plan import plan_suite
    from vidur_ext.suite.report.tables import headline
    from vidur_ext.suite.report.writer import check_copies, write_results
    from vidur_ext.suite.results import collect

    check_copies(json_, markdown)
    plan = plan_suite(
        _files(scenarios),
        seeds,
        set_ or [],
        traces=trace or [],
        asked_for=scenarios is not None,
        tune=tune,
    )
    for name, why in plan.skipped.items():
        typer.echo(f"scenario {name} is left out: {why}")
    folder, workers = SuiteFolder(output_dir), processes or len(os.sched_getaffinity(0))
    with open_suite(folder, plan):
        tuning = _tune(plan, folder, workers)
        cells = plan.cells(folder.path, tuning)
        with Display(Console()) as display:
            run_cells(cells, workers, display)
        result = collect(plan, cells, tuning)
        write_results(result, folder, json_, markdown)
    typer.echo(f"{headline(result)}\n{folder.results('html')}")


def _tune(plan: Plan, folder: SuiteFolder, processes: int) -> dict[str, Tuning]:
    """Tune the rivals of all scenarios, if that was asked for."""
    from vidur_ext.suite.tuning import tuned_scenarios

    if not plan.tune:
        return {}
    return tuned_scenarios(
        folder.tuning,
        plan.scenarios,
        processes,
        lambda name, done, count: typer.echo(f"{name}: {done} of {count} rivals tuned"),
    )


def _files(names: str | None) -> dict[str, Path]:
    """Return the config of each scenario that is named, or of all that there are.

    Raises:
        UserError: there is no such scenario, or two have one name.
    """
    known = {
        _DEFAULT: DEFAULT_CONFIG,
        **{file.stem: file for file in sorted(_SCENARIOS.glob("*.json"))},
    }
    if names is None:
        return known
    files: dict[str, Path] = {}
    for text in names.split(","):
        name, file = (text, known[text]) if text in known else (Path(text).stem, Path(text))
        if not file.is_file():
            raise UserError(
                f"--scenarios {text}: there is no such scenario or file; there are "
                f"{', '.join(known)}"
            )
        if name in files:
            raise UserError(f"--scenarios {names}: {name} stands there twice")
        files[name] = file
    return files
