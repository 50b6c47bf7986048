"""What the file of a deployed policy says of its features: enough to compute them again."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, JsonValue, ValidationError, field_validator
from pydantic_core import to_json

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.config.section import Section
from ppo_scheduler.errors import UserError
from vidur_ext.routing.estimator import Estimates, Rate


class ReplicaSpeed(Section):
    """One replica's row of ``Estimates``.

    iteration_s: seconds of an iteration of 0, 1, 2, ... requests without context.
    rates: every ``Rate`` under its label.
    """

    iteration_s: tuple[float, ...]
    rates: dict[str, float]


class Origin(Section):
    """The part ``origin`` of the file.

    trained: what is known of the training, for people.
    observation: what the policy is shown; its ``clip`` is the file's own.
    block_size: tokens in a KV block; ttft_weight: as in the config's lookahead group.
    prefill_tokens, output_sum, output_count: as in ``Estimates``; replicas: one per replica.
    """

    program: Literal["vidur_ext"] = "vidur_ext"
    trained: dict[str, JsonValue]
    observation: ObservationSection
    block_size: int
    ttft_weight: float
    prefill_tokens: float
    output_sum: float
    output_count: float
    replicas: tuple[ReplicaSpeed, ...] = Field(min_length=1)

    @field_validator("replicas")
    @classmethod
    def _are_alike(cls, replicas: tuple[ReplicaSpeed, ...]) -> tuple[ReplicaSpeed, ...]:
        if len({len(replica.iteration_s) for replica in replicas}) != 1:
            raise ValueError("iteration_s of a replica is of another length")
        labels = {rate.label for rate in Rate}
        if any(replica.rates.keys() != labels for replica in replicas):
            raise ValueError(f"replicas have other rates than {', '.join(sorted(labels))}")
        return replicas

    @property
    def estimates(self) -> Estimates:
        """How fast the replicas are."""
        rates = [[replica.rates[rate.label] for rate in Rate] for replica in self.replicas]
        return Estimates(
            base=np.array([replica.iteration_s for replica in self.replicas]),
            rates=np.array(rates),
            prefill_tokens=self.prefill_tokens,
            output_sum=self.output_sum,
            output_count=self.output_count,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return self.model_dump(mode="json", exclude={"observation": {"clip"}})


def origin_of(
    trained: dict[str, JsonValue],
    observation: ObservationSection,
    block_size: int,
    ttft_weight: float,
    estimates: Estimates,
) -> Origin:
    """Return the part ``origin`` of a policy that sees ``observation`` of a cluster."""
    speeds = zip(estimates.base.tolist(), estimates.rates.tolist(), strict=True)
    return Origin(
        trained=trained,
        observation=observation,
        block_size=block_size,
        ttft_weight=ttft_weight,
        prefill_tokens=estimates.prefill_tokens,
        output_sum=estimates.output_sum,
        output_count=estimates.output_count,
        replicas=tuple(
            ReplicaSpeed(
                iteration_s=tuple(base),
                rates={rate.label: value for rate, value in zip(Rate, rates, strict=True)},
            )
            for base, rates in speeds
        ),
    )


def read_origin(tree: object) -> Origin:
    """Return the part ``origin`` of a file.

    Raises:
        UserError: another program, or another version of this one, wrote it.
    """
    try:
        return Origin.model_validate_json(to_json(tree))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("origin", *first["loc"]))
        raise UserError(
            f"does not say how its features are computed ({where}: {first['msg']}); export the "
            "policy again"
        ) from None
