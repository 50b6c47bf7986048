"""``vidur-ppo``: everything an operator runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import click
import typer
from click.exceptions import NoArgsIsHelpError

from ppo_scheduler.errors import UserError
from vidur_ext.commands import checkpoints, config, demos
from vidur_ext.commands.calibrate import calibrate
from vidur_ext.commands.compare import compare
from vidur_ext.commands.monitor import monitor
from vidur_ext.commands.pareto import pareto
from vidur_ext.commands.pretrain import pretrain
from vidur_ext.commands.saturation import saturation
from vidur_ext.commands.suite import suite
from vidur_ext.commands.tensorboard import tensorboard
from vidur_ext.commands.train import train
from vidur_ext.commands.validate_model import validate_model
from vidur_ext.exits import exit_status
from vidur_ext.launched import run_first
from vidur_ext.versions import version_line

app = typer.Typer(
    help="A learned request router for LLM serving clusters, trained inside Vidur.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    suggest_commands=False,  # click does
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(pretrain)
app.command()(validate_model)
app.command()(compare)
app.command()(pareto)
app.command()(saturation)
app.command()(calibrate)
app.command()(suite)
app.command()(monitor)
app.command()(tensorboard)
app.add_typer(config.app, name="config")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(demos.app, name="demos")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit"
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point; see ``exit_status``. A launcher may start it several times: ``launched.py``."""
    sys.exit(exit_status(lambda: run_first(_run, _follow)))


def _follow() -> None:
    from vidur_ext.training.team import follow

    follow()


def _run() -> None:
    # Left alone, Typer would print errors its own way.
    try:
        app([_with_home(argument) for argument in sys.argv[1:]], standalone_mode=False)
    except click.Abort:  # the input ended
        raise EOFError from None
    except NoArgsIsHelpError:  # the help stands on the terminal already
        sys.exit(2)
    except click.UsageError as error:
        raise UserError(f"{error.format_message()} (see --help)") from None


def _with_home(argument: str) -> str:
    """Replace the ~ of a path: shells leave it in ``--option=~/path``, services leave it all."""
    option, equals, path = ("", "", argument)
    if argument.startswith("--"):
        option, equals, path = argument.partition("=")
    return option + equals + os.path.expanduser(path)


if __name__ == "__main__":
    main()
