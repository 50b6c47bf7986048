"""From Vidur's flat flags to its config object, for programs as well as for command lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vidur.config import SimulationConfig

from vidur_ext import plugin


def parse_simulation_config(flags: Sequence[str]) -> Any:
    """Return Vidur's ``SimulationConfig`` of ``flags``; our types are registered.

    Vidur creates its output folder and writes its config there while it is constructed.
    """
    plugin.register()
    with _command_line(flags):
        return SimulationConfig.create_from_cli_args()


@contextmanager
def _command_line(flags: Sequence[str]) -> Iterator[None]:
    """Vidur's parser reads ``sys.argv``; let it see ``flags`` and nothing else."""
    saved = sys.argv
    sys.argv = [saved[0], *flags]
    try:
        yield
    finally:
        sys.argv = saved
