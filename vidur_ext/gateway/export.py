"""From what a training saved to the file that a gateway loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.policy.export import Meaning, export_policy
from ppo_scheduler.policy.routing_policy import policy_of
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.gateway.origin import origin_of
from vidur_ext.gateway.trained import Trained
from vidur_ext.routing.features import (
    COMMON,
    FIRST_SLOT,
    NEXT_SLOTS,
    REPLICA,
    observation_schema,
)
from vidur_ext.routing.reference import meaning_of
from vidur_ext.vidur.build import simulation_config
from vidur_ext.vidur.engine_inputs import build_replicas
from vidur_ext.vidur.simulation import isolated_simulation


def export_for_gateway(trained: Trained, config: TrainingConfig, output: Path) -> None:
    """Write a policy to be deployed in front of the cluster of a config.

    Raises:
        UserError: the policy sees other features than the config shows, or cannot be deployed.
        OSError: the disk refuses.
    """
    observation = config.observation
    replica, context = _meanings(observation)
    policy = policy_of(trained.state, observation_schema(observation))
    with isolated_simulation():
        estimates = build_replicas(simulation_config(config, "round_robin")).estimates
    origin = origin_of(
        trained.facts(),
        observation,
        config.cluster.block_size,
        config.lookahead.ttft_weight,
        estimates,
    )
    export_policy(policy, output, replica, context, origin.to_dict())


def _meanings(section: ObservationSection) -> tuple[Mapping[str, Meaning], Mapping[str, Meaning]]:
    """Return what every feature is, by name: those of replicas, and those in common."""
    replica = {feature.name: Meaning(*meaning_of(feature)) for feature in REPLICA}
    for slot in range(section.queue_slots):
        for feature in NEXT_SLOTS if slot else FIRST_SLOT:
            unit, meaning = meaning_of(feature)
            replica[f"queue{slot}_{feature.name}"] = Meaning(
                unit, f"{meaning}; of waiting request {slot}, from 0 on; 0 without one"
            )
    return replica, {feature.name: Meaning(*meaning_of(feature)) for feature in COMMON}
