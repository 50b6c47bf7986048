"""What a launcher of processes, such as torchrun, has said to this one.

It starts the same program several times, on one machine or on many, with the variables ``RANK``,
``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``. The first process runs the program, the others
help it to train.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

ORDER, TRAIN, END = "order", b"train", b"end"
"""A key of the store, and what the first process lets it say: a training begins, or none does."""

PATIENCE = timedelta(days=1)
"""How long one process waits for another that lives: it may compile, validate or ask somebody."""


def launched_rank() -> int:
    """Return the number that a launcher has given to this process; 0 without one."""
    return int(os.environ.get("RANK", "0")) if launched_count() > 1 else 0


def launched_count() -> int:
    """Return how many processes a launcher has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_store() -> Any:
    """Return the store where launched processes meet.

    It is the launcher's own, or, as torch has it, one of the first process.
    """
    of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return store_at(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=not of_agent and launched_rank() == 0,
    )


def store_at(address: str, port: int, *, is_master: bool) -> Any:
    """Return a connection to a store; the master opens it, at any free port if it is 0."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    store = TCPStore(address, port, is_master=is_master, wait_for_workers=False, timeout=PATIENCE)
    # Started again by torchrun, a program finds the store of its earlier life.
    return PrefixStore(f"ppo_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def run_first(program: Callable[[], None], follow: Callable[[], None]) -> None:
    """Run ``program`` where this is the first process; any other is to ``follow`` it to its end."""
    if launched_rank() > 0:
        follow()
        return
    try:
        program()
    finally:
        if launched_count() > 1:
            # Who has trained is gone already; who still waits is not needed any more.
            with suppress(Exception):
                launched_store().set(ORDER, END)
