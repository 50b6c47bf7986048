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


def test_the_short_form_helps_everywhere():
    for words in ([], *map(list, ALL)):
        short, long = (CliRunner().invoke(app, [*words, option]) for option in ("-h", "--help"))
        assert short.exit_code == 0, words
        assert short.output == long.output


def test_the_many_options_of_a_training_are_shown_by_what_they_are_for():
    shown = CliRunner().invoke(app, ["train", "--help"]).output
    panels = ["Shortcuts for keys", "How to begin", "Training in chunks", "What is printed"]
    places = [shown.index(panel) for panel in panels]
    assert places == sorted(places)
    assert places[1] < shown.index("--external-pretrain") < places[2]
    assert "vidur-ppo train --quick-test" in shown


def test_a_command_that_is_not_there_has_one_suggestion():
    result = CliRunner().invoke(app, ["trian"])
    assert result.output.count("Did you mean") == 1
