"""Vidur's request, able to be preempted."""

from __future__ import annotations

from vidur.entities import Request


class RestartableRequest(Request):
    """A request that survives ``restart``.

    Vidur 0.0.26 leaves the tokens counted per pipeline stage as they were when it restarts a
    preempted request, counts them again, and ends in its own assertion. Preemption is the point
    of simulating an overloaded cluster, so the counter starts anew here.
    """

    def restart(self) -> None:
        """Give up all progress; the tokens so far become the prompt."""
        super().restart()
        self._num_stage_processed_tokens = 0
        self._is_prefill_stage_complete = False
