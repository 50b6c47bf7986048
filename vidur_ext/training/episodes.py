"""Episodes with the learner in the router's place: on Vidur one at a time, on the compiled engine
many at once; the recorded beginning of an unfinished one is replayed first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.observation import Floats, Observation
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.state import StateDict
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.routing.output_lengths import new_lengths
from vidur_ext.routing.view import ArrivingRequest, ClusterSnapshot, Earned, SinceLastDecision
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.vidur.simulation import VidurSimulation, routed_by
from vidur_ext.workload.request_table import RequestTable


@dataclass(frozen=True)
class EpisodePlan:
    """One episode in each of B environments.

    tables: the requests, equally many in each environment. scales: the curriculum's stage.
    previous_end: how the episodes before ended; None at the beginning. recorded: actions [B, t]
    that were taken in these episodes already. The learner's state contains those decisions, so
    they are simulated again without it, and what completed then has already been counted.
    """

    tables: Sequence[RequestTable]
    scales: StageScales
    previous_end: Earned | None
    recorded: NDArray[np.int64]


class Observer(Protocol):
    """Who is told what happens while an episode runs."""

    def before_change(self) -> None:
        """Called before anything changes that a checkpoint holds."""

    def on_completions(self, latencies: NDArray[np.float64]) -> None:
        """Called with completed requests [n, 2]: times end to end and to first token [s]."""

    def on_replayed(self) -> None:
        """Called when the last recorded decision is seen again, before it is followed."""


class Episodes(Protocol):
    """Runs episodes with the learner in the router's place: those of this process.

    Where several processes train, all of them call these methods together.
    """

    def run(self, plan: EpisodePlan) -> Earned:
        """Run an episode to its end."""

    def digest(self) -> str | None:
        """Return a digest of all that was seen in the running episode; None outside of one.

        Equal digests, equal simulations. Inside ``Learner.decide`` the decision at hand is in it.
        """

    def state_dict(self) -> StateDict:
        """Return what the episodes before have left behind for the running one."""

    def load_state_dict(self, state: StateDict) -> None: ...


class LearnerRouter:
    """Replays ``recorded`` actions, then asks the learner.

    Resuming in the middle of an episode means simulating its beginning again with the actions
    that were taken then. The learner's state already contains those decisions, so it is not
    asked, and what completed then has already been counted.
    """

    def __init__(self, learner: Learner, recorded: Sequence[int], observer: Observer) -> None:
        """Begin at the start of an episode, with the actions taken so far in it."""
        self._learner = learner
        self._recorded = recorded
        self._position = 0
        self._observer = observer

    @property
    def replaying(self) -> bool:
        return self._position < len(self._recorded)

    def observe(
        self,
        snapshot: ClusterSnapshot,
        interval: SinceLastDecision,
        request: ArrivingRequest | None,
    ) -> None:
        if self.replaying:
            return
        self._observer.before_change()
        latencies = [(c.e2e_s, c.ttft_s) for c in interval.completions]
        self._observer.on_completions(np.array(latencies).reshape(-1, 2))

    def decide(
        self, observation: Observation, reward: NDArray[np.float64], done: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        if not self.replaying:
            return self._learner.decide(observation, reward, done)
        action = self._recorded[self._position]
        self._position += 1
        if self._position == len(self._recorded):
            self._observer.on_replayed()
        return np.array([action])


class VidurEpisodes:
    """Runs one episode after the other; see ``episodes.Episodes``."""

    def __init__(
        self, config: TrainingConfig, learner: Learner, observer: Observer, shards: Shards
    ) -> None:
        assert shards.num_envs == 1, "Vidur runs one environment"
        self._config = config
        self._learner = learner
        self._observer = observer
        self._simulation: VidurSimulation | None = None

    def run(self, plan: EpisodePlan) -> Earned:
        [table] = plan.tables
        router = LearnerRouter(self._learner, plan.recorded[0].tolist(), self._observer)
        simulation = routed_by(
            router, self._config, table, previous_end=plan.previous_end, scales=plan.scales
        )
        self._simulation = simulation
        simulation.run()
        end: Earned = simulation.scheduler.finish(simulation.now)
        self._simulation = None
        return end

    def digest(self) -> str | None:
        return None if self._simulation is None else self._simulation.scheduler.digest()

    def state_dict(self) -> StateDict:
        return {"lengths": None}

    def load_state_dict(self, state: StateDict) -> None:
        """On Vidur nothing is left behind."""


class CompiledEpisodes:
    """Runs this process's B episodes side by side; see ``episodes.Episodes``."""

    def __init__(
        self, config: TrainingConfig, learner: Learner, observer: Observer, shards: Shards
    ) -> None:
        self._shards = shards
        self._learner = learner
        self._observer = observer
        self._envs = RoutingEnvironments(engine_cluster(config), config, shards.size)
        self._seen: bytes | None = None
        self._lengths: Floats | None = None
        """What the episodes before have shown of output lengths, where choices are priced."""

    def run(self, plan: EpisodePlan) -> Earned:
        envs, observer = self._envs, self._observer
        envs.begin(plan.tables, plan.scales, previous_end=plan.previous_end, lengths=self._lengths)
        reward: Floats = np.zeros(envs.num_envs)
        done = np.zeros(envs.num_envs, dtype=np.bool_)
        if plan.recorded.size:
            reward = self._replay(plan)
        elif plan.previous_end is not None:
            reward, done = envs.reward, ~done
        while envs.waiting:
            observer.before_change()
            observer.on_completions(envs.completed)
            self._seen = envs.trace()
            asked = self._learner.asks()
            costs = None if asked is None else envs.costs(asked)
            actions = self._learner.decide(envs.observation, reward, done, costs)
            envs.step(actions)
            reward, done = envs.reward, np.zeros(envs.num_envs, dtype=np.bool_)
        observer.before_change()
        observer.on_completions(envs.completed)
        self._seen = None
        if self._learner.asks() is not None:
            self._lengths = self._learned()
        return Earned(envs.reward, envs.components)

    def digest(self) -> str | None:
        if self._seen is None:
            return None
        seen = self._shards.together(np.frombuffer(self._seen, np.uint64))
        return hashlib.blake2b(seen.tobytes(), digest_size=16).hexdigest()

    def _learned(self) -> Floats:
        """Return what all environments have shown of output lengths: whole numbers, so sums."""
        before = new_lengths() if self._lengths is None else self._lengths
        shown = self._shards.processes.gather(self._envs.lengths() - before)
        return np.asarray(before + sum(shown))

    def state_dict(self) -> StateDict:
        lengths = self._lengths
        return {"lengths": None if lengths is None else torch.from_numpy(lengths)}

    def load_state_dict(self, state: StateDict) -> None:
        lengths = state["lengths"]
        self._lengths = None if lengths is None else lengths.numpy()

    def _replay(self, plan: EpisodePlan) -> Floats:
        """Take the recorded actions; return what the last one of them earned."""
        *earlier, last = plan.recorded.T
        for actions in earlier:
            self._replay_step(actions)
        self._seen = self._envs.trace()
        self._observer.on_replayed()
        self._replay_step(last)
        return self._envs.reward

    def _replay_step(self, actions: NDArray[np.int64]) -> None:
        self._envs.step(actions)
