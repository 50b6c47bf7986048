"""A checkpoint whose content is not a training's is named and passed over for the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.checkpoint.manifest import Manifest, UnusableCheckpoint, parse_manifest
from ppo_scheduler.checkpoint.reading import LoadedCheckpoint, load_named
from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.monitoring.scalars import FanOut
from ppo_scheduler.observation import Observation
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.state import StateDict, snapshot
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.content import check_content
from vidur_ext.training.train import Job, run_training

GOLDEN = Path(__file__).parents[2] / "ppo_scheduler/checkpoint/golden/schema_5"
GOOD = load_named(GOLDEN / "checkpoint_step_00000050.pt")


def config_in(folder: Path) -> TrainingConfig:
    """Return the config of the golden checkpoint, in another folder."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in GOOD.manifest.settings.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = value
    groups["checkpointing"] |= {"checkpoint_dir": str(folder / "checkpoints")}
    groups["training"] |= {"output_root": str(folder)}
    groups["monitoring"] |= {"log_level": "info"}
    groups["evaluation"] = {"enabled": False}
    # Its unfinished episode had the execution times of its day, so that another one is begun.
    groups["workload"] |= {"qps": 9.0}
    return TrainingConfig.model_validate_json(json.dumps(groups))


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder of the golden checkpoint, and how more come into it."""

    config: TrainingConfig
    path: Path

    def add(self, step: int, tree: StateDict) -> None:
        """Write a tree with a manifest whose sums are right, as anybody can."""
        self.path.mkdir(exist_ok=True)
        file = self.path / f"checkpoint_step_{step:08d}.pt"
        torch.save(tree, file)
        data = file.read_bytes()
        manifest = GOOD.manifest.model_copy(
            update={
                "ppo_step": step,
                "file": file.name,
                "size_bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )
        file.with_suffix(".json").write_bytes(manifest.to_json())

    def resume(self) -> str:
        """Train on from the newest good one; return the log."""
        run = self.path.parent / "run"
        run_training(Job(self.config, run_dir=str(run), load_checkpoint="latest"))
        return (run / "ppo_training.log").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    made = Folder(config_in(tmp_path), tmp_path / "checkpoints")
    made.add(50, GOOD.tree)
    return made


def without(*path: str) -> Callable[[StateDict], None]:
    def change(tree: StateDict) -> None:
        *above, last = path
        for name in above:
            tree = tree[name]
        del tree[last]

    return change


def with_value(value: object, *path: str) -> Callable[[StateDict], None]:
    def change(tree: StateDict) -> None:
        *above, last = path
        for name in above:
            tree = tree[name]
        tree[last] = value

    return change


def with_nan(tree: StateDict) -> None:
    next(iter(tree["learner"]["policy"]["network"].values()))[0] = float("nan")


def cyclic(tree: StateDict) -> None:
    tree["metrics"]["again"] = tree


STRANGE = {
    "no rollout": (without("rollout"), "lacks the part rollout"),
    "no counter": (without("learner", "counters", "updates"), "KeyError: 'updates'"),
    "a text for a number": (
        with_value("many", "learner", "updater", "skipped_in_a_row"),
        "learner.updater.skipped_in_a_row is no int",
    ),
    "a text for a tensor": (with_value("x", "learner", "updater", "adamw", "exp_avg"), "TypeError"),
    "a nan weight": (with_nan, "numbers that are not finite"),
    "another step": (with_value(49, "learner", "counters", "ppo_step"), "its ppo_step is 49"),
    "another count": (
        with_value(-7, "learner", "counters", "global_step"), "its global_step is -7",
    ),
    "a negative position": (
        with_value(-1, "simulation", "position", "decisions_in_episode"), "a position of",
    ),
    "a list for a dict": (with_value([1], "validation"), "list indices"),
    "a circle": (cyclic, "stands at two places"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), STRANGE.values(), ids=STRANGE)
def test_the_one_before_is_gone_on_with(folder, change, reason):
    tree = snapshot(GOOD.tree)
    tree["learner"]["counters"]["ppo_step"] = 60
    change(tree)
    folder.add(60, tree)
    log = folder.resume()
    assert "skipped" in log
    assert reason in log
    assert f"[Resume] PPO训练恢复 {folder.path / 'checkpoint_step_00000050.pt'}" in log


def test_if_none_can_be_used_each_is_named_and_nothing_is_trained(tmp_path):
    only = Folder(config_in(tmp_path), tmp_path / "checkpoints")
    tree = snapshot(GOOD.tree)
    del tree["learner"]["guard"]
    only.add(50, tree)
    with pytest.raises(UserError, match=r"no checkpoint there can be used[^\n]*\n.*'guard'"):
        only.resume()


def leaves(node: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(node, dict):
        return [one for name, child in node.items() for one in leaves(child, (*path, name))]
    return [path]


LEAVES = leaves(GOOD.tree)
BRANCHES = sorted({path[:depth] for path in LEAVES for depth in range(1, len(path))})
STRANGERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.just({}),
    st.sampled_from([0, 3, (2, 5)]).map(torch.zeros),
    st.just(torch.full((3,), float("nan"))),
    st.just(torch.zeros(2, dtype=torch.int64)),
)
CONFIG = config_in(Path("nowhere"))


@settings(max_examples=150, deadline=None)
@given(path=st.sampled_from([*LEAVES, *BRANCHES]), remove=st.booleans(), value=STRANGERS)
def test_whatever_stands_in_a_tree_is_refused_or_can_be_learned_from(path, remove, value):
    tree = snapshot(GOOD.tree)
    (without(*path) if remove else with_value(value, *path))(tree)
    try:
        check_content(LoadedCheckpoint(GOOD.path, GOOD.manifest, tree=tree), CONFIG)
    except UnusableCheckpoint:
        return
    goes_on(tree)


def goes_on(tree: StateDict) -> None:
    """Let a learner take a tree over and decide, through an update."""
    schema = observation_schema(CONFIG.observation)
    replicas, envs = CONFIG.cluster.num_replicas, CONFIG.parallel_training.num_envs
    learner = Learner(CONFIG, schema, replicas, FanOut([]), shards=Shards(envs))
    try:
        learner.load_state_dict(tree)
    except IncompatibleState:
        return
    rng, updates = np.random.default_rng(0), learner.updates
    for _ in range(20):
        asked = learner.asks()
        assert asked is not None
        seen = Observation(
            rng.normal(size=(envs, replicas, len(schema.replica))),
            rng.normal(size=(envs, len(schema.context))),
            np.ones((envs, len(schema.telemetry))),
        )
        costs = np.where(asked[:, None], rng.normal(size=(envs, replicas)), np.nan)
        learner.decide(seen, np.zeros(envs), np.zeros(envs, dtype=bool), costs)
    assert learner.updates > updates


SEALED = (GOLDEN / "checkpoint_step_00000050.json").read_bytes()


@given(st.integers(0, 8 * len(SEALED) - 1))
def test_a_flipped_bit_of_a_manifest_is_refused(bit):
    damaged = bytearray(SEALED)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(UnusableCheckpoint):
        parse_manifest(bytes(damaged), GOOD.path)


@pytest.mark.parametrize("key", ["reason", "run_dir", "config_digest"])
def test_a_manifest_with_escapes_is_refused_and_they_are_not_repeated(key):
    manifest = GOOD.manifest.model_copy(update={key: "a\x1b]0;owned\x07\x1b[2J"})
    with pytest.raises(UnusableCheckpoint, match="texts that cannot be printed") as refused:
        parse_manifest(manifest.to_json(), GOOD.path)
    assert str(refused.value).isprintable()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda child: st.one_of(st.lists(child, max_size=2), st.dictionaries(st.text(), child)),
    max_leaves=5,
)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(Manifest.model_fields)), value=JSON)
def test_whatever_stands_in_a_sealed_manifest_is_read_or_refused(name, value):
    from ppo_scheduler.sealed_json import sealed

    document = json.loads(GOOD.manifest.to_json()) | {name: value}
    del document["manifest_sha256"]
    content = sealed(json.dumps(document, indent=2).encode(), "manifest_sha256")
    said = ""
    try:
        parse_manifest(content, GOOD.path)
    except UnusableCheckpoint as refused:
        said = str(refused).replace("\n", "")
    assert said == "" or said.isprintable()
