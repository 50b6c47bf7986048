"""Starts Python programs as forked children, so that a start costs no imports. Run as a script.

``warm_python.py`` is its client and says what a request is. A child begins with this process as it
is after the imports: no program has run in it, so what one does is new to all that follow. From
there a child goes the way of ``python ARGUMENTS``: the same file, with the same arguments, folder,
environment and streams. It differs from such a process in that the modules are there already, in
that numpy's BLAS keeps to one thread, and in that hashes of strings are those of its siblings.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import termios
from typing import Any

import ppo_scheduler
import vidur_ext

_LONGEST = 1 << 20
"""Bytes of a request: the arguments and the environment of a program."""


def import_everything() -> None:
    """Import the project and what it imports; nothing is run."""
    for package in (ppo_scheduler, vidur_ext):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            __import__(module.name)


def serve(client: socket.socket) -> dict[str, Any] | None:
    """Fork a child per request; return its request in each child, None here when all is done."""
    gc.freeze()
    while True:
        # A thread would not live on in the child, and what it had locked would stay locked.
        threads = len(os.listdir("/proc/self/task"))
        assert threads == 1, f"{threads} threads: forking is not safe"
        message, streams, _, _ = socket.recv_fds(client, _LONGEST, 3)
        if not message:
            return None
        pid = fork_beside()
        if pid == 0:
            client.close()
            request: dict[str, Any] = json.loads(message)
            settle(request, streams)
            return request
        for stream in streams:
            os.close(stream)
        client.send(str(pid).encode())


def fork_beside() -> int:
    """Fork a child of the process that started this one; return 0 in it, here its id.

    It is an orphan from the beginning; its client adopts it, as a "child subreaper".
    """
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid != 0:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.close(reader)
        os.close(writer)
        return 0
    os.close(writer)
    os.waitpid(between, 0)
    pid = int(os.read(reader, 20))
    os.close(reader)
    return pid


def settle(request: dict[str, Any], streams: list[int]) -> None:
    """Take on what a new process would be given."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if request["terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    # A shell that runs the tests in the background makes them, and all below, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])


def run(arguments: list[str]) -> None:
    """Run a script, or a module after ``-m``, as ``__main__``."""
    script, *rest = arguments
    if script == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        sys.path[0] = os.getcwd()
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(script)
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    import_everything()
    # A child leaves this function by returning, so that it ends as every program does.
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        run(request["arguments"])
