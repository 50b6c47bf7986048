"""``vidur-ppo config``: show, check and explain the configuration."""

from __future__ import annotations

from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any

import typer

from ppo_scheduler.errors import UserError
from vidur_ext.commands.options import set_option
from vidur_ext.commands.printing import print_json
from vidur_ext.config.fields import leaf_fields
from vidur_ext.config.loading import dump_config, load_config
from vidur_ext.config.reference import config_reference
from vidur_ext.config.training_config import TrainingConfig

app = typer.Typer(help="Show, check and explain the configuration.", no_args_is_help=True)


@app.command("show")
def show_config(
    config: Annotated[Path | None, typer.Option(help="JSON config; the defaults without")] = None,
    set_: Annotated[list[str] | None, set_option()] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what differs from the defaults")
    ] = False,
) -> None:
    """Print the effective configuration as JSON.

    What is not the default: vidur-ppo config show --config my.json --changed
    """
    effective = load_config(config, set_ or [])
    if changed:
        print_json(_changes(effective))
    else:
        typer.echo(dump_config(effective), nl=False)


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(help="JSON configs to check")]) -> None:
    """Check configs, and that a run could get by with them; the exit status is 2 if one cannot."""
    from vidur_ext.training.feasible import check_feasible  # the simulator takes seconds

    problems = []
    for file in files:
        loaded = None
        try:
            loaded = load_config(file)
            check_feasible(loaded)
        except UserError as error:
            problems.append(str(error) if loaded is None else f"{file}: {error}")
        else:
            typer.echo(f"{file}: ok")
    if problems:
        raise UserError("\n".join(problems))


@app.command()
def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The reference page instead of JSON schema")
    ] = False,
) -> None:
    """Print the JSON schema, or the reference page."""
    if markdown:
        typer.echo(config_reference(), nl=False)
    else:
        print_json(TrainingConfig.model_json_schema())


def _changes(effective: TrainingConfig) -> dict[str, Any]:
    """Return the nested keys whose values are not the defaults."""
    tree: dict[str, Any] = {}
    mine, default = effective.model_dump(mode="json"), TrainingConfig().model_dump(mode="json")
    for dotted, _ in leaf_fields(TrainingConfig):
        *groups, name = dotted.split(".")
        ours, usual = reduce(getitem, groups, mine), reduce(getitem, groups, default)
        if ours[name] != usual[name]:
            place = tree
            for group in groups:
                place = place.setdefault(group, {})
            place[name] = ours[name]
    return tree
