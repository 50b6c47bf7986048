"""A policy by itself on disk: weights, statistics and schema, without any training state."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ppo_scheduler.config.learner_sections import ArchitectureSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.state import StateDict

_KIND = "ppo_scheduler policy"


def save_policy(policy: RoutingPolicy, path: Path) -> None:
    """Write the policy's state atomically."""
    save_policy_state(policy.state_dict(), path)


def save_policy_state(state: StateDict, path: Path) -> None:
    """Write the state of a policy atomically, as a checkpoint holds it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.tmp")
    with staged.open("wb") as file:
        torch.save({"kind": _KIND, "policy": state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)


def read_policy_state(path: Path) -> StateDict:
    """Return the state in a policy file, for ``RoutingPolicy.load_state_dict``.

    Raises:
        UserError: no such file, or not a policy file (pickles are refused).
    """
    try:
        content = torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such policy file") from None
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read as a policy file ({type(error).__name__}); expected one "
            "written as pretrained_actor.pt or policy.pt"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise UserError(
            f"{path}: holds no policy; give a pretrained_actor.pt or policy.pt, not a checkpoint"
        )
    state: StateDict = content["policy"]
    return state


def load_policy(path: Path, schema: ObservationSchema) -> RoutingPolicy:
    """Return the policy of a file, with the network it was saved with."""
    state = read_policy_state(path)
    architecture = ArchitectureSection.model_validate(state["architecture"])
    policy = RoutingPolicy(schema, architecture, state["clip"])
    policy.load_state_dict(state)
    return policy
