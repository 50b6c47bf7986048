"""Signs of life among processes that train together.

Who is killed closes its connections, and the others know at once. Who is stopped, or whose machine
is lost, does not: the others would wait for it for ever. So each process counts in the store where
they met, and the first one looks whether the others still do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BEAT_S = 1.0
SILENT_BEATS = 20
"""Beats of the first process without one of another, after which that one is lost.

They are its own beats, not seconds: where it is stopped itself, it waits as long after that.
"""


@contextmanager
def beating(store: Any, rank: int, on_lost_store: Callable[[], None]) -> Iterator[None]:
    """Count in the store inside the block.

    Args:
        store: a connection that nothing else uses.
        on_lost_store: called when it cannot be reached any more.
    """
    with _repeating(lambda: store.add(_key(rank), 1), on_lost_store):
        yield


@contextmanager
def watching(
    store: Any, ranks: range, on_silence: Callable[[int], None], on_lost_store: Callable[[], None]
) -> Iterator[None]:
    """Look inside the block whether the processes of these numbers count.

    Args:
        store: a connection that nothing else uses.
        on_silence: called with the number of each one that has become silent, once.
        on_lost_store: called when the store cannot be reached any more.
    """
    counts = dict.fromkeys(ranks, 0)
    silent = dict.fromkeys(ranks, 0)

    def look() -> None:
        for rank in ranks:
            count = store.add(_key(rank), 0)
            silent[rank] = 0 if count != counts[rank] else silent[rank] + 1
            counts[rank] = count
            if silent[rank] == SILENT_BEATS:
                on_silence(rank)

    with _repeating(look, on_lost_store):
        yield


@contextmanager
def _repeating(work: Callable[[], object], on_error: Callable[[], None]) -> Iterator[None]:
    """Do ``work`` once a beat, beside what the block does."""
    over = threading.Event()

    def run() -> None:
        try:
            while not over.wait(BEAT_S):
                work()
        except RuntimeError:  # torch's stores have no other kind
            if not over.is_set():
                on_error()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _key(rank: int) -> str:
    return f"pulse_{rank}"
