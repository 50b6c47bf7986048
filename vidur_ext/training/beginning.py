"""How a training begins: what all processes that train together know alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ppo_scheduler import state_file
from ppo_scheduler.checkpoint.saver import Saver
from ppo_scheduler.parallel.shards import Processes
from ppo_scheduler.seeding import Purpose
from ppo_scheduler.state import StateDict
from vidur_ext.config.resume_rules import Difference, differences
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder
from vidur_ext.training.inputs import settings_of
from vidur_ext.training.instruments import Instruments
from vidur_ext.training.session import TrainingSession
from vidur_ext.training.terminal_value import changes_terminal_value, learn_terminal_value
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.run_workloads import workload_stream
from vidur_ext.workload.stream import RequestStream
from vidur_ext.workload.trace_stream import TraceStream

_LOG = logging.getLogger("ppo")


def training_stream(config: TrainingConfig, requests: RequestTable | None) -> RequestStream:
    """Return what is trained on: requests from elsewhere, or those of ``config.workload``.

    Raises:
        UserError: a trace cannot be used.
    """
    return workload_stream(config, Purpose.WORKLOAD) if requests is None else TraceStream(requests)


@dataclass(frozen=True)
class Beginning:
    """A config, and what is gone on from: a policy, a checkpoint, or neither of them.

    requests: from elsewhere than ``config.workload``, without texts and sessions.
    stop_at_requests: where this part of the training ends; None is the budget's end.
    warm_start: state of a policy. tree: that of a checkpoint, and settings: its config's values.
    """

    config: TrainingConfig
    requests: RequestTable | None
    stop_at_requests: int | None
    warm_start: StateDict | None
    tree: StateDict | None
    settings: Mapping[str, Any]

    @property
    def changed(self) -> list[Difference]:
        """What has changed since the checkpoint."""
        return differences(self.settings, settings_of(self.config))

    def session(
        self,
        stream: RequestStream,
        folder: RunFolder | None,
        instruments: Instruments,
        saver: Saver | None,
        processes: Processes,
    ) -> TrainingSession:
        """Return the training at its first request; see ``TrainingSession``."""
        session = TrainingSession(
            self.config,
            stream,
            folder,
            instruments,
            saver,
            processes=processes,
            warm_start=self.warm_start,
            stop_at_requests=self.stop_at_requests,
        )
        if self.warm_start is not None and self.config.corrects_costs:
            learn_terminal_value(self.config, session.learner)
        return session

    def go_on(self, session: TrainingSession) -> None:
        """Put a training that has just begun where its checkpoint was saved, if there is one.

        Raises:
            IncompatibleState: the checkpoint belongs to another observation or network.
        """
        if self.tree is None:
            return
        session.load_state_dict(self.tree, self.changed)
        stale = [change.name for change in self.changed if changes_terminal_value(change.name)]
        if stale and session.learner.terminal_value is not None:
            _LOG.info("what look-ahead leaves out is learned anew: %s changed", ", ".join(stale))
            learn_terminal_value(self.config, session.learner)

    def to_bytes(self) -> bytes:
        return state_file.dump(
            {
                "config": self.config.model_dump_json(),
                "requests": None if self.requests is None else _columns(self.requests),
                "stop_at_requests": self.stop_at_requests,
                "warm_start": self.warm_start,
                "tree": self.tree,
                "settings": json.dumps(dict(self.settings)),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Beginning:
        state = state_file.load(data)
        columns = state["requests"]
        return cls(
            TrainingConfig.model_validate_json(state["config"]),
            None if columns is None else RequestTable(**{n: c.numpy() for n, c in columns.items()}),
            state["stop_at_requests"],
            state["warm_start"],
            state["tree"],
            json.loads(state["settings"]),
        )


def _columns(requests: RequestTable) -> StateDict:
    assert requests.prompts is None, "texts are not told"
    assert requests.sessions is None, "sessions are not told"
    names = ("arrived_at", "prefill_tokens", "decode_tokens")
    return {name: torch.from_numpy(getattr(requests, name).copy()) for name in names}
