"""``vidur-ppo pareto``: what L trades, and which L to take."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from vidur_ext.commands.options import DEFAULT_CONFIG, Config, Quiet, changes, set_option
from vidur_ext.config.loading import load_config
from vidur_ext.run_folder import RunFolder

_KIND = "pareto"
_SHORTCUTS = {
    "workloads": ("checkpointing.validation_seeds",),
    "requests": ("checkpointing.validation_requests",),
}


def pareto(
    context: typer.Context,
    config: Config = None,
    set_: Annotated[list[str] | None, set_option("Override one key, e.g. workload.qps=30")] = None,
    weights: Annotated[
        str, typer.Option(metavar="L,L,...", help="Values of lookahead.ttft_weight")
    ] = "3,4,5,7,10,15,20,30",
    policies: Annotated[
        bool,
        typer.Option(help="Teach and measure a policy for each L; --no-policies: planner only"),
    ] = True,
    workloads: Annotated[int, typer.Option(help="Validation workloads")] = 16,
    requests: Annotated[
        int, typer.Option(help="Requests of each; a trace may have fewer to give")
    ] = 2048,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder of the report (default: a new one in {_KIND}/)", show_default=False
        ),
    ] = None,
    json_: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the result there as well, as JSON"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure mean E2E and p99 TTFT over L for planner and policy; say which L keeps p99 TTFT."""
    path = config or DEFAULT_CONFIG
    keys = changes(context.params, _SHORTCUTS, set_)
    loaded = load_config(path, keys)
    by_weight = {
        one.lookahead.ttft_weight: one
        for text in weights.split(",")
        for one in [load_config(path, [*keys, f"lookahead.ttft_weight={text.strip()}"])]
    }
    # The simulator and torch take seconds to import: not before the command line is known good.
    from ppo_scheduler.errors import Interrupted
    from vidur_ext.pareto.measuring import Measured, check_measurable, measure
    from vidur_ext.pareto.report import check_places, headlines, write_report
    from vidur_ext.training.feasible import check_feasible

    check_measurable(loaded, policies=policies)
    check_feasible(loaded)
    check_places(output_dir or Path(loaded.training.output_root) / _KIND, json_)

    def watch(one: Measured) -> None:
        if not quiet:
            typer.echo(one.describe())

    try:
        tradeoff = measure(loaded, by_weight, watch, policies=policies)
    except Interrupted as stop:
        raise stop.saying("no report was written") from None
    folder = (
        RunFolder.at(output_dir)
        if output_dir is not None
        else RunFolder.create(Path(loaded.training.output_root), _KIND, datetime.now())
    )
    page = write_report(tradeoff, folder.path, json_)
    for line in headlines(tradeoff):
        typer.echo(line)
    typer.echo(page)
