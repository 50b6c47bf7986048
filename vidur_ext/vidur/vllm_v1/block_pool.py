"""The KV blocks of a replica, and which of them hold text that may be asked for again.

Behaves as vLLM 0.33 does (docs/design/prefix_caching.md, v1/core/block_pool.py).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile


class BlockPool:
    """Hands out blocks by number, and finds those that still hold a text.

    A block that nobody uses any more keeps its text until it is handed out again. Blocks with the
    same text are not merged: each is found by the text, the first registered before the others.

    Unused blocks are handed out in this order: what holds no text, what was never used, and the
    rest, longest unused first. A pool takes memory for what was ever used.

    Args:
        num_blocks: blocks of the device. One of them stands for nothing and is never handed out.
    """

    def __init__(self, num_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._without_text: list[int] = []
        """Used before; the last one is handed out first."""
        self._never_used = 1
        """The first of them."""
        self._with_text: OrderedDict[int, None] = OrderedDict()
        """In the order in which they are handed out."""
        self._users: defaultdict[int, int] = defaultdict(int)
        self._text: dict[int, int] = {}
        """Identity of what a block holds, for those that can be found."""
        self._holders: defaultdict[int, dict[int, None]] = defaultdict(dict)
        """Blocks that hold an identity, in the order in which they were registered."""

    @property
    def unused(self) -> int:
        """How many blocks can be handed out, with or without text."""
        never_used = self._num_blocks - self._never_used
        return len(self._without_text) + never_used + len(self._with_text)

    def find(self, identities: Iterable[int]) -> list[int]:
        """Return blocks that hold the longest prefix of ``identities`` that can be found."""
        held = takewhile(self._holders.__contains__, identities)
        return [next(iter(self._holders[identity])) for identity in held]

    def count_unused(self, blocks: Iterable[int]) -> int:
        """Return how many of ``blocks`` nobody uses: who takes them leaves so many fewer unused."""
        return sum(not self._users[block] for block in blocks)

    def share(self, blocks: Iterable[int]) -> None:
        """Let one more user have blocks that were found."""
        for block in blocks:
            if not self._users[block]:
                del self._with_text[block]
            self._users[block] += 1

    def take(self, count: int) -> list[int]:
        """Hand out the ``count`` blocks that are to be evicted first; their texts are lost."""
        blocks = [self._next() for _ in range(count)]
        for block in blocks:
            self._users[block] = 1
            self._forget(block)
        return blocks

    def _next(self) -> int:
        if self._without_text:
            return self._without_text.pop()
        if self._never_used < self._num_blocks:
            self._never_used += 1
            return self._never_used - 1
        return self._with_text.popitem(last=False)[0]

    def register(self, block: int, identity: int) -> None:
        """Let a full block be found by what it holds."""
        self._text[block] = identity
        self._holders[identity][block] = None

    def give_back(self, blocks: Sequence[int]) -> None:
        """End the use of a request's blocks, which are given in the order of their text.

        Of those without another user, the end of a text is evicted before its beginning, as it is
        of no use without that. Blocks that hold nothing to be found are the first to be taken.
        """
        useless = []
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block]:
                continue
            if block in self._text:
                self._with_text[block] = None
            else:
                useless.append(block)
        self._without_text.extend(reversed(useless))

    def _forget(self, block: int) -> None:
        identity = self._text.pop(block, None)
        if identity is None:
            return
        del self._holders[identity][block]
        if not self._holders[identity]:
            del self._holders[identity]
