"""Every program ends in one sentence and a status, whatever its streams and its system do."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import textwrap

import pytest

_PROGRAM = """
import errno, os, resource, signal, sys, threading
from pathlib import Path
from ppo_scheduler.errors import Interrupted, UserError
from vidur_ext.exits import exit_status

def program():
{body}

sys.exit(exit_status(program))
"""


def ended(
    body: str, shell: str = "", *, before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program as a shell does that redirects its streams."""
    code = _PROGRAM.format(body=textwrap.indent(textwrap.dedent(body).strip(), "    "))
    command = shlex.join([sys.executable, "-c", code])
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {before} {command} {shell}"],
        capture_output=True,
        env={**os.environ, **environment},
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_what_goes_well_says_nothing():
    result = ended("print('done')")
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_a_bug_keeps_its_traceback():
    result = ended("raise RuntimeError('a bug')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("raise UserError('no: say yes')", "no: say yes"),
        ("open('/no/such file')", "/no/such file: No such file or directory"),
        (
            "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), b'/d\\xff')",
            "/d\\udcff: No space left on device; free some space there, then start again",
        ),
        (
            "resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)); [os.pipe() for _ in range(9)]",
            "Too many open files; raise the limit on open files (ulimit -n), then start again",
        ),
        ("raise OSError('proxy is down')", "proxy is down"),
        ("bytearray(1 << 60)", "memory ran out; end other programs"),
        (
            "import torch; torch.empty(1 << 50)",
            "memory ran out; end other programs",
        ),
        (
            "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"
            "threading.stack_size(1 << 30); threading.Thread(target=print).start()",
            "no more threads or processes can be started",
        ),
        ("input('really? ')", None),
    ],
)
def test_what_a_user_or_the_system_causes_is_one_sentence_and_status_2(body, sentence):
    result = ended(body, "</dev/null")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    if sentence is None:
        assert result.stderr.startswith("the input ended before the question was answered")
    else:
        assert result.stderr.startswith(f"error: {sentence}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_its_own_status(number):
    name = number.name
    told = ended(
        f"""
        try:
            os.kill(os.getpid(), signal.{name}); signal.pause()
        except Interrupted as stop:
            raise stop.saying("all is kept")
        """
    )
    assert (told.returncode, told.stderr) == (128 + number, f"stopped by {name}; all is kept\n")


def test_signals_of_a_dying_parent_do_not_disturb_the_end():
    told = ended(
        """
        try:
            os.kill(os.getpid(), signal.SIGTERM); signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGHUP)
            print("put away")
        """
    )
    assert (told.returncode, told.stdout) == (143, "put away\n")
    assert told.stderr == "stopped by SIGTERM before anything was left to save\n"


def test_what_the_caller_ignores_stays_ignored():
    """As ``nohup`` does with SIGHUP, and a shell in the background with SIGINT."""
    both = "[os.kill(os.getpid(), n) for n in (signal.SIGHUP, signal.SIGINT)]; print('on')"
    assert ended(both, before="trap '' HUP INT;").stdout == "on\n"


def test_a_request_to_save_that_nobody_hears_kills_nothing():
    assert ended("os.kill(os.getpid(), signal.SIGUSR1); print('on')").stdout == "on\n"


_TALK = """
print("output", sys.stdin.read())
print("message", file=sys.stderr)
os.system("test -e /proc/self/fd/0 -a -e /proc/self/fd/1 -a -e /proc/self/fd/2 || echo closed >&3")
"""


@pytest.mark.parametrize(
    ("closed", "output", "message"),
    [
        ("<&-", "output \n", "message\n"),
        ("<&- >&-", "", "message\n"),
        ("<&- 2>&-", "output \n", ""),
        ("</dev/null >&- 2>&-", "", ""),
    ],
)
def test_closed_streams_are_as_dev_null_for_children_too(closed, output, message):
    result = ended(_TALK, f"3>&1 {closed}")
    assert (result.returncode, result.stdout, result.stderr) == (0, output, message)


def test_output_that_a_full_disk_refuses_is_an_error():
    result = ended("print('x' * 100)", ">/dev/full")
    assert result.returncode == 2
    assert result.stderr.startswith("error: standard output: No space left on device")
    assert len(result.stderr.splitlines()) == 1


def test_a_reader_who_has_seen_enough_is_no_error():
    result = ended("for n in range(10**5): print(n)", "| head -1")
    assert (result.returncode, result.stdout, result.stderr) == (128 + signal.SIGPIPE, "0\n", "")


def test_messages_that_nobody_can_read_stop_nothing():
    result = ended("print('x' * 10**5, file=sys.stderr); print('done')", "2>/dev/full")
    assert (result.returncode, result.stdout) == (0, "done\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_can_be_printed_in_any_locale(encoding):
    text = "\u2212 训练 \udcff"
    result = ended(f"print({text!a}); raise UserError({text!a})", PYTHONIOENCODING=encoding)
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    assert (result.returncode, result.stdout) == (2, f"{shown}\n")
    assert result.stderr == f"error: {shown}\n"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot be told")
def test_programs_started_from_it_import_nothing_from_where_the_user_stands(tmp_path):
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong one')")
    body = f"""
        import subprocess
        os.chdir({str(tmp_path)!r})
        print(subprocess.run([sys.executable, "-c", "import random; print('right')"],
              capture_output=True, text=True).stdout)
    """
    assert ended(body).stdout.strip() == "right"
