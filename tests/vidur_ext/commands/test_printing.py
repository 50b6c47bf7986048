"""What ``--json`` prints is JSON, and no terminal obeys what stands in a name or a file."""

from __future__ import annotations

import json
import math

import pytest

from ppo_scheduler.errors import UserError, printable
from vidur_ext.commands.printing import console, facts_table, print_json, say, table


def test_infinity_and_nan_become_texts_wherever_they_stand(capsys: pytest.CaptureFixture) -> None:
    nan, infinity = math.nan, math.inf
    print_json({"loss": nan, "kl": [0.5, -infinity], "parts": {"of": (infinity, 3, None, True)}})

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"loss": "nan", "kl": [0.5, "-inf"], "parts": {"of": ["inf", 3, None, True]}}


HOSTILE = "a\x1b]0;owned\x07\x1b[2Jb\x9b31m\u202ec\rd"
SHOWN = r"a\x1b]0;owned\x07\x1b[2Jb\x9b31m\u202ec\rd"


def test_what_cannot_be_printed_is_written_out_and_the_rest_stays() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("Größe 训练 −5 %\nzwei") == "Größe 训练 −5 %\nzwei"
    assert printable("\udcd0") == r"\udcd0"
    assert str(UserError(f"{HOSTILE}: gone")) == f"{SHOWN}: gone"


def test_lines_tables_and_facts_show_names_without_obeying_them(capsys) -> None:
    shown = table("name", HOSTILE)
    shown.add_row(HOSTILE, HOSTILE)
    say(HOSTILE)
    console().print(shown)
    console().print(facts_table({HOSTILE: HOSTILE}))
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert printed.splitlines()[0] == SHOWN


def test_json_escapes_what_cannot_be_printed_and_reads_back(capsys) -> None:
    print_json({HOSTILE: [HOSTILE, "训练", "\udcd0"]})
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert json.loads(printed) == {HOSTILE: [HOSTILE, "训练", "\udcd0"]}
    assert "训练" in printed
