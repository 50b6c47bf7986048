"""The processes of one training as threads of this one, of which one computes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.parallel.process_group import ProcessLost
from ppo_scheduler.parallel.shards import Processes

_Number = TypeVar("_Number", bound=np.generic)
_Result = TypeVar("_Result")


def in_threads(count: int, program: Callable[[Processes], _Result]) -> list[_Result]:
    """Run a program as each of so many processes; return their results in order.

    The turn goes round, from one exchange to the next, so nothing that they share, such as the
    scratch memory of compiled code, is used by two at a time, and every run goes the same way.

    Raises:
        Exception: that of the first one that had one, rather than what the others made of it.
    """
    turns = _Turns(count)
    with ThreadPoolExecutor(count) as pool:
        runs = [pool.submit(turns.run, program, _Thread(turns, rank)) for rank in range(count)]
    errors = [run.exception() for run in runs]
    for error in sorted(filter(None, errors), key=lambda error: isinstance(error, ProcessLost)):
        raise error
    return [run.result() for run in runs]


class _Turns:
    """Whose turn it is, and what has been exchanged."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.exchanges = 0
        self.exchanged: list[NDArray[np.generic]] = []
        """In the last exchange, by all."""
        self._given: list[NDArray[np.generic]] = []
        """So far in the one that is on."""
        self._semaphores = [Semaphore(0) for _ in range(count)]
        self._semaphores[0].release()
        self._ended: set[int] = set()

    def run(self, program: Callable[[Processes], _Result], thread: _Thread) -> _Result:
        self.wait(thread.rank)
        try:
            return program(thread)
        finally:
            self._ended.add(thread.rank)
            self.pass_on(thread.rank)

    def give(self, own: NDArray[np.generic]) -> None:
        self._given.append(own.copy())
        if len(self._given) == self.count:
            self.exchanged, self._given = self._given, []
            self.exchanges += 1

    def wait(self, rank: int) -> None:
        self._semaphores[rank].acquire()

    def pass_on(self, rank: int) -> None:
        """Give the turn to the next one that runs; it may be the same one."""
        others = [(rank + step) % self.count for step in range(1, self.count + 1)]
        running = [other for other in others if other not in self._ended]
        if running:
            self._semaphores[running[0]].release()


class _Thread:
    """See ``Processes``."""

    def __init__(self, turns: _Turns, rank: int) -> None:
        self.rank = rank
        self.count = turns.count
        self._turns = turns
        self._exchanges = 0

    def gather(
        self, own: NDArray[_Number], lengths: Sequence[int] | None = None
    ) -> Sequence[NDArray[_Number]]:
        """Return what all have given; what they say of it must be so."""
        turns = self._turns
        turns.give(own)
        turns.pass_on(self.rank)
        turns.wait(self.rank)
        self._exchanges += 1
        if turns.exchanges < self._exchanges:
            raise ProcessLost("another thread has ended")
        parts = list(turns.exchanged)
        assert {(part.dtype, part.shape[1:]) for part in parts} == {(own.dtype, own.shape[1:])}
        assert lengths is None or list(lengths) == [len(part) for part in parts]
        return parts  # type: ignore[return-value]
