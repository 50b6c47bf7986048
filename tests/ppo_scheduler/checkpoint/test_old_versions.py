"""Checkpoints of every version there ever was are read, whole; what we write keeps its names.

``golden/schema_N`` holds a checkpoint that the program of that time wrote. These files never
change: a new layout gets a new version, a migration and a golden checkpoint of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.checkpoint.manifest import Manifest
from ppo_scheduler.checkpoint.migrations import SCHEMA_VERSION, migrate_manifest, migrate_tree
from ppo_scheduler.checkpoint.reading import load_named
from ppo_scheduler.config.learner_sections import CollapseGuardSection
from ppo_scheduler.control.collapse_guard import CollapseGuard
from ppo_scheduler.errors import UserError

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = range(1, SCHEMA_VERSION + 1)
PARTS = {"learner", "rollout", "simulation", "validation", "metrics"}


def golden(version: int) -> Path:
    [path] = (GOLDEN / f"schema_{version}").glob("*.pt")
    return path


def raw_tree(version: int):
    return torch.load(golden(version), weights_only=True)


def tensors(node) -> list[torch.Tensor]:
    if isinstance(node, dict):
        return [leaf for child in node.values() for leaf in tensors(child)]
    if isinstance(node, list | tuple):
        return [leaf for child in node for leaf in tensors(child)]
    return [node] if isinstance(node, torch.Tensor) else []


def names(node, depth: int, where: str = "") -> set[str]:
    """Return the dotted names of a tree's string keys down to a depth."""
    if not isinstance(node, dict) or depth == 0:
        return set()
    found = set()
    for key, child in node.items():
        if isinstance(key, str):
            found |= {f"{where}{key}"} | names(child, depth - 1, f"{where}{key}.")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_read_with_all_of_todays_parts(version):
    loaded = load_named(golden(version))
    assert loaded.manifest.schema_version == version
    assert set(loaded.manifest.parts) == (PARTS if version >= 5 else PARTS - {"validation"})
    assert set(loaded.tree) == PARTS
    assert loaded.tree["learner"]["counters"]["ppo_step"] == loaded.manifest.ppo_step > 0


@pytest.mark.parametrize("version", VERSIONS)
def test_no_tensor_is_lost_or_changed(version):
    old, new = raw_tree(version), load_named(golden(version)).tree
    if version == 1:
        moments = old["learner"].pop("optimizer")["state"].values()
        adamw = new["learner"]["updater"].pop("adamw")
        assert {adamw["steps"]} == {int(state["step"]) for state in moments}
        for name in ("exp_avg", "exp_avg_sq"):
            first, *others = (state[name] for state in moments)
            left = [column for column in range(24) if column not in (13, 14)]
            flat = torch.cat([part.flatten() for part in (first[:, left], *others)])
            assert torch.equal(adamw[name], flat)
    if version < 3:  # the actions of all environments are one tensor now, of smaller integers
        logs = old["learner" if version == 1 else "rollout"].pop("action_log")
        moved = new["rollout"].pop("action_log")
        assert moved["lengths"].tolist() == [len(log) for log in logs]
        assert moved["actions"].tolist() == [log.tolist() for log in logs]
    if version < 4:  # what was measured before the last decision is not kept any more
        old["learner" if version == 1 else "rollout"]["pending"].pop("telemetry")
    if version < 4:  # the features of replicas are fewer: see test_past_observations.py
        for tree in (old, new):
            drop_features(tree)
    before, after = tensors(old), tensors(new)
    assert len(before) == len(after) >= 30
    left = list(after)
    for tensor in before:
        match = next(i for i, other in enumerate(left) if same(tensor, other))
        del left[match]


def drop_features(tree) -> None:
    """Forget what depends on which features a replica has."""
    learner = tree["learner"]
    rollout = tree.get("rollout", learner)
    buffer = rollout.get("buffer") or learner["rollout"]
    del learner["policy"]["network"]["replica_input.weight"]
    del learner["policy"]["replica_statistics"]
    del buffer["rows"]["replicas"], rollout["pending"]["replicas"]
    for name in ("adamw", "reference"):
        learner["updater"].pop(name, None)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())


