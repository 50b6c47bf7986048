"""Episodes on Vidur itself, one at a time."""

from __future__ import annotations

from typing import Any

from ppo_scheduler.ppo.learner import Learner
from vidur_ext.env.episode import EpisodeEnd
from vidur_ext.simulation.vidur_simulation import VidurSimulation
from vidur_ext.training.episodes import EpisodePlan, Observer
from vidur_ext.training.learner_router import LearnerRouter


class VidurEpisodes:
    """Runs one episode after the other; see ``episodes.Episodes``."""

    num_envs = 1

    def __init__(self, simulation_config: Any, learner: Learner, observer: Observer) -> None:
        self._config = simulation_config
        self._learner = learner
        self._observer = observer
        self._simulation: VidurSimulation | None = None

    def run(self, plan: EpisodePlan) -> EpisodeEnd:
        [table] = plan.tables
        simulation = VidurSimulation(self._config, table)
        router = LearnerRouter(self._learner, plan.recorded[0].tolist(), self._observer)
        simulation.scheduler.attach(router, previous_end=plan.previous_end, scales=plan.scales)
        self._simulation = simulation
        simulation.run()
        end: EpisodeEnd = simulation.scheduler.finish(simulation.now)
        self._simulation = None
        return end

    def digest(self) -> str | None:
        return None if self._simulation is None else self._simulation.scheduler.digest()
