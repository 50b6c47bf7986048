"""Trainings that are killed, and what must be the same in the end."""

from __future__ import annotations

import csv
import itertools
import json
import mmap
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bits import bits, clocked
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from warm_python import WarmPython

from ppo_scheduler.checkpoint.names import Retention
from ppo_scheduler.checkpoint.store import CheckpointStore
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur.flags import cli_flags

_TRAINING = Path(__file__).with_name("instrumented_training.py")
INTERVAL = 7
TOTAL = 240
CHUNKS = (70, 140, 200, TOTAL)
"""In PPO steps; with many environments each of them decides for as many requests."""
ENVIRONMENTS = {"vidur": 1, "compiled": 4}
ADVANTAGES = {"vidur": "gae", "compiled": "counterfactual"}
_POLLS_PER_LOOK = 32
"""How often the files are polled before one looks whether the process still runs."""


def config_below(
    root: Path, *, episode_requests: int, save_async: bool, engine: str
) -> TrainingConfig:
    """Return the config of a tiny training that saves all the time."""
    envs = ENVIRONMENTS[engine]
    groups: dict[str, dict[str, object]] = {
        "training": {
            "total_requests": TOTAL * envs,
            "episode_requests": episode_requests,
            "output_root": str(root / "outputs"),
        },
        "actor_critic_architecture": {"hidden_size": 8, "attention_heads": 2},
        "ppo_config": {
            "advantage": ADVANTAGES[engine],
            "counterfactual_share": 0.25,
            "rollout_len": 32 * envs,
            "minibatch_size": 8 * envs,
            "critic_warmup_updates": 1,
        },
        "simulation": {"engine": engine},
        "parallel_training": {"num_envs": envs},
        "statistics_stabilization": {"collect_steps": 16 * envs},
        "checkpointing": {
            "checkpoint_dir": str(root / "checkpoints"),
            "checkpoint_interval": INTERVAL,
            "max_checkpoints": 3,
            "keep_every": 12 * INTERVAL,
            "save_async": save_async,
            "validation_freq": 2,
            "validation_seeds": 1,
            "validation_requests": 32,
        },
        "warmstart": {"enabled": False},
        "monitoring": {"progress_bar": False, "log_level": "info"},
        "cluster": {"num_replicas": 3},
    }
    return TrainingConfig.model_validate(groups)


@dataclass(frozen=True)
class Scene:
    """What can be seen of a training from outside, at this moment and when it was started."""

    root: Path
    counts: memoryview
    before: frozenset[str]

    @property
    def first(self) -> int:
        """PPO step of the process's first decision, 0 before it."""
        return self.counts[0]

    @property
    def last(self) -> int:
        """PPO step of its last decision, 0 before the first one."""
        return self.counts[1]

    @property
    def replayed(self) -> int:
        return self.counts[2]

    @property
    def files(self) -> frozenset[str]:
        return names_in(self.root / "checkpoints")

    @property
    def new_checkpoints(self) -> int:
        new = self.files - self.before
        return sum(name.startswith("checkpoint") and name.endswith(".pt") for name in new)

    @property
    def writes(self) -> bool:
        """A checkpoint or manifest is being written."""
        return any(name.startswith(".checkpoint_step_") for name in self.files)

    @property
    def half_published(self) -> bool:
        """The manifest has its name, the checkpoint has not."""
        files = self.files
        return any(n[:-4] + "pt" not in files for n in files - self.before if n.endswith("json"))


def names_in(folder: Path) -> frozenset[str]:
    """Return the names in a folder and where ``latest.pt`` leads."""
    try:
        names = os.listdir(folder)
        return frozenset([*names, *(f"-> {os.readlink(folder / n)}" for n in names if n[0] == "l")])
    except FileNotFoundError:  # no folder yet, or the link was just being replaced
        return frozenset()


@dataclass(frozen=True)
class Moment:
    """When to kill: told by what the process has done, never by the time."""

    name: str
    seen: Callable[[Scene], bool] = lambda scene: False
    polls: int = 0
    """How often to look again after it was seen."""
    trip: tuple[str, str, int] | None = None
    """Audit event, file name, count: the process kills itself right before this very call."""


