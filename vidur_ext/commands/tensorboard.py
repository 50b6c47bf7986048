"""``vidur-ppo tensorboard``: look at the curves of all runs in a browser."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Annotated

import typer

from ppo_scheduler.errors import Interrupted, UserError
from vidur_ext.commands.options import DEFAULT_CONFIG, Config
from vidur_ext.config.loading import load_config
from vidur_ext.processes import child_environment

_SERVER = """
from tensorboard.main import run_main
from vidur_ext.processes import end_with_parent
end_with_parent()
run_main()
"""
_POLL_S = 0.2
_GRACE_S = 10.0


def tensorboard(
    logdir: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="A run, or a folder of runs (default: training.output_root of --config)",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port to listen on (default: a free one)", show_default=False
        ),
    ] = None,
) -> None:
    """Start TensorBoard, print its address, and serve until Ctrl-C or SIGTERM."""
    folder = logdir or Path(load_config(config or DEFAULT_CONFIG).training.output_root)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name a run, or a folder of runs")
    chosen = _free_port(host, port)
    arguments = ["--logdir", str(folder), "--host", host, "--port", str(chosen)]
    with tempfile.TemporaryFile() as said:
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=child_environment(),
        )
        try:
            address = f"http://{host}:{chosen}/"
            _wait_until_it_answers(server, address, said)
            typer.echo(f"TensorBoard of {folder}: {address} (Ctrl-C ends it)")
            server.wait()
        except Interrupted as stop:
            raise stop.saying("TensorBoard has ended") from None
        finally:
            _end(server)


def _free_port(host: str, port: int | None) -> int:
    """Return the port if it is free, or one that is if none is asked for.

    Raises:
        UserError: the port is taken, or the host is not an address of this machine.
    """
    try:
        with socket.create_server((host, port or 0)) as free:
            return int(free.getsockname()[1])
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port or 'any'}: cannot listen there ({error.strerror}); "
            "leave out --port for a free one, or name another"
        ) from error


def _wait_until_it_answers(server: subprocess.Popen[bytes], address: str, said: IO[bytes]) -> None:
    """Return when the server answers.

    Raises:
        UserError: it ended instead.
    """
    # A proxy of the environment is for other machines.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            with direct.open(address, timeout=5.0):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    raise UserError(f"TensorBoard ended at once: {lines[-1] if lines else 'without a word'}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server we started, and no other."""
    server.terminate()
    try:
        server.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
