"""A training: episodes of one request stream, one learner, and everything a resume needs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.checkpoint.manifest import Description, Reason
from ppo_scheduler.checkpoint.saver import Saver
from ppo_scheduler.config.learner_sections import CheckpointingSection
from ppo_scheduler.control.curriculum import Curriculum
from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.parallel.shards import OneProcess, Processes, Shards
from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.state import StateDict
from vidur_ext.config.resume_rules import Difference, Effect
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.routing.view import Earned
from vidur_ext.run_folder import RUN_ID, RunFolder
from vidur_ext.training.episodes import CompiledEpisodes, EpisodePlan, Episodes, VidurEpisodes
from vidur_ext.training.inputs import settings_of
from vidur_ext.training.instruments import Instruments
from vidur_ext.training.signals import ChunkFinished, SignalRequests
from vidur_ext.training.validation import (
    PLANNER,
    Candidates,
    Score,
    Validation,
    changes_scores,
)
from vidur_ext.versions import package_versions
from vidur_ext.workload.stream import RequestStream

_LOG = logging.getLogger("ppo")
_ALONE = OneProcess()


@dataclass
class Position:
    """Episodes and requests so far, and how the last episode ended."""

    episode: int = 0
    requests_before_episode: int = 0
    decisions_in_episode: int = 0
    previous_end: Earned | None = None

    @property
    def requests_done(self) -> int:
        """Requests routed so far, over all resumes."""
        return self.requests_before_episode + self.decisions_in_episode

    def after_unfinished_episode(self) -> Position:
        """Return the position of the next request, as the first one of an episode."""
        return Position(self.episode + 1, self.requests_done)

    def state_dict(self) -> StateDict:
        end = self.previous_end
        return {
            "episode": self.episode,
            "requests_before_episode": self.requests_before_episode,
            "decisions_in_episode": self.decisions_in_episode,
            "previous_end": None
            if end is None
            else {
                "reward": torch.from_numpy(end.reward),
                "components": torch.from_numpy(end.components),
            },
        }

    @classmethod
    def from_state(cls, state: StateDict) -> Position:
        end = state["previous_end"]
        return cls(
            state["episode"],
            state["requests_before_episode"],
            state["decisions_in_episode"],
            None if end is None else Earned(end["reward"].numpy(), end["components"].numpy()),
        )


class Wishes(NamedTuple):
    """What is wanted of a training between two decisions.

    save: somebody asks for a checkpoint; overdue: the clock does; stop: number of the signal that
    asks for the end.
    """

    save: bool
    overdue: bool
    stop: int | None


class SaveSchedule:
    """Asked after every decision; wall-clock time is taken from the given clock alone."""

    def __init__(self, section: CheckpointingSection, clock: Callable[[], float]) -> None:
        self._section = section
        self._clock = clock
        self._last_save = clock()
        self._updates = 0

    def start(self, updates: int) -> None:
        """Begin to count, after that many updates of the policy."""
        self._last_save = self._clock()
        self._updates = updates

    def overdue(self) -> bool:
        """Return whether the clock says to save now."""
        seconds = self._section.checkpoint_interval_s
        return seconds is not None and self._clock() - self._last_save >= seconds

    def due(self, ppo_step: int, updates: int, wishes: Wishes) -> Reason | None:
        """Return why to save now, None to go on.

        Args:
            updates: of the policy so far, over all resumes.
        """
        reason = self._reason(ppo_step, updates, wishes)
        if reason is not None:
            self._last_save = self._clock()
        return reason

    def _reason(self, ppo_step: int, updates: int, wishes: Wishes) -> Reason | None:
        if self._validation_due(updates):
            return "validation"
        if wishes.save:
            return "manual"
        if ppo_step % self._section.checkpoint_interval == 0:
            return "interval"
        return "time" if wishes.overdue else None

    def due_after_episode(self, episodes: int) -> bool:
        """Return whether to save now that so many rounds of episodes have ended."""
        every = self._section.checkpoint_every_episodes
        return every is not None and episodes % every == 0

    def _validation_due(self, updates: int) -> bool:
        """Once, at the first decision after every ``validation_freq``-th update."""
        frequency = self._section.validation_freq
        updated = updates != self._updates
        self._updates = updates
        return updated and frequency is not None and updates % frequency == 0


class TrainingSession:
    """Runs episode after episode until ``training.total_requests`` are routed."""

    def __init__(
        self,
        config: TrainingConfig,
        stream: RequestStream,
        folder: RunFolder | None,
        instruments: Instruments,
        saver: Saver | None,
        *,
        processes: Processes = _ALONE,
        warm_start: StateDict | None = None,
        stop_at_requests: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at the first request.

        Args:
            folder: the run's, which checkpoints name; the process that owns it alone has it.
            saver: saves checkpoints; None saves nothing.
            processes: those that train together: each has one session, and all run alike.
            warm_start: state of the policy to begin from.
            stop_at_requests: end after this request of the budget, inside an episode if need be;
                a later session resumes there. None trains the whole budget.
            clock: seconds that only go forward, for ``checkpoint_interval_s``.
        """
        saving, parallel = config.checkpointing, config.parallel_training
        num_envs = parallel.num_envs
        self._config = config
        self._shards = Shards(num_envs, parallel.num_shards, processes)
        self._stream = stream
        self._run = None if folder is None else (str(folder.path), folder.identify())
        """Folder and id of the run."""
        self._settings = settings_of(config)
        self._instruments = instruments
        self._saver = saver
        self._schedule = SaveSchedule(saving, clock)
        self._validation = None if saving.validation_freq is None else Validation(config, processes)
        self.candidates = Candidates(config.lookahead.ttft_weight)
        self._score_first = warm_start is not None
        """The policy that training goes on from is a candidate that has no score yet."""
        if stop_at_requests is not None and stop_at_requests % num_envs:
            raise UserError(
                f"a chunk that ends after {stop_at_requests} requests is no multiple of "
                f"parallel_training.num_envs={num_envs}: choose another --chunk-size"
            )
        self._chunk_end = stop_at_requests
        self._curriculum = Curriculum(config.curriculum_learning)
        self._position = Position()
        self._replayed_digest: str | None = None
        self._signals = SignalRequests()
        self._consistent = True
        self._to_beat: tuple[str, Score] | None = None
        """The best heuristic on the validation workloads."""
        self._validated_at: int | None = None
        """PPO step whose policy was validated last."""
        self.learner = Learner(
            config,
            observation_schema(config.observation),
            config.cluster.num_replicas,
            instruments,
            shards=self._shards,
            warm_start=warm_start,
            after_decision=self._after_decision,
            on_event=_LOG.warning,
        )
        episodes = CompiledEpisodes if config.simulation.engine == "compiled" else VidurEpisodes
        self._episodes: Episodes = episodes(config, self.learner, self, self._shards)

    @property
    def requests_done(self) -> int:
        """Requests routed so far, over all resumes."""
        return self._position.requests_done

    def run(self) -> None:
        """Train to the end of the budget or of this chunk, then save.

        Raises:
            Interrupted: a signal asked to stop; the state has been saved.
        """
        total = self._config.training.total_requests
        if self._chunk_end is not None and self._chunk_end < total:
            if self.requests_done >= self._chunk_end:
                _LOG.info("the %d requests of this chunk are trained already", self._chunk_end)
                return
        elif self.requests_done >= total:
            _LOG.info(
                "all %d requests are trained already; raise training.total_requests "
                "(--total-requests) to go on",
                total,
            )
        elif total <= self._config.ppo_config.rollout_len:
            _LOG.warning(
                "training.total_requests=%d does not fill one rollout of ppo_config.rollout_len=%d:"
                " the policy will not be updated",
                total,
                self._config.ppo_config.rollout_len,
            )
        with self._signals.listening():
            self._run_and_save(total)
        self._instruments.record_end(self.learner.global_step)

    def save(self, reason: Reason) -> None:
        """Save the full state as the config says: in the background, or at once.

        This is the manual save: call it between two decisions, or from ``after_decision``.
        """
        if self._saver is not None:
            if reason == "manual":
                _LOG.info("saving PPO step %d, as asked", self.learner.ppo_step)
            started = time.perf_counter()
            self._saver.save(self.state_dict, self._describe(reason))
            self._instruments.checkpoint_seconds = time.perf_counter() - started
        elif self._helps_to_save:
            self.state_dict()

    def save_now(self, reason: Reason) -> Path | None:
        """Save and return the checkpoint's path; None when saving is off, or failed."""
        if self._saver is not None:
            return self._saver.save_now(self.state_dict, self._describe(reason))
        if self._helps_to_save:
            self.state_dict()
        return None

    @property
    def _helps_to_save(self) -> bool:
        """Whether the first process saves what this one has a part of."""
        others = self._shards.processes.rank > 0
        return others and self._config.checkpointing.enable_checkpoints

    def state_dict(self) -> StateDict:
        """Return the parts of a checkpoint; it is complete only with all of them.

        Where several processes train, all of them ask for it together, and get the same.
        """
        position, together = self._position, self._shards.together
        if (end := position.previous_end) is not None:
            end = Earned(together(end.reward), together(end.components))
        return {
            **self.learner.state_dict(),
            "simulation": {
                "position": replace(position, previous_end=end).state_dict(),
                "digest": self._episodes.digest(),
                "seed": self._config.training.seed,
                "engine": self._config.simulation.engine,
                "episodes": self._episodes.state_dict(),
            },
            "validation": self.candidates.state_dict(),
            "metrics": self._instruments.state_dict(),
        }

    def load_state_dict(self, state: StateDict, changed: Sequence[Difference] = ()) -> None:
        """Continue where the state was saved, also in the middle of an episode.

        Args:
            changed: settings that are others than when the state was saved.

        Raises:
            IncompatibleState: the state belongs to another observation or network.
        """
        self.learner.load_state_dict(state)
        self._position = Position.from_state(state["simulation"]["position"])
        self._instruments.load_state_dict(state["metrics"])
        self._replayed_digest = state["simulation"]["digest"]
        self._episodes.load_state_dict(state["simulation"]["episodes"])
        if (end := self._position.previous_end) is not None:
            envs, fits = self._shards.envs, len(end.reward) == self._shards.num_envs
            self._position.previous_end = (
                Earned(end.reward[envs], end.components[envs]) if fits else None
            )
        taken = self.learner.action_log.together()
        replayable = taken.shape[1] * self._shards.num_envs == self._position.decisions_in_episode
        another_world = [d.name for d in changed if d.rule.effect is Effect.NEXT_EPISODE]
        if not another_world and state["simulation"]["engine"] != self._config.simulation.engine:
            another_world = ["simulation.engine"]
        if self._position.decisions_in_episode > 0 and (another_world or not replayable):
            _LOG.info(
                "the unfinished episode %d cannot be replayed (%s): going on with request %d",
                self._position.episode,
                ", ".join(another_world) or "its actions do not fit this cluster",
                self.requests_done,
            )
            self._position = self._position.after_unfinished_episode()
            self.learner.abandon_episodes()
        self._load_candidates(state["validation"], changed)
        self._check_rest()

    def _load_candidates(self, state: StateDict, changed: Sequence[Difference]) -> None:
        if self._validation is None:
            return  # the training ends with its last policy
        self.candidates.load_state_dict(state)
        causes = [d.name for d in changed if changes_scores(d.name)]
        if causes and self.candidates.scores:
            _LOG.info("the validations so far do not count any more: %s changed", ", ".join(causes))
            self.candidates.clear()
            self._score_first = True

    def _check_rest(self) -> None:
        """The rest of the budget must be split evenly too, whoever trained its beginning."""
        total, num_envs = self._config.training.total_requests, self._shards.num_envs
        rest = total - self._position.requests_before_episode
        if rest % num_envs:
            raise UserError(
                f"{rest} of {total} requests are left to train, which parallel_training.num_envs="
                f"{num_envs} environments cannot share evenly: set training.total_requests to "
                f"{total - rest % num_envs} or {total - rest % num_envs + num_envs}, or num_envs "
                "to what the checkpoint was trained with"
            )

    def _run_and_save(self, total: int) -> None:
        self._schedule.start(self.learner.updates)
        self._to_beat = self._find_what_to_beat()
        alone = self._shards.processes.count == 1
        try:
            if self._validation is not None and self._score_first:
                self._validate()
            if self._config.checkpointing.checkpoint_on_start and self.learner.ppo_step == 0:
                self.save("start")
            self._instruments.begin(self.learner.global_step)
            while self.requests_done < total:
                self._run_episode(total)
                ended = self._position.episode
                if self.requests_done < total and self._schedule.due_after_episode(ended):
                    self.save("episode")
        except ChunkFinished:
            self.save_now("chunk_end")
        except Exception:
            # Of several processes one may be gone, and nobody knows where the others are.
            if alone and self._consistent and self.learner.ppo_step > 0:
                path = self.save_now("exception")
                _LOG.warning("an error ends the training; its state before it: %s", path)
            raise
        else:
            scores = self.candidates.scores
            stands = scores and scores[-1].updates == self.learner.updates
            if self._validation is not None and self.learner.ppo_step and not stands:
                self._validate()
            self.save_now("end")

    def _run_episode(self, total: int) -> None:
        """Run the next episode: each environment has its own window of the stream."""
        position, num_envs = self._position, self._shards.num_envs
        first = position.requests_before_episode
        count = min(self._config.training.episode_requests, (total - first) // num_envs)
        scales = self._curriculum.scales(first)
        self._instruments.scales = scales
        numbers = self._shards.numbers
        windows = [self._stream.window(first + env * count, count) for env in numbers]
        begun = position.decisions_in_episode > 0
        nothing = np.zeros((len(numbers), 0), np.int64)
        taken = self.learner.action_log.together() if begun else nothing
        end = self._episodes.run(
            EpisodePlan(
                tables=[window.at_rate(scales.qps_scale) for window in windows],
                scales=scales,
                previous_end=position.previous_end,
                recorded=taken,
            )
        )
        self._position = Position(position.episode + 1, first + count * num_envs, 0, end)
        self._consistent = True

    def on_replayed(self) -> None:
        """The replayed beginning must have led to the very state that was saved."""
        if self._episodes.digest() != self._replayed_digest:
            raise UserError(
                "replaying the unfinished episode did not lead to the saved state of the "
                "simulation: workload, cluster, predictor or a package version differ from those "
                "of the checkpoint. Restore them, or start afresh with --resume never"
            )

    def before_change(self) -> None:
        """From now to the end of the decision nothing can be saved."""
        self._consistent = False

    def on_completions(self, latencies: NDArray[np.float64]) -> None:
        """Count completed requests [n, 2]: times end to end and to first token [s]."""
        self._instruments.complete(latencies)

    def _after_decision(self) -> None:
        """Runs inside ``Learner.decide``, when its state is whole: save and stop happen here."""
        self._position.decisions_in_episode += self._shards.num_envs
        self._consistent = True
        self._instruments.tick(self.learner.global_step)
        wishes = self._wishes()
        reason = self._schedule.due(self.learner.ppo_step, self.learner.updates, wishes)
        if reason == "validation":
            self._validate()
        if wishes.stop is not None:
            raise Interrupted(wishes.stop, self._saved_for_signal())
        more = self.requests_done < self._config.training.total_requests
        if more and self.requests_done == self._chunk_end:
            raise ChunkFinished
        if reason is not None:
            self.save(reason)

    def _wishes(self) -> Wishes:
        """Return what is wanted now.

        Several processes have to do the same at the same step: they ask the first one, once a
        rollout's length, since each time costs a message.
        """
        processes = self._shards.processes
        if processes.count > 1 and self.learner.ppo_step % self.learner.rollout.length:
            return Wishes(save=False, overdue=False, stop=None)
        signals, overdue = self._signals, self._schedule.overdue()
        wishes = Wishes(signals.take_save(), overdue, signals.stop)
        if processes.count == 1:
            return wishes
        own = np.array([[wishes.save, wishes.overdue, wishes.stop or 0]])
        [said, *_] = processes.gather(own, [1] * processes.count)
        [[save, overdue, stop]] = said.tolist()
        return Wishes(bool(save), bool(overdue), stop or None)

    def _find_what_to_beat(self) -> tuple[str, Score] | None:
        """Return the best heuristic on the validation workloads, and how it does.

        The first process alone looks for it: it tells.
        """
        if self._validation is None or self._shards.processes.rank > 0:
            return None
        found = self._validation.best_heuristic()
        if found is not None:
            name, score = found
            objective = self.candidates.objective_s(score)
            _LOG.info("to beat on the validation workloads: %s, objective %.3f s", name, objective)
        return found

    def rivals(self) -> dict[str, Score]:
        """Return how the best heuristic and look-ahead do on the validation workloads, by name;
        without those that were not, or cannot be, measured."""
        planner = None if self._validation is None else self._validation.look_ahead()
        return {
            **({} if self._to_beat is None else dict([self._to_beat])),
            **({} if planner is None else {PLANNER: planner}),
        }

    def _saved_for_signal(self) -> str:
        path = self.save_now("signal")
        if self._saver is None:
            return "checkpoints are switched off, nothing is saved"
        return f"saved {path}" if path is not None else f"NOT saved: {self._saver.failed[-1]}"

    def _validate(self) -> None:
        """Score the policy of this step, and keep it if it is the best so far."""
        assert self._validation is not None
        learner = self.learner
        # The decisions at hand are counted already, but the policy belongs to their past.
        step = max(learner.global_step - self._shards.num_envs, 0)
        score = self._validation.score(learner.policy, step, learner.updates)
        best = self.candidates.consider(score, learner.policy)
        _LOG.info(
            "validation of %s: objective %.3f s (mean E2E %.3f s, mean TTFT %.3f s)%s",
            score.name(), self.candidates.objective_s(score), score.e2e_s, score.ttft_s,
            ", the best so far" if best else "",
        )  # fmt: skip
        scalars = {
            "Validation/Objective": self.candidates.objective_s(score),
            "Validation/MeanLatency": score.e2e_s,
            "Validation/MeanTTFT": score.ttft_s,
        }
        if self._to_beat is not None:
            scalars["Validation/BestHeuristic"] = self.candidates.objective_s(self._to_beat[1])
        self._instruments.record_validation(step, scalars)
        self._validated_at = learner.ppo_step

    def _describe(self, reason: Reason) -> Description:
        assert self._run is not None, "who saves knows which run it is"
        path, run_id = self._run
        validated = self._validated_at == self.learner.ppo_step
        scores = self.candidates.scores
        return Description(
            ppo_step=self.learner.ppo_step,
            global_step=self.learner.global_step,
            reason=reason,
            run_dir=path,
            config_digest=self._config.digest(),
            num_replicas=self.learner.num_replicas,
            # Of checkpoints the greater score is the better one.
            val_score=-self.candidates.objective_s(scores[-1]) if validated else None,
            versions=dict(package_versions()),
            facts={
                "episode": self._position.episode,
                "requests_done": self.requests_done,
                RUN_ID: run_id,
            },
            settings=self._settings,
        )
