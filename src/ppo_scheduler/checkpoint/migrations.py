"""Reading what older versions wrote.

Every version keeps one step to the next here, and a golden file among the tests; what is read is
migrated in memory, files stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ppo_scheduler.policy.past_observations import migrate_training
from ppo_scheduler.state import StateDict

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 7
"""Version of the manifest and of the tree that this program writes."""


def migrate_manifest(document: dict[str, Any], version: int) -> dict[str, Any]:
    """Return a manifest's document of ``version`` with the fields of the present one.

    ``schema_version`` stays: it says which version the tree beside it has.
    """
    for migrate in _MANIFEST_STEPS[version - 1 :]:
        document = migrate(document)
    return document


def migrate_tree(tree: StateDict, version: int) -> StateDict:
    """Return a state tree of ``version`` in the present layout.

    Raises:
        LookupError: it lacks something that trees of that version have.
        IncompatibleState: its policy cannot be taken over.
    """
    for migrate in _TREE_STEPS[version - 1 :]:
        tree = migrate(tree)
    return tree


def _manifest_from_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had neither settings, validation scores nor named parts."""
    parts = ["learner", "rollout", "simulation", "metrics"]
    return {**document, "settings": {}, "val_score": None, "parts": parts}


def _tree_from_1(tree: StateDict) -> StateDict:
    """Version 1 kept the rollout inside the learner, AdamW and the reference policy per parameter,
    and no history of the metrics."""
    learner = dict(tree["learner"])
    rollout = {
        name: learner.pop(name)
        for name in ("pending", "action_log", "action_rng", "num_replicas", "num_envs")
    }
    rollout["buffer"] = learner.pop("rollout")
    learner["updater"] = {
        **learner["updater"],
        "adamw": _adamw_from_1(learner.pop("optimizer")),
        "reference": _flat((learner.pop("reference") or {}).values()),
    }
    simulation = {
        "position": tree["position"],
        "digest": tree["simulation_digest"],
        "seed": tree["seed"],
    }
    metrics = {"tail": tree["instruments"]["tail"], "history": None, "wandb_run": None}
    return {"learner": learner, "rollout": rollout, "simulation": simulation, "metrics": metrics}


def _adamw_from_1(optimizer: StateDict | None) -> StateDict | None:
    if optimizer is None:
        return None
    states = list(optimizer["state"].values())
    if not states:
        return None  # not updated yet: the same as a new one
    moments = {name: _flat(state[name] for state in states) for name in ("exp_avg", "exp_avg_sq")}
    return {"steps": int(states[0]["step"]), **moments}


def _tree_from_2(tree: StateDict) -> StateDict:
    """Version 2 kept one tensor of actions per environment, one environment's last reward, and knew
    one engine."""
    import torch

    rollout, simulation = tree["rollout"], tree["simulation"]
    logs = [log.to(torch.int16) for log in rollout["action_log"]]
    lengths = torch.tensor([len(log) for log in logs])
    actions = torch.nn.utils.rnn.pad_sequence(logs, batch_first=True)
    position = dict(simulation["position"])
    if (end := position["previous_end"]) is not None:
        position["previous_end"] = {
            "reward": torch.tensor([end["reward"]], dtype=torch.float64),
            "components": torch.tensor([end["components"]], dtype=torch.float64),
        }
    return {
        **tree,
        "rollout": {**rollout, "action_log": {"actions": actions, "lengths": lengths}},
        "simulation": {**simulation, "position": position, "engine": "vidur"},
    }


def _tree_from_3(tree: StateDict) -> StateDict:
    """Version 3 kept what nothing reads: the scheduled coefficients of the moment, a switch of the
    reward statistics that was always on, and what was measured before the last decision. And it had
    features of replicas that carried nothing."""
    learner = {name: part for name, part in tree["learner"].items() if name != "schedules"}
    scaler = {n: part for n, part in learner["reward_scaler"].items() if n != "updating"}
    rollout = dict(tree["rollout"])
    if (pending := rollout["pending"]) is not None:
        rollout["pending"] = {n: column for n, column in pending.items() if n != "telemetry"}
    return migrate_training(
        {**tree, "learner": {**learner, "reward_scaler": scaler}, "rollout": rollout}
    )


def _tree_from_4(tree: StateDict) -> StateDict:
    """Version 4 knew neither the costs of choices nor what episodes leave behind, and kept no best
    policy. Its rollout lacks columns, so an unfinished one is collected anew."""
    return {
        **tree,
        "simulation": {**tree["simulation"], "episodes": {"lengths": None}},
        "validation": {"scores": [], "best": None, "policy": None},
    }


def _tree_from_5(tree: StateDict) -> StateDict:
    """Version 5 took the costs of choices as they are."""
    return {**tree, "learner": {**tree["learner"], "terminal_value": None}}


def _tree_from_6(tree: StateDict) -> StateDict:
    """Version 6 watched for a collapse at every decision, so an update could be owed its boost; now
    the guard looks right before it, and boosts it if the collapse still stands."""
    learner = tree["learner"]
    guard = {name: part for name, part in learner["guard"].items() if name != "update_owed"}
    return {**tree, "learner": {**learner, "guard": guard}}


def _flat(tensors: Iterable[Tensor]) -> Tensor | None:
    """Return all numbers in one tensor, None if there are none."""
    import torch  # takes seconds; those who only read manifests do without

    flat = [tensor.flatten() for tensor in tensors]
    return torch.cat(flat) if flat else None


def _unchanged(document: dict[str, Any]) -> dict[str, Any]:
    return document


_MANIFEST_STEPS: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    _manifest_from_1,
    _unchanged,
    _unchanged,
    _unchanged,
    _unchanged,
    _unchanged,
]
_TREE_STEPS: list[Callable[[StateDict], StateDict]] = [
    _tree_from_1,
    _tree_from_2,
    _tree_from_3,
    _tree_from_4,
    _tree_from_5,
    _tree_from_6,
]
assert len(_MANIFEST_STEPS) == len(_TREE_STEPS) == SCHEMA_VERSION - 1
