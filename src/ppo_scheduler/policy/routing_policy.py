"""A policy by itself, in memory and on disk: network, feature statistics and schema in one piece,
without any training state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppo_scheduler import state_file
from ppo_scheduler.config.learner_sections import ArchitectureSection, Kernel
from ppo_scheduler.errors import IncompatibleState, UserError
from ppo_scheduler.files import write_file
from ppo_scheduler.observation import Floats, Observation, ObservationSchema
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.policy.normalizer import RunningMeanStd
from ppo_scheduler.policy.past_observations import migrate_policy
from ppo_scheduler.policy.soundness import STATISTICS, UnsoundPolicy, sound_policy
from ppo_scheduler.state import StateDict

Features = tuple[NDArray[np.float32], NDArray[np.float32]]


class RoutingPolicy:
    """Maps raw observations to logits and values through stored running statistics.

    Statistics are never those of the batch at hand: with one observation at a time, batch
    statistics would turn every state into zeros.
    """

    def __init__(
        self,
        schema: ObservationSchema,
        architecture: ArchitectureSection,
        clip: float,
        kernel: Kernel = "fused",
    ) -> None:
        """``kernel`` computes the network; see ``training.kernel``."""
        self.schema = schema
        self.architecture = architecture
        self.clip = clip
        self.network = ActorCritic(len(schema.replica), len(schema.context), architecture, kernel)
        # They are updated in place, so these stay the live ones; gathering them takes a while.
        self._weights: dict[str, Tensor] = dict(self.network.state_dict())
        self._fused = self.network.fused()
        self.replica_statistics = RunningMeanStd((len(schema.replica),))
        self.context_statistics = RunningMeanStd((len(schema.context),))

    def initialize(self, torch_seed: int) -> None:
        """Draw fresh weights."""
        generator = torch.Generator().manual_seed(torch_seed)
        self.network.initialize(generator, self.architecture.orthogonal_init)

    def collect(self, observation: Observation) -> None:
        """Let the feature statistics see a batch."""
        self.replica_statistics.update(
            observation.replicas.reshape(-1, observation.replicas.shape[-1])
        )
        self.context_statistics.update(observation.context)

    def normalize(self, observation: Observation) -> Features:
        """Return float32 features [B, R, F] and [B, C] as the network takes them."""
        return (
            self.replica_statistics.normalize(observation.replicas, self.clip),
            self.context_statistics.normalize(observation.context, self.clip),
        )

    @torch.inference_mode()
    def evaluate(self, features: Features) -> tuple[Tensor, Floats]:
        """Return logits [B, R] and values [B] of normalized features, without gradients."""
        replicas, context = features
        if self._fused is not None:
            scores, values = self._fused.forward(replicas, context)
            return torch.from_numpy(scores), values.astype(np.float64)
        logits, value = self.network(torch.from_numpy(replicas), torch.from_numpy(context))
        return logits, value.numpy().astype(np.float64)

    def greedy(self, observation: Observation) -> NDArray[np.int64]:
        """Return the most probable replica per observation [B]; ties go to the lowest index."""
        logits, _ = self.evaluate(self.normalize(observation))
        greedy: NDArray[np.int64] = logits.argmax(dim=-1).numpy()
        return greedy

    def state_dict(self) -> StateDict:
        return {
            "schema": self.schema.digest(),
            "architecture": self.architecture.model_dump(mode="json"),
            "clip": self.clip,
            "network": dict(self._weights),
            "replica_statistics": self.replica_statistics.state_dict(),
            "context_statistics": self.context_statistics.state_dict(),
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore weights and statistics.

        Raises:
            IncompatibleState: the state was made for other features or another network.
        """
        self._check_fit(state)
        self.network.load_state_dict(state["network"], strict=True)
        self.replica_statistics.load_state_dict(state["replica_statistics"])
        self.context_statistics.load_state_dict(state["context_statistics"])

    def _check_fit(self, state: StateDict) -> None:
        if state["schema"] != self.schema.digest():
            raise IncompatibleState(
                f"the saved policy sees other features (schema {state['schema']}, here "
                f"{self.schema.digest()}): set the observation group of the config as it was "
                "when the policy was trained, or train anew"
            )
        here = self.architecture.model_dump(mode="json")
        other = [
            f"{name} is {state['architecture'].get(name)} in the file and {value} here"
            for name, value in here.items()
            if state["architecture"].get(name) != value and name != "orthogonal_init"
        ]
        if other:
            raise IncompatibleState(
                "the saved policy has another network: "
                + "; ".join(other)
                + "; set actor_critic_architecture to match, or train anew"
            )


_KIND = "ppo_scheduler policy"


def save_policy(policy: RoutingPolicy, path: Path) -> None:
    """Write the policy's state atomically."""
    save_policy_state(policy.state_dict(), path)


def save_policy_state(state: StateDict, path: Path) -> None:
    """Write the state of a policy atomically, as a checkpoint holds it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, state_file.dump({"kind": _KIND, "policy": state}))


def read_policy_state(path: Path) -> StateDict:
    """Return the state in a policy file, for ``RoutingPolicy.load_state_dict``.

    One of an earlier version is migrated; the file stays as it is.

    Raises:
        UserError: no such file, not a policy file (pickles are refused), a damaged one, one that
            has not seen anything, or one of an earlier version that cannot be taken over.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no file; give a pretrained_actor.pt or policy.pt")
    try:
        content = state_file.load(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such policy file") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as a policy file ({error.strerror}); name another"
        ) from error
    except state_file.NotAState as error:
        raise UserError(
            f"{path}: cannot be read as a policy file; expected one written as "
            f"pretrained_actor.pt or policy.pt: {error}"
        ) from error
    if content.get("kind") != _KIND:
        raise UserError(
            f"{path}: holds no policy; give a pretrained_actor.pt or policy.pt, not a checkpoint"
        )
    try:
        state: StateDict = migrate_policy(sound_policy(content.get("policy")))
    except (UnsoundPolicy, IncompatibleState) as error:
        raise UserError(f"{path}: {error}") from None
    if not all(state[part]["count"] for part in STATISTICS):
        raise UserError(f"{path}: its feature statistics have seen no state; train it first")
    return state


def policy_of(state: StateDict, schema: ObservationSchema) -> RoutingPolicy:
    """Return the policy of a state, with the network it was saved with.

    Raises:
        IncompatibleState: the state was made for other features.
    """
    architecture = ArchitectureSection.model_validate(state["architecture"])
    policy = RoutingPolicy(schema, architecture, state["clip"])
    policy.load_state_dict(state)
    return policy


def load_policy(path: Path, schema: ObservationSchema) -> RoutingPolicy:
    """Return the policy of a file, with the network it was saved with."""
    return policy_of(read_policy_state(path), schema)