def test_version_1_keeps_all_it_says():
    old, new = raw_tree(1), load_named(golden(1)).tree
    moved = {"pending", "action_log", "action_rng", "num_replicas", "num_envs", "rollout"}
    moved |= {"optimizer", "reference"}
    kept = set(old["learner"]) - moved - {"schedules"}
    assert set(new["learner"]) == kept | {"terminal_value"}
    assert new["rollout"]["action_rng"] == old["learner"]["action_rng"]
    assert new["rollout"]["buffer"]["filled"] == old["learner"]["rollout"]["filled"]
    assert new["rollout"]["action_log"]["actions"][0].tolist() == (
        old["learner"]["action_log"][0].tolist()
    )
    assert new["simulation"] == {
        "position": old["position"],
        "digest": old["simulation_digest"],
        "seed": old["seed"],
        "engine": "vidur",
        "episodes": {"lengths": None},
    }
    assert new["metrics"]["tail"]["count"] == old["instruments"]["tail"]["count"]
    assert (new["metrics"]["history"], new["metrics"]["wandb_run"]) == (None, None)


def test_version_1_says_what_it_did_not_know():
    manifest = load_named(golden(1)).manifest
    assert (manifest.settings, manifest.val_score) == ({}, None)
    assert manifest.facts == {"episode": 0, "requests_done": 57}


@pytest.mark.parametrize("version", range(1, 5))
def test_before_version_5_nothing_was_priced_and_no_policy_was_the_best(version):
    tree = load_named(golden(version)).tree
    assert tree["simulation"]["episodes"] == {"lengths": None}
    assert tree["validation"] == {"scores": [], "best": None, "policy": None}
    assert "costs" not in tree["rollout"]["buffer"]["rows"]


def test_version_5_keeps_what_outputs_and_validations_have_shown():
    tree = load_named(golden(5)).tree
    assert tree["simulation"]["episodes"]["lengths"].sum() > 0
    scores, best = tree["validation"]["scores"], tree["validation"]["best"]
    assert [score["updates"] for score in scores] == [2, 4]
    assert best in scores
    assert tree["validation"]["policy"].keys() == tree["learner"]["policy"].keys()
    priced = ~tree["rollout"]["buffer"]["rows"]["costs"].isnan().any(dim=-1)
    assert priced.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(("since", "boosted"), [([1, 1], True), ([0, 1], False)])
def test_of_version_6_an_update_that_is_owed_a_boost_has_it_if_the_collapse_stands(since, boosted):
    """Since version 7 the guard looks at the rollout right before its update."""
    tree = raw_tree(6)
    collapsed = torch.ones(16, dtype=torch.int64)
    tree["learner"]["guard"] |= {"actions": collapsed, "remaining": 0, "update_owed": True}
    guard = CollapseGuard(CollapseGuardSection(window=16, entropy_boost=0.5), num_replicas=2)
    guard.load_state_dict(migrate_tree(tree, 6)["learner"]["guard"])
    assert guard.temperature_factor == 1.0, "that intervention is over for the decisions"
    guard.observe(np.array(8 * since))
    assert guard.entropy_coef(0.0) == (0.5 if boosted else 0.0)


def test_files_of_old_versions_stay_as_they_are(tmp_path, make_stores, save):
    folder = tmp_path / "checkpoints"
    shutil.copytree(GOLDEN / "schema_1", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    stores = make_stores(folder)
    store = stores.open()
    store.load("latest")
    save(store, 58)
    assert stores.steps() == [57, 58]
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("version", VERSIONS)
def test_without_one_of_its_parts_it_is_refused(version, tmp_path):
    for part in raw_tree(version):
        tree = raw_tree(version)
        del tree[part]
        path = tmp_path / golden(version).name
        torch.save(tree, path)
        path.with_suffix(".json").write_bytes(certificate(version, path.read_bytes()))
        with pytest.raises(UserError, match=rf"incomplete.*lacks .*{part}"):
            load_named(path)


def certificate(version: int, data: bytes) -> bytes:
    """Return the golden manifest as its version would write it beside other data."""
    document = json.loads(golden(version).with_suffix(".json").read_text())
    document |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if version == 1:
        return json.dumps(document).encode()
    del document["manifest_sha256"]
    return Manifest.model_validate(document).to_json()


def test_what_is_of_the_present_version_is_not_migrated():
    tree = {"anything": 1}
    assert migrate_tree(tree, SCHEMA_VERSION) is tree
    assert migrate_manifest(tree, SCHEMA_VERSION) is tree


def test_the_manifest_we_write_has_the_names_of_its_version():
    document = json.loads(golden(SCHEMA_VERSION).with_suffix(".json").read_text())
    assert set(document) == {*Manifest.model_fields, "manifest_sha256"}


def test_the_learner_we_save_has_the_names_of_its_version(make_learner, make_task):
    learner, task = make_learner(), make_task()
    learner.terminal_value = learner.new_terminal_value()
    for _ in range(150):
        task.step(learner)
    state, saved = learner.state_dict(), raw_tree(SCHEMA_VERSION)
    assert set(saved) - set(state) == {"simulation", "validation", "metrics"}
    assert names(state, 3) == names({part: saved[part] for part in state}, 3)
