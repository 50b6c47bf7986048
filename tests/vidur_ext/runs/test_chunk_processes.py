"""Locks, parents, signals and logs of chunks, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import is_held
from vidur_ext.processes import child_environment, end_with_parent
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs import chunk_process
from vidur_ext.runs.chunk_process import Ended, Follower, Signals, last_lines, run_chunk

PYTHON = sys.executable


def python(code: str, **arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        **arguments,
    )


def test_a_run_has_one_owner(tmp_path):
    with (
        RunFolder(tmp_path).lock(),
        pytest.raises(UserError, match=f"process {os.getpid()} is training there"),
        RunFolder(tmp_path).lock(),
    ):
        pass
    with RunFolder(tmp_path).lock():
        pass


def test_the_lock_of_a_dead_owner_is_free(tmp_path):
    holder = python(
        f"""
        import pathlib, sys
        from vidur_ext.run_folder import RunFolder
        with RunFolder(pathlib.Path({str(tmp_path)!r})).lock():
            print("locked", flush=True)
            sys.stdin.read()
        """
    )
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"process {holder.pid}"), RunFolder(tmp_path).lock():
        pass
    holder.kill()
    holder.communicate()
    with RunFolder(tmp_path).lock():
        pass


def store_at(folder: Path) -> CheckpointStore:
    return CheckpointStore(CheckpointingSection(checkpoint_dir=str(folder)))


@pytest.fixture
def writer(tmp_path):
    store = store_at(tmp_path)
    store.prepare()
    yield store
    store.close()


def test_nobody_writing_is_not_waited_for(tmp_path, writer):
    store_at(tmp_path / "no such folder").wait_for_writer(0.0)
    writer.close()
    store_at(tmp_path).wait_for_writer(0.0)


def test_a_writer_is_waited_for_and_named_if_it_does_not_end(tmp_path, writer, monkeypatch, caplog):
    with pytest.raises(UserError, match=f"process {os.getpid()} is writing checkpoints"):
        store_at(tmp_path).wait_for_writer(0.0)
    monkeypatch.setattr("time.sleep", lambda seconds: writer.close())
    store_at(tmp_path).wait_for_writer(60.0)
    assert f"waiting for process {os.getpid()}" in caplog.text


def test_waiting_leaves_the_lock_free(tmp_path, writer):
    writer.close()
    store_at(tmp_path).wait_for_writer(60.0)
    writer.prepare()


MIDDLE = """
import subprocess, sys
from vidur_ext.processes import child_environment
child = subprocess.Popen([sys.executable, "-c", {child!r}], env=child_environment())
print(child.pid, flush=True)
sys.stdin.read()
"""
CHILD = """
import signal, sys
from vidur_ext.processes import end_with_parent
end_with_parent()
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
print("told to stop", flush=True)
"""


def test_a_child_is_told_when_its_parent_is_killed():
    blocked = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    middle = python(MIDDLE.format(child=blocked + CHILD))
    assert middle.stdout.readline().strip().isdigit()
    assert middle.stdout.readline() == "ready\n"
    middle.kill()
    assert middle.stdout.readline() == "told to stop\n"
    assert middle.stdout.read() == "", "the child has ended"
    middle.wait()


def test_a_child_whose_parent_is_gone_already_does_nothing(monkeypatch):
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr("ctypes.CDLL", lambda *a, **k: type("C", (), {"prctl": lambda *a: 0}))
    with pytest.raises(UserError, match="has ended: nothing is done"):
        end_with_parent()
    end_with_parent()  # the variable is gone: children of its own are not concerned


@pytest.fixture
def chunk(monkeypatch, tmp_path):
    """Run a stand-in for the simulator; return how it ended and what its log holds."""

    def run(code: str, signals: Signals | None = None, show=lambda: None) -> tuple[Ended, str]:
        program = tmp_path / "program.sh"
        program.write_text(f'#!/bin/sh\nexec "{PYTHON}" -c "$CODE" "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("CODE", textwrap.dedent(code))
        monkeypatch.setattr(sys, "executable", str(program))
        log = tmp_path / "chunk_1.log"
        ended = run_chunk(["--flag"], log, signals or Signals(), show)
        return ended, log.read_text(encoding="utf-8")

    return run


def test_the_log_holds_all_that_was_printed_over_all_attempts(chunk):
    code = "import sys; print(sys.argv[1:]); print('to stderr', file=sys.stderr)"
    chunk(code)
    ended, log = chunk(code)
    assert (ended.status, str(ended)) == (0, "ended with status 0")
    assert log.count("['-m', 'vidur_ext.main', '--flag']") == 2
    assert log.count("to stderr") == 2
    assert log.count(chunk_process.HEADING) == 2


def test_the_end_of_a_killed_process_is_named(chunk):
    ended, _ = chunk("import os; os.kill(os.getpid(), 9)")
    assert (ended.status, str(ended)) == (-9, "was killed by SIGKILL")


def test_the_peak_of_memory_is_the_process_own(chunk, tmp_path):
    """It ends when its memory has been looked at behind the allocation."""
    allocated, seen = tmp_path / "allocated", tmp_path / "seen"

    def show() -> None:
        if allocated.exists() and not allocated.read_text():
            allocated.write_text("looked at next time")
        elif allocated.exists():
            seen.touch()

    code = f"""
        import os, pathlib
        memory = bytearray(200_000_000)
        del memory
        pathlib.Path({str(allocated)!r}).touch()
        while not os.path.exists({str(seen)!r}):
            pass
    """
    ended, _ = chunk(code, show=show)
    assert 200 < ended.peak_rss_mb < 260


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_chunk_and_the_first_stop_is_remembered(chunk, number):
    signals, sent = Signals(), []

    def send_once() -> None:
        if not sent and signals._child is not None:
            sent.append(number)
            os.kill(os.getpid(), number)

    code = """
        import signal, sys
        number = signal.sigwait([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        print("got", signal.Signals(number).name)
        sys.exit(128 + number)
    """
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    with signals.listening():
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)  # inherited: none is lost at the start
        try:
            show = lambda: (signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked), send_once())  # noqa: E731
            ended, log = chunk(code, signals, show)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    assert signals.stop == number
    assert ended.status == 128 + number
    assert f"got {number.name}" in log


def test_a_manual_save_reaches_the_chunk_and_stops_nothing(chunk):
    signals = Signals()
    code = "import signal; print('got', signal.sigwait([signal.SIGUSR1]))"
    with signals.listening():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

        def show() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            if signals._child is not None:
                os.kill(os.getpid(), signal.SIGUSR1)

        _, log = chunk(code, signals, show)
    assert "got" in log
    assert signals.stop is None


def test_a_manual_save_that_comes_before_the_chunk_listens_kills_nothing(chunk):
    code = """
        import os, signal
        os.kill(os.getpid(), signal.SIGUSR1)
        print("alive")
    """
    ended, log = chunk(code)
    assert (ended.status, "alive" in log) == (0, True)


def test_a_hangup_that_the_caller_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = Signals()
        with signals.listening():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_as_before_behind_the_block():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with Signals().listening():
        pass
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert after == before


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="the chunk's log cannot be written"):
        run_chunk([], tmp_path / "no folder" / "chunk_1.log", Signals(), lambda: None)


def test_a_follower_shows_new_whole_lines_once(tmp_path):
    log, shown = tmp_path / "log", []
    log.write_text("old\n", encoding="utf-8")
    follow = Follower(log, shown.append, lambda line: "skip" not in line)
    with log.open("a", encoding="utf-8") as file:
        for text in ("one\ntw", "o ä\nskip me\n", "rest"):
            file.write(text)
            file.flush()
            follow()
    assert shown == ["one\n", "two ä\n"]


def test_a_follower_waits_for_its_file(tmp_path):
    shown: list[str] = []
    follow = Follower(tmp_path / "later", shown.append)
    follow()
    (tmp_path / "later").write_text("now\n", encoding="utf-8")
    follow()
    assert shown == ["now\n"]


def test_last_lines_are_those_with_text(tmp_path):
    log = Path(tmp_path / "log")
    log.write_bytes(b"one\n\ntwo \xff\n\n\nthree\n")
    assert last_lines(log, 2) == ["two \ufffd", "three"]


def test_a_chunk_that_outlives_its_driver_still_holds_the_lock_it_was_lent(tmp_path):
    lock = tmp_path / ".lock"
    middle = python(
        f"""
        import os, pathlib, subprocess, sys
        from ppo_scheduler.files import FileLock
        held = FileLock(pathlib.Path({str(lock)!r}), "")
        child = subprocess.Popen(
            [sys.executable, "-c", "print('alive', flush=True); input()"], pass_fds=[held.handle]
        )
        os._exit(child.wait())
        """
    )
    assert middle.stdout.readline() == "alive\n"
    middle.kill()
    middle.wait()
    assert is_held(lock)
    middle.stdin.close()
    assert middle.stdout.read() == "", "the child has ended"
    assert not is_held(lock)
