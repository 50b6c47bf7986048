"""Which requests each chunk trains: pure arithmetic over one grid.

Chunk i covers requests [(i - 1) * size, i * size) of the stream, whatever was trained before and in
which process, so a plan depends on total and size alone.
"""

from __future__ import annotations

from dataclasses import dataclass

_USUAL_CHUNKS = 8


@dataclass(frozen=True)
class Slice:
    """Requests [start, stop) of the stream; ``chunk_id`` counts from 1."""

    chunk_id: int
    start: int
    stop: int

    @property
    def requests(self) -> int:
        return self.stop - self.start


def usual_size(total: int, episode: int) -> int:
    """Return an eighth of all requests, rounded up to whole episodes.

    A chunk that ends with an episode leaves nothing to be simulated again by the next one.
    """
    episodes = -(-total // (_USUAL_CHUNKS * episode))
    return min(episodes * episode, total)


def plan(total: int, size: int) -> tuple[Slice, ...]:
    """Return the chunks of ``total`` requests, ``size`` each; the last one may be shorter."""
    return tuple(
        Slice(number, start, min(start + size, total))
        for number, start in enumerate(range(0, total, size), start=1)
    )


def next_slice(slices: tuple[Slice, ...], done: int, *, finished: bool) -> Slice | None:
    """Return what to train next when ``done`` requests are trained, None at the end.

    Args:
        finished: the process of the last chunk came to its end. Until then it is due once more,
            even with nothing left to train: it also writes the policy.
    """
    left = [part for part in slices if part.stop > done]
    if left:
        return left[0]
    return None if finished else slices[-1]
