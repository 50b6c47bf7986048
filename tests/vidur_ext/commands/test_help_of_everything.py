"""``--help`` explains every argument and option of every command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import typer
from typer.testing import CliRunner

from vidur_ext.cli import app


def commands(
    command: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))
    else:
        yield words, command


ALL = dict(commands(typer.main.get_command(app)))


def test_every_argument_and_option_has_a_help_text():
    silent = [
        (" ".join(words), parameter.name)
        for words, command in ALL.items()
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert len(ALL) > 10
    assert not silent, "no help (arguments lose theirs under a click newer than requirements.txt's)"


def test_help_shows_what_an_argument_takes():
    for command, words in (("monitor", "Run folder"), ("tensorboard", "A run, or a folder")):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert words in result.output
