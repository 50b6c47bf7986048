"""A training by several processes ends with the same bits, however often and wherever they end."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bits import bits

from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import UserError
from ppo_scheduler.parallel.process_group import ProcessLost
from ppo_scheduler.policy.routing_policy import RoutingPolicy, save_policy
from vidur_ext.config.loading import dump_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.run_folder import Owner, RunFolder
from vidur_ext.training import team, train
from vidur_ext.training.train import Job, run_training
from vidur_ext.vidur.flags import cli_flags
from vidur_ext.warmstart.cost_labels import CostLabels

INTERVAL, EPISODE, STEPS = 7, 84, 240
"""In PPO steps, each a decision in all four environments."""

LIMIT_S, FINISHED_S = 30.0, 300.0
"""Until a training that cannot go on has said so and ended, and until one is finished."""

GROUPS: dict[str, dict[str, object]] = {
    "training": {"total_requests": 4 * STEPS, "episode_requests": EPISODE},
    "ppo_config": {"rollout_len": 128, "minibatch_size": 8, "counterfactual_share": 0.25},
    "statistics_stabilization": {"collect_steps": 64},
    "temperature_control": {"enabled": True},
    "parallel_training": {"num_envs": 4, "num_workers": 1},
    "checkpointing": {
        "checkpoint_interval": INTERVAL,
        "max_checkpoints": 3,
        "keep_every": 12 * INTERVAL,
        "validation_freq": 2,
    },
    "monitoring": {"tensorboard": False, "progress_bar": False, "log_level": "info"},
    "warmstart": {"enabled": False},
    "evaluation": {"enabled": False},
}
GAE: dict[str, dict[str, object]] = {
    "ppo_config": {"advantage": "gae"},
    "reward_config": {"normalize": True},
    "collapse_guard": {"window": 64, "max_share": 0.4, "intervention_steps": 100},
}
SESSIONS: dict[str, dict[str, object]] = {
    "workload": {"source": "agent"},
    "advanced_optimization": {
        "accumulation_steps": 2,
        "adaptive_minibatch": True,
        "min_minibatch_size": 4,
        "max_minibatch_size": 32,
    },
    "curriculum_learning": {"enabled": True, "stages": [{"until_requests": 500, "qps_scale": 0.8}]},
}
TAUGHT: dict[str, dict[str, object]] = {
    "terminal_value": {"enabled": True, "decisions": 64, "horizon": 2, "steps": 10},
    "kl_regularization": {"initial_coef": 0.1, "final_coef": 0.02},
}


def small(
    make_config: Callable[..., TrainingConfig],
    folder: Path,
    processes: int = 1,
    **groups: dict[str, object],
) -> TrainingConfig:
    """Return the config of a training that saves all the time, with a checkpoint folder."""
    own = {
        "parallel_training": {"num_processes": processes},
        "checkpointing": {"checkpoint_dir": str(folder / "checkpoints")},
    }
    merged = dict(GROUPS)
    for changes in (groups, own):
        for group, keys in changes.items():
            merged[group] = {**merged.get(group, {}), **keys}
    return make_config(**merged)


def left(config: TrainingConfig, run: Path) -> dict[str, object]:
    """Return what a training has left: its policy, and all of every checkpoint."""
    store = CheckpointStore(config.checkpointing)
    files = [run / "policy.pt", run / "validation.json"]
    return {
        **{file.name: file.read_bytes() for file in files if file.exists()},
        **{
            str(info.manifest.ppo_step): bits(store.load(info.manifest.ppo_step).tree)
            for info in store.checkpoints()
        },
    }


def children() -> list[int]:
    """Return the processes that this one has started."""
    return children_of(os.getpid())


def children_of(process: int) -> list[int]:
    texts = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(child) for text in texts for child in text.split()]


@pytest.mark.shows("parallel_training.num_processes")
def test_two_processes_leave_what_one_leaves(make_config, tmp_path, at_step, monkeypatch):
    ends, helpers = [], []
    before = children()
    export, at_export = train._export, []

    def look_and_export(*arguments: Any) -> None:
        at_export.append(children())
        export(*arguments)

    monkeypatch.setattr(train, "_export", look_and_export)
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        config = small(
            make_config,
            folder,
            processes,
            training={"total_requests": 200, "episode_requests": 30},
            ppo_config={"rollout_len": 64, "minibatch_size": 8},
        )
        at_step(40, lambda session: helpers.append(len(set(children()) - set(before))))
        run = run_training(Job(config, run_dir=str(folder / "run"))).path
        ends.append(left(config, run))
    assert helpers == [0, 1]
    assert at_export == [before, before], "companions are not watched when they have ended"
    assert ends[1] == ends[0]


@pytest.mark.shows("parallel_training.num_shards")
def test_num_shards_decides_over_the_bits(make_config, tmp_path):
    """It fixes in which order gradients are added, and which rows a minibatch has."""
    weights = set()
    for shards in (1, 2, 4, 8):
        folder = tmp_path / str(shards)
        config = small(
            make_config,
            folder,
            parallel_training={"num_shards": shards},
            training={"total_requests": 240, "episode_requests": EPISODE},
            checkpointing={"enable_checkpoints": False},
        )
        run = run_training(Job(config, run_dir=str(folder / "run"))).path
        weights.add((run / "policy.pt").read_bytes())
    assert len(weights) == 3, "four environments are at most four shards"


@pytest.mark.parametrize("restarts", [0, 2])
def test_a_companion_that_cannot_begin_is_named_and_started_as_often_as_it_may(
    make_config, tmp_path, monkeypatch, restarts
):
    started = []

    def start(*arguments, **keys):
        started.append(subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"]))
        return started[-1]

    monkeypatch.setattr(team, "start_child", start)
    config = small(make_config, tmp_path, 2, parallel_training={"max_restarts": restarts})
    store = CheckpointStore(config.checkpointing)
    store.prepare()
    folder = RunFolder.at(tmp_path / "run")
    with pytest.raises(ProcessLost) as lost:
        run_training(Job(config, run_dir=str(folder.path), owner=Owner(store.lock_handle)))
    store.close()
    assert str(lost.value) == (
        "process 1 of the 2 that train together ended with status 3. What was saved is intact: go "
        "on with --resume latest"
    )
    assert len(started) == 1 + restarts
    told = folder.log.read_text(encoding="utf-8")
    assert told.count("It goes on from where it began: nothing was saved yet") == restarts


@pytest.mark.slow
def test_a_companion_that_ends_when_it_was_ready_is_not_waited_for(
    make_config, tmp_path, monkeypatch
):
    """Between the two it has no connection yet whose end could be noticed."""
    wait_for = team._wait_for

    def kill_when_ready(companions, store):
        wait_for(companions, store)
        companions[-1].kill()
        companions[-1].wait()

    monkeypatch.setattr(team, "_wait_for", kill_when_ready)
    with pytest.raises(ProcessLost, match=r"process 1 of the 2 .* was killed by SIGKILL"):
        run_training(Job(small(make_config, tmp_path, 2), run_dir=str(tmp_path / "run")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [{}, GAE, SESSIONS, TAUGHT], ids=["costs", "returns", "sessions", "taught"]
)
def test_one_two_and_four_processes_leave_the_same(make_config, tmp_path, kind):
    """The policy, every checkpoint whole, the validations, and every row of metrics.

    One begins with a policy, and learns first what look-ahead leaves out.
    """
    actor = tmp_path / "actor.pt" if kind is TAUGHT else None
    if actor is not None:
        save_policy(begun(small(make_config, tmp_path, **kind)), actor)
    ends = []
    for processes in (1, 2, 4):
        folder = tmp_path / str(processes)
        config = small(make_config, folder, processes, **kind)
        job = Job(config, run_dir=str(folder / "run"), pretrained_actor=actor)
        ends.append(left(config, run_training(job).path))
    assert set(ends[0]) >= {"84", "168", "231", "238", "240"}
    assert ends[1] == ends[0]
    assert ends[2] == ends[0]


def begun(config: TrainingConfig) -> RoutingPolicy:
    """Return a policy that has seen some requests."""
    schema = observation_schema(config.observation)
    policy = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    policy.initialize(0)
    policy.collect(CostLabels(config).collect(0, None).observation())
    return policy


@pytest.mark.slow
def test_without_checkpoints_two_processes_leave_the_same_policy(make_config, tmp_path):
    policies = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        saving = {"checkpointing": {"enable_checkpoints": False}}
        config = small(make_config, folder, processes, **saving)
        run = run_training(Job(config, run_dir=str(folder / "run"))).path
        policies.append((run / "policy.pt").read_bytes())
    assert policies[1] == policies[0]


class Program:
    """A training that is a program of its own, and whatever it starts."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._output = folder / "output.txt"
        with self._output.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=folder,
            )
        self.pid = self._process.pid
        self._seen: dict[int, int] = {self.pid: os.pidfd_open(self.pid)}
        """Open handles of all its processes, by their ids."""

    @property
    def said(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def companions(self) -> list[int]:
        """Return all processes below it, the nearest first, and remember them."""
        found = children_of(self.pid)
        for process in found:
            found += children_of(process)
        for process in found:
            if process not in self._seen:
                self._seen[process] = os.pidfd_open(process)
        return found

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that it does; ending is none of it."""
        while not condition():
            assert not self.ends_within(0.001), f"it ended before: {self.said}"

    def ends_within(self, seconds: float) -> bool:
        ended, _, _ = select.select([self._seen[self.pid]], [], [], seconds)
        return bool(ended)

    def end(self, within_s: float = LIMIT_S) -> int:
        """Return the status with which it ends in time; nothing that it started is left then."""
        assert self.ends_within(within_s), f"it does not end: {self.said}"
        status = self._process.wait()
        for process, handle in self._seen.items():
            assert select.select([handle], [], [], LIMIT_S)[0], f"process {process} is left"
        return status

    def close(self) -> None:
        for handle in self._seen.values():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._process.wait()


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[Program]:
    """Run a program; whatever happens, nothing is left of it behind the block."""
    program = Program(command, folder)
    try:
        yield program
    finally:
        program.close()


@dataclass(frozen=True)
class Experiment:
    """One training in a folder of its own, by as many programs and processes as it takes."""

    folder: Path
    make: Callable[..., TrainingConfig]
    groups: Mapping[str, dict[str, object]] = field(default_factory=dict)

    def config(self, processes: int) -> TrainingConfig:
        return small(self.make, self.folder, processes, **self.groups)

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(self.config(1).checkpointing)

    @property
    def newest(self) -> int:
        """The PPO step of the newest whole checkpoint, 0 without one."""
        return max((info.manifest.ppo_step for info in self.store.checkpoints()), default=0)

    def job(self, processes: int, *more: str) -> list[str]:
        """Return the command of a whole run, which goes on from what is there."""
        file = self.folder / "config.json"
        file.write_text(dump_config(self.config(processes)), encoding="utf-8")
        places = ["--config", str(file), "--output-dir", str(self.folder / "run")]
        return ["vidur_ext.cli", "train", *places, "--resume", "auto", *more]

    def flags(self, processes: int) -> list[str]:
        return cli_flags(
            self.config(processes),
            "ppo_modular",
            metrics_dir=str(self.folder / "vidur"),
            run_dir=str(self.folder / "run"),
            load_checkpoint="latest" if self.newest else None,
        )

    def training(self, processes: int, *launcher: str) -> AbstractContextManager[Program]:
        """Train by Vidur's flags, or go on."""
        count = 1 if launcher else processes
        return running([*launcher, "vidur_ext.main", *self.flags(count)], self.folder)

    @property
    def log(self) -> str:
        return (self.folder / "run" / "ppo_training.log").read_text(encoding="utf-8")

    def left(self) -> dict[str, object]:
        return left(self.config(1), self.folder / "run")


@pytest.fixture
def experiment(tmp_path, make_config) -> Experiment:
    return Experiment(tmp_path, make_config)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Return what a training by one process leaves that was never stopped."""
    known: dict[str, dict[str, object]] = {}

    def outcome(make: Callable[..., TrainingConfig]) -> dict[str, object]:
        if not known:
            folder = tmp_path_factory.mktemp("straight")
            config = small(make, folder)
            run = run_training(Job(config, run_dir=str(folder / "run"))).path
            known["left"] = left(config, run)
        return known["left"]

    return outcome


def in_mid_episode(training: Experiment, program: Program, steps: int) -> None:
    """Wait until so many more steps are saved, and there is something to replay."""
    first = training.newest
    program.until(lambda: training.newest >= first + steps and training.newest % EPISODE != 0)


@pytest.mark.slow
def test_killed_with_two_gone_on_with_four_and_ended_with_one(experiment, straight):
    for processes, steps in ((2, 3 * INTERVAL), (4, 9 * INTERVAL)):
        with experiment.training(processes) as program:
            in_mid_episode(experiment, program, steps)
            assert len(program.companions()) == processes - 1
            os.kill(program.pid, signal.SIGKILL)
            assert program.end() == -signal.SIGKILL
    with experiment.training(1) as program:
        assert program.end(FINISHED_S) == 0
    assert program.said.count("[Resume]") == 2
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
def test_kills_of_any_process_at_any_moment_lose_nothing(experiment, straight):
    """From the first import on; whoever is left ends in time, and says so if it can."""
    dice = random.Random(0)
    landings = Counter()
    for number in range(8):
        later, of_companion = number % 2, number // 2 % 2
        before = experiment.newest
        with experiment.training(2) as program:
            if later:
                in_mid_episode(experiment, program, INTERVAL)
            elif of_companion:
                program.until(lambda: bool(program.companions()))
            for _ in range(dice.randrange(50 if later else 2000)):
                assert not program.ends_within(0.001)
            companions = program.companions()
            os.kill(companions[0] if of_companion else program.pid, signal.SIGKILL)
            status = program.end()
        assert status == (2 if of_companion else -signal.SIGKILL)
        if of_companion:
            assert "process 1 of the 2 that train together was killed by SIGKILL" in program.said
        assert experiment.newest >= before
        landings["training" if experiment.newest > before else "start-up"] += 1
    print(f"kills: {dict(landings)}")
    assert min(landings.values()) >= 3
    with experiment.training(1) as program:
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "did not answer")],
)
def test_a_lost_companion_ends_it_with_what_to_do(experiment, straight, number, how):
    with experiment.training(2) as program:
        in_mid_episode(experiment, program, 3 * INTERVAL)
        [companion] = program.companions()
        os.kill(companion, number)
        assert program.end() == 2
    *_, last = program.said.splitlines()
    assert last == (
        f"error: process 1 of the 2 that train together {how}. What was saved is intact: go on "
        "with --resume latest"
    )
    assert "Traceback" not in program.said
    assert "exception" not in {i.manifest.reason for i in experiment.store.checkpoints()}
    with experiment.training(2) as program:
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_all(experiment, straight, number, status):
    with experiment.training(2) as program:
        in_mid_episode(experiment, program, 3 * INTERVAL)
        program.companions()
        os.kill(program.pid, number)
        assert program.end() == status
    assert experiment.store.checkpoints()[-1].manifest.reason == "signal"
    assert f"saved {experiment.store.checkpoints()[-1].path}" in program.said
    assert "Traceback" not in program.said
    with experiment.training(4) as program:
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


@pytest.mark.slow
def test_torchrun_starts_the_same_training(experiment, straight):
    with experiment.training(2, *TORCHRUN) as program:
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
def test_torchrun_that_is_interrupted_lets_them_save(experiment, straight):
    with experiment.training(2, *TORCHRUN) as program:
        in_mid_episode(experiment, program, 3 * INTERVAL)
        program.companions()
        os.kill(program.pid, signal.SIGINT)
        assert program.end() != 0
    assert experiment.store.checkpoints()[-1].manifest.reason == "signal"
    with experiment.training(1) as program:
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_ends_all_where_one_is_lost(experiment, straight, rank):
    with experiment.training(2, *TORCHRUN) as program:
        in_mid_episode(experiment, program, 3 * INTERVAL)
        os.kill(program.companions()[rank], signal.SIGKILL)
        assert program.end() != 0
    with experiment.training(1) as program:
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [(["--help"], 0, "usage:"), (["--no-such-flag"], 1, "no-such-flag")],
)
def test_a_launched_program_that_does_not_train_ends(experiment, flags, status, said):
    with running([*TORCHRUN, "vidur_ext.main", *flags], experiment.folder) as program:
        assert program.end() == status
    assert program.said.count(said) == 1, "the first process says it, and no other"


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", [(), ("--chunk-mode", "--chunk-size", "324")], ids=["one", "chunks"]
)
def test_a_run_that_loses_a_companion_goes_on_by_itself(experiment, straight, mode):
    with running(experiment.job(2, *mode), experiment.folder) as program:
        for steps in (3 * INTERVAL, 2 * INTERVAL):
            in_mid_episode(experiment, program, steps)
            os.kill(program.companions()[-1], signal.SIGKILL)
            program.until(lambda: experiment.log.count("It goes on from its newest checkpoint"))
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
def test_torchrun_starts_a_whole_run(experiment, straight):
    with running([*TORCHRUN, *experiment.job(1)], experiment.folder) as program:
        assert program.end(FINISHED_S) == 0
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_may_start_a_run_again_that_lost_a_process(experiment, straight, rank):
    launcher = [*TORCHRUN[:-1], "--max-restarts", "1", "-m"]
    with running([*launcher, *experiment.job(1)], experiment.folder) as program:
        in_mid_episode(experiment, program, 3 * INTERVAL)
        os.kill(program.companions()[rank], signal.SIGKILL)
        assert program.end(FINISHED_S) == 0
    assert "[Resume]" in experiment.log
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
def test_a_save_that_is_asked_for_is_made_at_the_next_rollout(experiment, straight):
    with experiment.training(2) as program:
        in_mid_episode(experiment, program, INTERVAL)
        os.kill(program.pid, signal.SIGUSR1)
        assert program.end(FINISHED_S) == 0
    assert "as asked" in program.said
    assert experiment.left() == straight(experiment.make)


@pytest.mark.slow
def test_vidurs_own_requests_are_trained_on_by_all(experiment):
    """They come from no key of the config, so the first process has to tell the others."""
    vidurs = [
        "--request_generator_config_type", "synthetic",
        "--synthetic_request_generator_config_num_requests", str(4 * STEPS),
        "--length_generator_config_type", "uniform",
        "--uniform_request_length_generator_config_max_tokens", "1024",
        "--uniform_request_length_generator_config_min_tokens", "128",
    ]  # fmt: skip
    groups = {"checkpointing": {"validation_freq": None}, "workload": {"max_tokens": 1024}}
    ends = []
    for processes in (1, 2):
        folder = experiment.folder / str(processes)
        folder.mkdir()
        one = Experiment(folder, experiment.make, groups)
        with running(["vidur_ext.main", *one.flags(processes), *vidurs], folder) as program:
            assert program.end(FINISHED_S) == 0, program.said
        ends.append(one.left())
    assert ends[0] == ends[1]


def test_processes_that_a_launcher_has_started_must_fit(make_config, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    folder = str(tmp_path / "run")
    with pytest.raises(UserError, match="the launcher has started 3 processes: 3 processes cannot"):
        run_training(Job(small(make_config, tmp_path), run_dir=folder))
    with pytest.raises(UserError, match="the launcher has started 3 processes: leave num_proc"):
        run_training(Job(small(make_config, tmp_path, 2), run_dir=folder))
    assert not (tmp_path / "run").exists()
