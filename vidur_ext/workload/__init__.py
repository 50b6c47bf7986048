"""Request streams: synthetic and replayed, seeded, and cut without a seam."""

from __future__ import annotations

from vidur.request_generator import RequestGeneratorRegistry

from vidur_ext.workload.request_generator import (
    WorkloadRequestGenerator,
    WorkloadRequestGeneratorConfig,
)


def register() -> None:
    """Make the request stream selectable in Vidur. Idempotent."""
    RequestGeneratorRegistry.register(
        WorkloadRequestGeneratorConfig.get_type(), WorkloadRequestGenerator
    )
