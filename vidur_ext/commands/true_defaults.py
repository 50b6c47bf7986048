"""``--help`` that shows what an option is when it is left out: the value of the config in use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click
import typer

from ppo_scheduler.config.loading import load_config


def show_help(context: typer.Context, config: Path, keys: Mapping[str, str]) -> NoReturn:
    """Print the help of a command and leave.

    Args:
        config: file whose values are the defaults; without it those of an empty config are.
        keys: dotted config key of each parameter that sets one.
    """
    settings = load_config(config if config.exists() else None).settings()
    for parameter in context.command.params:
        key = keys.get(parameter.name or "")
        if key is not None and isinstance(parameter, click.Option):
            value = "none" if settings[key] is None else json.dumps(settings[key])
            parameter.help = f"{parameter.help}; default {value} ({key})"
    typer.echo(context.get_help())
    context.exit()
