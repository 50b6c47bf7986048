"""The log file is complete, UTF-8 and written once; the terminal shows what was asked for."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.files import is_held
from ppo_scheduler.monitoring.run_log import run_log

LOG = logging.getLogger("ppo")
RESUMED = "[Resume] PPO训练恢复"
LEVELS = ("debug", "info", "warning", "error")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ppo_training.log"


def log_all() -> None:
    for level in LEVELS:
        getattr(LOG, level)("at %s", level)


def shown_levels(text: str) -> list[str]:
    return re.findall(r"at (\w+)$", text, re.M)


@pytest.mark.parametrize("level", LEVELS)
def test_file_and_terminal_hold_the_asked_level_and_above(path, capsys, level):
    with run_log(path, level):
        log_all()
    expected = list(LEVELS[LEVELS.index(level) :])
    assert shown_levels(path.read_text(encoding="utf-8")) == expected
    assert shown_levels(capsys.readouterr().err) == expected


def test_quiet_shows_warnings_only_and_the_file_still_has_all(path, capsys):
    with run_log(path, "debug", quiet=True):
        log_all()
    assert shown_levels(path.read_text(encoding="utf-8")) == list(LEVELS)
    captured = capsys.readouterr()
    assert shown_levels(captured.err) == ["warning", "error"]
    assert captured.out == ""


def test_a_line_has_time_level_and_text(path):
    with run_log(path, "info"):
        LOG.warning("slow")
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} WARNING slow\n"
    assert re.fullmatch(pattern, path.read_text(encoding="utf-8"))


def test_a_log_inside_a_log_doubles_nothing(path, tmp_path, capsys):
    with run_log(path, "info"):
        with run_log(tmp_path / "inner.log", "debug"):
            LOG.info("once")
        LOG.info("still open")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["once", "still open"]
    assert capsys.readouterr().err.count("once") == 1
    assert not (tmp_path / "inner.log").exists()


def test_a_later_run_appends(path):
    for text in ("first", "second"):
        with run_log(path, "info"):
            LOG.info(text)
    assert [line.split()[-1] for line in path.read_text(encoding="utf-8").splitlines()] == [
        "first",
        "second",
    ]


def test_an_error_closes_the_log(path):
    with pytest.raises(KeyboardInterrupt), run_log(path, "info"):
        raise KeyboardInterrupt
    assert LOG.handlers == []
    assert LOG.propagate


def test_square_brackets_and_long_lines_stay_as_they_are(path, capsys):
    text = f"{RESUMED} [bold]x[/bold] " + "word " * 60 + "end"
    with run_log(path, "info"):
        LOG.info(text)
    assert text in path.read_text(encoding="utf-8")
    assert text in capsys.readouterr().err


def test_a_log_that_cannot_be_written_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="cannot write the log"), run_log(tmp_path, "info"):
        pass
    assert LOG.handlers == []


@pytest.fixture
def told(path, files_end_at, capsys):
    """Log lines 0 to 9 while the file may have so many bytes, then line 10; return what is told."""

    def log(size: int) -> list[str]:
        with run_log(path, "info"):
            with files_end_at(size):
                for number in range(10):
                    LOG.info("line %d", number)
            LOG.info("line 10")
        return capsys.readouterr().err.splitlines()

    return log


@pytest.mark.parametrize("size", [0, 10, 47, 100])
def test_lines_that_the_disk_refuses_are_written_later_and_it_is_told_once(path, told, size):
    shown = told(size)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines if "line " in line] == [
        f"line {number}" for number in range(11)
    ]
    [refused] = [line for line in shown if "cannot be written" in line]
    assert "the log cannot be written (File too large); its lines wait until it can" in refused
    assert len(shown) == 12


def test_a_disk_that_stays_full_ends_nothing(path, files_end_at, capsys):
    with files_end_at(0), run_log(path, "info"):
        LOG.info("never written")
    assert path.read_bytes() == b""
    assert "never written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("no room"), "ERROR ended: no room"),
        (Interrupted(signal.SIGTERM, "saved x"), "ERROR ended: stopped by SIGTERM; saved x"),
        (RuntimeError("a bug"), "ERROR ended by an error\nTraceback"),
    ],
)
def test_the_file_says_how_it_ended_and_leaves_the_terminal_to_others(path, capsys, error, said):
    with pytest.raises(type(error)), run_log(path, "info"):
        raise error
    assert said in path.read_text(encoding="utf-8")
    assert capsys.readouterr().err == ""


_PROGRAM = """
import logging, sys
from pathlib import Path
from ppo_scheduler.monitoring.run_log import run_log
with run_log(Path(sys.argv[1]), "info"):
    logging.getLogger("ppo").info({text})
"""


def log_in_c_locale(path: Path, text: str, encoding: str) -> str:
    """Log ``text`` in a process without a locale; return what its terminal got."""
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(text=ascii(text)), str(path)],
        env={**os.environ, **variables, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    return shown.stderr.decode(encoding).rstrip()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_chinese_is_logged_in_any_locale(path, encoding):
    shown = log_in_c_locale(path, RESUMED, encoding)
    assert path.read_bytes().decode("utf-8").rstrip().endswith(RESUMED)
    expected = RESUMED.encode(encoding, errors="backslashreplace").decode(encoding)
    assert re.fullmatch(rf"\d\d:\d\d:\d\d {re.escape(expected)}", shown)


def test_a_path_that_is_no_text_is_logged_escaped(path):
    shown = log_in_c_locale(path, "run folder out\udcff", "utf-8")
    assert path.read_text(encoding="utf-8").endswith("run folder out\\udcff\n")
    assert shown.endswith("run folder out\\udcff")
    assert "Logging error" not in shown


def test_a_log_that_was_removed_is_made_anew_and_still_shows_that_the_run_is_alive(path):
    below = path.parent / "run" / path.name
    below.parent.mkdir()
    with run_log(below, "info"):
        LOG.info("before")
        below.unlink()
        below.parent.rmdir()
        LOG.info("after")
        assert is_held(below)
    assert "before" not in below.read_text(encoding="utf-8")
    assert "after" in below.read_text(encoding="utf-8")


def test_a_log_that_is_a_link_is_refused(path, tmp_path):
    (tmp_path / "precious").write_text("precious")
    path.symlink_to("precious")
    with pytest.raises(UserError, match="cannot write the log"), run_log(path, "info"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
