"""Processes that torch.distributed connects (gloo): on one machine or on many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError

_Number = TypeVar("_Number", bound=np.generic)

_CONNECTING = timedelta(seconds=20)
"""How long one process waits for another to connect: each has said before that it is ready."""

_PATIENCE = timedelta(days=1)
"""How long one process waits for another that lives: it may compile, validate or be asked."""


class ProcessLost(UserError):
    """Another process of the training has ended, or cannot be reached any more."""


class ProcessGroup:
    """See ``Processes``."""

    def __init__(self, store: Any, rank: int, count: int) -> None:
        """Connect with the others, which do the same.

        Args:
            store: where they find each other.

        Raises:
            ProcessLost: they cannot be reached.
        """
        self.rank = rank
        self.count = count
        with _exchanging():
            # Not torch's global group: its name counts those that this process has tried before.
            self._group: Any = dist.ProcessGroupGloo(store, rank, count, _CONNECTING)
            self._group.set_timeout(_PATIENCE)

    def gather(
        self, own: NDArray[_Number], lengths: Sequence[int] | None = None
    ) -> Sequence[NDArray[_Number]]:
        """Return what every process has given, in their order: see ``Processes``."""
        data = np.ascontiguousarray(own)
        if lengths is None:
            lengths = [int(length[0]) for length in self._gather(np.array([len(data)]))]
        room = np.zeros((max(lengths), *data.shape[1:]), data.dtype)
        room[: len(data)] = data
        return [part[:n] for part, n in zip(self._gather(room), lengths, strict=True)]

    def send(self, data: bytes) -> None:
        """Let all other processes ``receive`` this."""
        with _exchanging():
            self._group.broadcast(torch.tensor([len(data)]), 0).wait()
            self._group.broadcast(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0).wait()

    def receive(self) -> bytes:
        """Return what the first process sends."""
        length = torch.zeros(1, dtype=torch.int64)
        with _exchanging():
            self._group.broadcast(length, 0).wait()
            data = torch.zeros(int(length), dtype=torch.uint8)
            self._group.broadcast(data, 0).wait()
        return data.numpy().tobytes()

    def close(self) -> None:
        """Leave the others."""
        del self._group

    def _gather(self, own: NDArray[_Number]) -> list[NDArray[_Number]]:
        """Return arrays of one shape."""
        data = torch.from_numpy(own.reshape(-1).view(np.uint8))
        parts = [torch.empty_like(data) for _ in range(self.count)]
        with _exchanging():
            self._group.allgather([parts], [data]).wait()
        return [part.numpy().view(own.dtype).reshape(own.shape) for part in parts]


@contextmanager
def _exchanging() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch has no kinds of them: it is the connection in any case
        # The first sentence says what it is; the rest is torch's advice.
        reason = str(error).partition(". ")[0].partition("\n")[0] or type(error).__name__
        raise ProcessLost(
            f"another process of this training has ended or cannot be reached ({reason}); what it "
            "printed says why. What was saved is intact: start again with --resume latest"
        ) from error
