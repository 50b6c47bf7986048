"""A training: episodes of one request stream, one learner, and everything a resume needs."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.config.training_config import LearnerConfig
from ppo_scheduler.control.curriculum import Curriculum
from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.state import StateDict
from vidur_ext.env.observation import observation_schema
from vidur_ext.env.snapshot import Completion
from vidur_ext.scheduler.global_scheduler.ppo_scheduler_modular import EpisodeEnd
from vidur_ext.simulation.vidur_simulation import VidurSimulation
from vidur_ext.training.instruments import Instruments
from vidur_ext.training.interruption import ChunkFinished, Interrupted, StopRequest
from vidur_ext.training.learner_router import LearnerRouter
from vidur_ext.versions import package_versions
from vidur_ext.workload.stream import RequestStream

_LOG = logging.getLogger("ppo")


@dataclass
class Position:
    """Where in the request stream training is."""

    episode: int = 0
    requests_before_episode: int = 0
    decisions_in_episode: int = 0
    previous_end: EpisodeEnd | None = None

    def state_dict(self) -> StateDict:
        end = self.previous_end
        return {
            "episode": self.episode,
            "requests_before_episode": self.requests_before_episode,
            "decisions_in_episode": self.decisions_in_episode,
            "previous_end": None
            if end is None
            else {"reward": end.reward, "components": list(end.components)},
        }

    @classmethod
    def from_state(cls, state: StateDict) -> Position:
        end = state["previous_end"]
        return cls(
            state["episode"],
            state["requests_before_episode"],
            state["decisions_in_episode"],
            None if end is None else EpisodeEnd(end["reward"], list(end["components"])),
        )


class TrainingSession:
    """Runs episode after episode until ``training.total_requests`` are routed."""

    def __init__(
        self,
        simulation_config: Any,
        learner_config: LearnerConfig,
        stream: RequestStream,
        run_dir: Path,
        instruments: Instruments,
        store: CheckpointStore | None,
        *,
        config_digest: str,
        warm_start: StateDict | None = None,
        stop_at_requests: int | None = None,
    ) -> None:
        """Args beyond the obvious:

        stop_at_requests: end the session behind this request of the budget, inside an episode if
            need be; a later session resumes there. None trains the whole budget.
        """
        self._simulation_config = simulation_config
        self._config = learner_config
        self._stream = stream
        self._run_dir = run_dir
        self._instruments = instruments
        self._store = store
        self._config_digest = config_digest
        total = learner_config.training.total_requests
        inside = stop_at_requests is not None and stop_at_requests < total
        self._chunk_end = stop_at_requests if inside else None
        self._curriculum = Curriculum(learner_config.curriculum_learning)
        self._position = Position()
        self._simulation: VidurSimulation | None = None
        self._replayed_digest: str | None = None
        self._stop = StopRequest()
        self.learner = Learner(
            learner_config,
            self.schema,
            simulation_config.cluster_config.num_replicas,
            instruments,
            warm_start=warm_start,
        )
        self.learner.after_decision = self._after_decision
        self.learner.on_event = _LOG.warning

    @property
    def schema(self) -> ObservationSchema:
        return observation_schema(self._config.observation)

    @property
    def requests_done(self) -> int:
        """Requests routed so far, over all resumes."""
        return self._position.requests_before_episode + self._position.decisions_in_episode

    def run(self) -> None:
        """Train to the end of the budget or of this chunk, then save.

        Raises:
            Interrupted: a signal asked to stop; the state has been saved.
        """
        total = self._config.training.total_requests
        if self.requests_done >= total:
            _LOG.info(
                "all %d requests are trained already; raise training.total_requests "
                "(--ppo-requests) to go on",
                total,
            )
        elif total <= self._config.ppo_config.rollout_len:
            _LOG.warning(
                "training.total_requests=%d does not fill one rollout of ppo_config.rollout_len=%d:"
                " the policy will not be updated",
                total,
                self._config.ppo_config.rollout_len,
            )
        if self._chunk_end is not None and self.requests_done >= self._chunk_end:
            _LOG.info("the %d requests of this chunk are trained already", self._chunk_end)
            return
        with self._stop.listening():
            try:
                while self.requests_done < total:
                    self._run_episode(total)
            except ChunkFinished:
                self.save("chunk_end")
            else:
                self.save("end")
        self._instruments.record_end(self.learner.global_step)

    def save(self, reason: str) -> Path | None:
        """Publish the full state; return the checkpoint's path (None when switched off)."""
        if self._store is None:
            return None
        started = time.perf_counter()
        path = self._store.publish(
            self.state_dict(),
            ppo_step=self.learner.ppo_step,
            global_step=self.learner.global_step,
            reason=reason,
            run_dir=str(self._run_dir),
            config_digest=self._config_digest,
            num_replicas=self.learner.num_replicas,
            versions=dict(package_versions()),
            facts={"episode": self._position.episode, "requests_done": self.requests_done},
        )
        self._instruments.checkpoint_seconds = time.perf_counter() - started
        _LOG.debug("saved %s (%s)", path, reason)
        return path

    def state_dict(self) -> StateDict:
        simulation = self._simulation
        return {
            "learner": self.learner.state_dict(),
            "position": self._position.state_dict(),
            "instruments": self._instruments.state_dict(),
            "simulation_digest": None if simulation is None else simulation.scheduler.digest(),
            "seed": self._config.training.seed,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where the state was saved, also in the middle of an episode.

        Raises:
            UserError: the state belongs to another seed, observation or network.
        """
        if state["seed"] != self._config.training.seed:
            raise UserError(
                f"the checkpoint was trained with training.seed={state['seed']}, the config says "
                f"{self._config.training.seed}: its request stream cannot be continued under "
                "another seed. Set the seed back, or start afresh with --resume never"
            )
        self.learner.load_state_dict(state["learner"])
        self._position = Position.from_state(state["position"])
        if state["learner"]["num_replicas"] != self.learner.num_replicas:
            # The unfinished episode cannot be replayed on another cluster: go on behind it.
            self._position = Position(self._position.episode + 1, self.requests_done)
        self._instruments.load_state_dict(state["instruments"])
        self._replayed_digest = state["simulation_digest"]

    def _run_episode(self, total: int) -> None:
        position = self._position
        count = min(
            self._config.training.episode_requests, total - position.requests_before_episode
        )
        scales = self._curriculum.scales(position.requests_before_episode)
        self._instruments.scales = scales
        table = self._stream.window(position.requests_before_episode, count)
        simulation = VidurSimulation(self._simulation_config, table.at_rate(scales.qps_scale))
        begun = position.decisions_in_episode > 0
        recorded = tuple(self.learner.action_log[0]) if begun else ()
        router = LearnerRouter(self.learner, recorded, self._on_completion, self._check_replay)
        simulation.scheduler.attach(router, previous_end=position.previous_end, scales=scales)
        self._simulation = simulation
        simulation.run()
        end = simulation.scheduler.finish(simulation.now)
        self._simulation = None
        self._position = Position(
            position.episode + 1, position.requests_before_episode + count, 0, end
        )

    def _check_replay(self) -> None:
        """The replayed beginning must have led to the very state that was saved."""
        assert self._simulation is not None
        digest = self._simulation.scheduler.digest()
        if digest != self._replayed_digest:
            raise UserError(
                "replaying the unfinished episode did not lead to the saved state of the "
                "simulation: workload, cluster, predictor or a package version differ from those "
                "of the checkpoint. Restore them, or start afresh with --resume never"
            )

    def _on_completion(self, completion: Completion) -> None:
        alert = self._instruments.tail.add(completion.e2e_s, completion.ttft_s)
        if alert is not None:
            _LOG.warning(alert)

    def _after_decision(self) -> None:
        """Runs inside ``Learner.decide``, when its state is whole: save and stop happen here."""
        self._position.decisions_in_episode += 1
        if self._stop.number is not None:
            path = self.save("signal")
            raise Interrupted(self._stop.number, None if path is None else str(path))
        if self.requests_done == self._chunk_end:
            raise ChunkFinished
        if self.learner.ppo_step % self._config.checkpointing.checkpoint_interval == 0:
            self.save("interval")
