"""Work spread over processes: none is left behind, and what ends them is told in a sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

WORKING = "import os, signal; os.write(1, b'working\\n'); signal.pause()"
"""The two workers' lines are written whole: both write at the same time."""
_PROGRAM = """
import os, signal, sys
from pathlib import Path
from vidur_ext.exits import exit_status
from vidur_ext.processes import map_unordered

def program():
    list(map_unordered(exec, {jobs!r}, 2))

if __name__ == "__main__":
    sys.exit(exit_status(program))
"""


def start(*jobs: str, **environment: str) -> subprocess.Popen[str]:
    """Run jobs, which are code, in two workers; all that can print do so into one pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(jobs=jobs)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def said_to_the_end(process: subprocess.Popen[str]) -> str:
    """Return what is printed until all that could print there have ended."""
    assert process.stdout is not None
    text = process.stdout.read()
    process.wait(timeout=60)
    return text


def test_workers_end_with_a_process_that_is_killed():
    process = start(WORKING)
    assert process.stdout.readline() == "working\n"
    process.kill()
    assert "working" not in said_to_the_end(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [False, True], ids=["it alone", "its group"])
def test_a_signal_ends_all_at_once_in_one_sentence(number, whole_group):
    """A job that never ends is not waited for; a terminal sends its signals to all of them."""
    process = start(WORKING, WORKING)
    assert process.stdout.readline() == "working\n"
    (os.killpg if whole_group else os.kill)(process.pid, number)
    text = said_to_the_end(process)
    assert f"stopped by {number.name} before anything was left to save" in text.splitlines()
    assert "Traceback" not in text
    assert process.returncode == 128 + number


def test_a_worker_that_is_killed_is_one_sentence():
    text = said_to_the_end(process := start("import os; os.kill(os.getpid(), 9)", WORKING))
    assert process.returncode == 2
    [error] = [line for line in text.splitlines() if line != "working"]
    assert error.startswith("error: a process that worked for this one was killed: perhaps memory")


def test_an_error_of_a_job_ends_the_others():
    text = said_to_the_end(process := start("open('/no/such file')", WORKING))
    assert process.returncode == 2
    assert text.splitlines()[-1] == "error: /no/such file: No such file or directory"


def test_a_long_temporary_folder_is_too_long_for_sockets_only(tmp_path):
    long = tmp_path / ("x" * 100) / "job"
    long.mkdir(parents=True)
    where = "import tempfile; print(tempfile.gettempdir())"
    text = said_to_the_end(process := start(where, TMPDIR=str(long)))
    assert (process.returncode, text) == (0, f"{long}\n")


def test_jobs_import_nothing_from_where_the_user_stands(tmp_path, monkeypatch):
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 cannot be told")
    (tmp_path / "selectors.py").write_text(textwrap.dedent("raise SystemExit('the wrong one')"))
    program = _PROGRAM.format(jobs=["print('right')"]).replace(
        "def program():", f"def program():\n    os.chdir({str(tmp_path)!r})"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "right\n", "")
