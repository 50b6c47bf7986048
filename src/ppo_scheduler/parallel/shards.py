"""The shards of a training, and which of them a process has.

Environments belong to shards, some consecutive ones to each. What is learned is a sum over the
shards in their order, so it has the same bits whoever has computed a shard: one process has all of
them, of W processes each has S / W. Whatever else is the same for all (weights, statistics, random
numbers) every process computes for itself, from the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)


class Processes(Protocol):
    """The processes of one training, as one of them sees them.

    What they do together, all of them call in the same order.
    """

    @property
    def rank(self) -> int:
        """The number of this process; the first, which owns the run, is 0."""

    @property
    def count(self) -> int:
        """W, how many there are."""

    def gather(
        self, own: NDArray[_Number], lengths: Sequence[int] | None = None
    ) -> Sequence[NDArray[_Number]]:
        """Return what every process has given [n, ...], in their order.

        Args:
            lengths: n of each process; None, where they are not known, costs a message more.

        Raises:
            ProcessLost: another process has ended, or cannot be reached.
        """


class OneProcess:
    """A training in this process alone."""

    rank = 0
    count = 1

    def gather(
        self, own: NDArray[_Number], lengths: Sequence[int] | None = None
    ) -> Sequence[NDArray[_Number]]:
        """Return what was given: see ``Processes``."""
        return [own]


_ALONE = OneProcess()


@dataclass(frozen=True)
class Shards:
    """E environments in S shards, of which each process has equally many.

    With fewer environments than ``wanted`` shards each environment is one.
    """

    num_envs: int
    wanted: int = 1
    processes: Processes = _ALONE

    def __post_init__(self) -> None:
        assert self.count % self.processes.count == 0, (self.count, self.processes.count)

    @property
    def count(self) -> int:
        """S."""
        return min(self.wanted, self.num_envs)

    @property
    def own(self) -> range:
        """The numbers of this process's shards."""
        return self._shards_of(self.processes.rank)

    @cached_property
    def numbers(self) -> range:
        """The numbers of this process's environments, B of all E."""
        return self._envs_of(self.processes.rank)

    @cached_property
    def size(self) -> int:
        """B, how many environments this process has."""
        return len(self.numbers)

    @cached_property
    def envs(self) -> slice:
        """This process's environments among all."""
        return slice(self.numbers.start, self.numbers.stop)

    @property
    def parts(self) -> list[slice]:
        """Which of the B environments belong to each shard of this process."""
        first = self.numbers.start
        return [
            slice(self._first_of(shard) - first, self._first_of(shard + 1) - first)
            for shard in self.own
        ]

    def together(self, own: NDArray[_Number], axis: int = 0) -> NDArray[_Number]:
        """Return the arrays of all E environments, of which this process has B along ``axis``.

        In one process it is the array that was given.
        """
        [all_] = self.all_together([own], axis)
        return all_

    def all_together(
        self, own: Sequence[NDArray[_Number]], axis: int = 0
    ) -> Sequence[NDArray[_Number]]:
        """Return ``together`` of several arrays, in one message.

        What is returned lies in memory as what one process has, so that sums of it are the same.
        """
        assert all(array.flags.c_contiguous for array in own), "memory has another order"
        if self.processes.count == 1:
            return own
        first = [np.ascontiguousarray(np.moveaxis(array, axis, 0)) for array in own]
        rows = [array.reshape(self.size, -1).view(np.uint8) for array in first]
        sizes = [len(self._envs_of(rank)) for rank in range(self.processes.count)]
        every = np.concatenate(self.processes.gather(np.concatenate(rows, axis=1), sizes))
        columns = np.split(every, np.cumsum([row.shape[1] for row in rows])[:-1], axis=1)
        shapes = [(self.num_envs, *array.shape[1:]) for array in first]
        return [
            np.ascontiguousarray(
                np.moveaxis(column.copy().view(array.dtype).reshape(shape), 0, axis)
            )
            for column, array, shape in zip(columns, first, shapes, strict=True)
        ]

    def rows_together(
        self, own: Sequence[NDArray[_Number]], lengths: NDArray[np.int64]
    ) -> NDArray[_Number]:
        """Return the rows of all shards, one shard's after the other's.

        Args:
            own: rows [n, ...] of each of this process's shards.
            lengths: n of all shards [S].
        """
        of_processes = lengths.reshape(self.processes.count, -1).sum(axis=1).tolist()
        return np.concatenate(self.processes.gather(np.concatenate(own), of_processes))

    def of_shards(self, own: NDArray[_Number]) -> NDArray[_Number]:
        """Return the rows of all S shards, of this process's [S / W, ...]."""
        return np.concatenate(self.processes.gather(own, [len(own)] * self.processes.count))

    def total(self, own: NDArray[_Number]) -> NDArray[_Number]:
        """Return the sum [...] over all shards, in their order, of this process's [S / W, ...]."""
        first, *others = self.of_shards(own)
        total: NDArray[_Number] = first.copy()
        for part in others:
            np.add(total, part, out=total)
        return total

    def _shards_of(self, rank: int) -> range:
        each = self.count // self.processes.count
        return range(rank * each, (rank + 1) * each)

    def _envs_of(self, rank: int) -> range:
        shards = self._shards_of(rank)
        return range(self._first_of(shards.start), self._first_of(shards.stop))

    def _first_of(self, shard: int) -> int:
        """Return the first environment of a shard: they are as even as whole numbers can be."""
        return shard * self.num_envs // self.count
