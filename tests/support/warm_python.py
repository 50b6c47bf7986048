"""Python programs that start at once: forked, by a server, from a process with all imports done."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect
from ptyprocess import PtyProcess

_PR_SET_CHILD_SUBREAPER = 36


class WarmPython:
    """Starts programs as ``python ARGUMENTS`` would, as children of this very process."""

    def __init__(self) -> None:
        # Children of the server become ours: we wait for them, and know when they have ended.
        assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # BLAS and Arrow's allocator would start threads, and a threaded process must not fork.
        quiet = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm_server.py")), str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **quiet},
        )
        theirs.close()

    def close(self) -> None:
        """End the server; it must still be there, and end well."""
        self._socket.close()
        status = self._server.wait(timeout=60)
        assert status == 0, f"the warm server ended with status {status}"

    def popen(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program with the options of ``subprocess.Popen`` but those about its start."""
        return _WarmPopen(self, arguments, text=True, **options)

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end without a terminal; keep what it prints."""
        process = self.popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def terminal(
        self, arguments: Sequence[str], folder: Path, size: tuple[int, int] = (50, 200)
    ) -> pexpect.spawn:
        """Start a program in a terminal of its own."""
        return _WarmTerminal(
            self, arguments, cwd=str(folder), encoding="utf-8", timeout=60, dimensions=size
        )

    def start(
        self,
        arguments: Sequence[str],
        streams: Sequence[int],
        folder: str | os.PathLike[str] | None,
        environment: Mapping[str, str] | None,
        *,
        terminal: bool = False,
    ) -> int:
        """Start a child on three open files and return its id; the caller waits for it."""
        request = {
            "arguments": list(arguments),
            "folder": os.fspath(folder or os.getcwd()),
            "environment": dict(os.environ if environment is None else environment),
            "terminal": terminal,
        }
        socket.send_fds(self._socket, [json.dumps(request).encode()], list(streams))
        answer = self._socket.recv(64)
        assert answer, f"the warm server ended with status {self._server.wait(timeout=60)}"
        return int(answer)


class _WarmPopen(subprocess.Popen[str]):
    """A ``Popen`` whose process the server starts."""

    def __init__(self, python: WarmPython, arguments: Sequence[str], **options: Any) -> None:
        self._python = python
        super().__init__(list(arguments), **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        *_, cwd, env = rest[:6]
        pipes = p2cread, _, _, c2pwrite, _, errwrite = rest[9:15]
        given = [
            own if pipe == -1 else pipe for own, pipe in enumerate((p2cread, c2pwrite, errwrite))
        ]
        self.pid = self._python.start(args, given, cwd, env)
        self._child_created = True
        self._close_pipe_fds(*pipes)


class _WarmTerminal(pexpect.spawn):
    """A ``spawn`` whose process the server starts."""

    def __init__(self, python: WarmPython, arguments: Sequence[str], **options: Any) -> None:
        self._python = python
        self._arguments = arguments
        super().__init__(sys.executable, list(arguments), **options)

    def _spawnpty(
        self, args: object, *, cwd: str, dimensions: tuple[int, int], **_: object
    ) -> PtyProcess:
        ours, theirs = os.openpty()
        pid = self._python.start(self._arguments, [theirs] * 3, cwd, None, terminal=True)
        child = PtyProcess(pid, ours)
        child.setwinsize(*dimensions)
        os.close(theirs)
        return child
