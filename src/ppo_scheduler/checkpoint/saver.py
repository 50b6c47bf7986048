"""Saving while training goes on: in the background, and without a failed save ending it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from ppo_scheduler.state import StateDict, snapshot

_LOG = logging.getLogger("ppo.checkpoint")


class SavesFailed(UserError):
    """The training went on, but some of its saves did not succeed."""


class Saver:
    """Publishes one tree after the other.

    A save that the disk refuses is warned about and counted; earlier checkpoints are untouched,
    and the next save may succeed. At most one save is under way: the next one waits for it.
    """

    def __init__(self, store: CheckpointStore, *, background: bool) -> None:
        self.failed: list[str] = []
        self.saved = 0
        self._store = store
        self._worker = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._under_way: Future[Path | None] | None = None

    def save(self, state: Callable[[], StateDict], description: Description) -> None:
        """Save in the background if there is one, from a copy of the state as it is now.

        Args:
            state: returns the tree; it is called once, before this returns.
        """
        if self._worker is None:
            self._publish(state(), description)
            return
        self.wait()
        self._under_way = self._worker.submit(self._publish, snapshot(state()), description)

    def save_now(self, state: Callable[[], StateDict], description: Description) -> Path | None:
        """Save and return the path when the checkpoint is durable, None if the disk refused."""
        self.wait()
        return self._publish(state(), description)

    def wait(self) -> None:
        """Return when no save is under way.

        Raises:
            Exception: a bug in the save that was under way.
        """
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the background, when what is under way is on the disk; say failures in any case.

        Raises:
            Exception: a bug in the save that was under way, unless another error ends the training.
        """
        if self._worker is not None:
            self._worker.shutdown(wait=True)
        if error is None:
            self.wait()
        elif self.failed:
            _LOG.warning("%s", self._failures())

    def raise_failures(self) -> None:
        """End a training whose saves did not all succeed with an error.

        Raises:
            SavesFailed: naming how many failed, and why the last one did.
        """
        if self.failed:
            raise SavesFailed(self._failures())

    def _failures(self) -> str:
        return (
            f"{len(self.failed)} of {len(self.failed) + self.saved} saves failed; the last one "
            f"because of {self.failed[-1]}"
        )

    def _publish(self, tree: StateDict, description: Description) -> Path | None:
        try:
            path = self._store.publish(tree, description)
        except UserError as error:
            self.failed.append(str(error))
            _LOG.warning("saving PPO step %d failed: %s", description.ppo_step, error)
            return None
        self.saved += 1
        _LOG.info("saved %s (%s)", path.name, description.reason)
        return path