class Experiment:
    """One training in a folder of its own, by as many processes as it takes."""

    def __init__(
        self,
        python: WarmPython,
        root: Path,
        *,
        one_episode: bool,
        save_async: bool = False,
        engine: str = "compiled",
    ) -> None:
        self.root = root
        self.envs = ENVIRONMENTS[engine]
        episode = TOTAL if one_episode else 12 * INTERVAL
        self.config = config_below(
            root, episode_requests=episode, save_async=save_async, engine=engine
        )
        self.store = CheckpointStore(self.config.checkpointing)
        self.landings: Counter[str] = Counter()
        self.lost: list[int] = []
        self._python = python
        root.mkdir()
        self._counts_file = root / "counts"

    def run(
        self,
        moments: Iterator[Moment],
        slices: tuple[int, ...] = (TOTAL,),
        clock: Callable[[], float] = lambda: 0.0,
        after_kill: Callable[[], None] = lambda: None,
    ) -> None:
        """Train every slice to its end, again after every kill."""
        for stop in slices:
            while self.attempt(next(moments, None), stop, clock()):
                after_kill()

    def attempt(
        self,
        moment: Moment | None = None,
        stop: int = TOTAL,
        clock: float = 0.0,
        resumes: int | None = None,
    ) -> bool:
        """Train until the end of a slice, or until killed; return whether it was killed.

        Args:
            clock: seconds by which the process's clock is ahead.
            resumes: PPO step it must go on from; None is the newest checkpoint.
        """
        self._counts_file.write_bytes(bytes(24))
        with self._counts_file.open("rb") as file:
            counts = memoryview(mmap.mmap(file.fileno(), 24, prot=mmap.PROT_READ)).cast("q")
        scene = Scene(self.root, counts, names_in(self.root / "checkpoints"))
        resumed = self.newest_step if resumes is None else resumes
        told = {
            "flags": self.flags(stop),
            "counts": str(self._counts_file),
            "clock": clock,
            "trip": None if moment is None else moment.trip,
        }
        output = self.root / "output.txt"
        with output.open("ab") as file:
            process = self._python.popen(
                [str(_TRAINING), json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            status = self._watch(process, scene, moment)
        finally:
            process.kill()
            process.wait()
        assert status in (0, -9), output.read_text(encoding="utf-8")
        assert scene.first in (0, resumed + 1), "it went on with another checkpoint"
        assert scene.replayed <= resumed
        if status == 0:
            return False
        self._account(scene, resumed)
        return True

    @property
    def newest_step(self) -> int:
        """PPO step of the newest complete checkpoint, 0 without one."""
        return max((info.manifest.ppo_step for info in self.store.checkpoints()), default=0)

    def must_agree_with(self, straight: Outcome) -> None:
        """Check that what is shown now is no other curve, and that no saved point is missing."""
        shown = curves(self)
        for tag, points in straight.curves.items():
            # A slice ends its curves with its own last point, which the next process hides.
            ends = [stop * self.envs for stop in CHUNKS[:-1]]
            ours = [point for point in shown.get(tag, []) if point[0] not in ends]
            assert set(ours) <= set(points)
            saved = self.newest_step * self.envs
            assert {point for point in points if point[0] < saved} <= set(ours)

    def flags(self, stop: int = TOTAL) -> list[str]:
        return cli_flags(
            self.config,
            "ppo_modular",
            metrics_dir=str(self.root / "vidur"),
            run_dir=str(self.root / "run"),
            load_checkpoint="latest" if self.newest_step else None,
            stop_at_requests=stop * self.envs,
        )

    def _watch(self, process: subprocess.Popen[str], scene: Scene, moment: Moment | None) -> int:
        """Poll until the moment has come, then kill; return the status of the ended process."""
        if moment is None or moment.trip is not None:
            return process.wait()
        countdown: int | None = None
        for looks in itertools.count(1):
            if countdown is None and moment.seen(scene):
                countdown = moment.polls
            if countdown == 0:
                process.kill()
                return process.wait()
            if countdown is not None:
                countdown -= 1
            if looks % _POLLS_PER_LOOK == 0 and process.poll() is not None:
                return process.wait()
        raise AssertionError("unreachable")

    def _account(self, scene: Scene, resumed: int) -> None:
        """Check how much the kill lost, and note where it landed."""
        newest = self.newest_step
        assert newest >= resumed, "a kill took a checkpoint away"
        # A decision is counted before the save that it brings, so that a save at hand that was cut
        # off loses its interval as a whole. In the background the next save waits for the one
        # under way: what is decided meanwhile, at most one more interval, may be lost as well.
        most = 2 * INTERVAL if self.config.checkpointing.save_async else INTERVAL
        assert scene.last - newest <= most
        self.lost.append(max(0, scene.last - newest))
        self.landings[self._landing(scene)] += 1

    def _landing(self, scene: Scene) -> str:
        files = scene.files
        if scene.half_published:
            return "between the two renames"
        if scene.last and scene.writes:  # what an earlier process left staged is gone by then
            return "staged write"
        if files != scene.before:
            infos = self.store.checkpoints()
            if infos and f"-> {infos[-1].path.name}" not in files:
                return "between rename and link"
            if self.store.outdated(Retention.of(self.config.checkpointing)):
                return "before pruning"
            if any(n.endswith(".json") and n[:-4] + "pt" not in files for n in files):
                return "inside pruning"
        if self.newest_step == TOTAL:
            return "end"
        if scene.last:
            return "training"
        return "replay" if scene.replayed else "start-up"


@dataclass(frozen=True)
class Outcome:
    """Everything a training leaves behind, without what the clock decides."""

    checkpoints: dict[int, dict[str, object]]
    """PPO step -> place in the tree -> leaf; of every checkpoint that is kept."""
    policy: bytes
    curves: dict[str, list[tuple[int, float]]]
    rows: list[dict[str, str]]

    @property
    def routing(self) -> object:
        """The actions of the last episode; of all requests where there is one episode only."""
        return self.checkpoints[TOTAL]["rollout.action_log.actions"]

    @classmethod
    def of(cls, experiment: Experiment) -> Outcome:
        run = experiment.root / "run"
        steps = [info.manifest.ppo_step for info in experiment.store.checkpoints()]
        with (run / "metrics" / "training.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return cls(
            {step: bits(experiment.store.load(step).tree) for step in steps},
            (run / "policy.pt").read_bytes(),
            curves(experiment),
            [{name: v for name, v in row.items() if not clocked(name)} for row in rows],
        )

    def must_equal(self, other: Outcome) -> None:
        assert self.checkpoints.keys() == other.checkpoints.keys()
        for step, ours in self.checkpoints.items():
            theirs = other.checkpoints[step]
            assert ours.keys() == theirs.keys()
            assert [place for place in ours if ours[place] != theirs[place]] == []
        assert self.policy == other.policy
        assert self.rows == other.rows
        assert self.curves == other.curves


def curves(experiment: Experiment) -> dict[str, list[tuple[int, float]]]:
    """Return every curve as TensorBoard's server shows it: one line without overlap."""
    folder = experiment.root / "run" / "tensorboard"
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        if not clocked(tag):
            points = [(event.step, event.value) for event in events.Scalars(tag)]
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)), f"{tag} does not go strictly forward"
            found[tag] = points
    return found


@pytest.fixture(scope="session")
def moment() -> type[Moment]:
    return Moment


@pytest.fixture(scope="session")
def outcome_of():
    return Outcome.of


@pytest.fixture
def make_experiment(warm_python, tmp_path):
    def make(name: str, **how: Any) -> Experiment:
        return Experiment(warm_python, tmp_path / name, **{"one_episode": False, **how})

    return make


@pytest.fixture(scope="session")
def uninterrupted(warm_python, tmp_path_factory):
    """Return what a training leaves that was never stopped, by its episodes and engine."""
    known: dict[tuple[bool, str], Outcome] = {}

    def outcome(one_episode: bool, engine: str = "compiled") -> Outcome:
        which = (one_episode, engine)
        if which not in known:
            root = tmp_path_factory.mktemp("uninterrupted") / "straight"
            straight = Experiment(warm_python, root, one_episode=one_episode, engine=engine)
            assert not straight.attempt()
            known[which] = Outcome.of(straight)
        return known[which]

    return outcome
