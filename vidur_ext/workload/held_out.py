"""Which requests demonstrations and the comparison see."""

from __future__ import annotations

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur.requests import (
    WorkloadRequestGeneratorConfig,
    build_stream,
    read_trace,
)
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.stream import RequestStream


def workload_stream(config: TrainingConfig, purpose: Purpose, variant: int = 0) -> RequestStream:
    """Return the stream that a purpose draws from.

    Of a trace, the comparison sees the held-out part and everything else the training part, which
    starts again at its end; synthetic streams are told apart by their seeds.
    """
    return build_stream(_generator_config(config, purpose, variant))


def _generator_config(
    config: TrainingConfig, purpose: Purpose, variant: int = 0
) -> WorkloadRequestGeneratorConfig:
    return WorkloadRequestGeneratorConfig(
        **config.workload.model_dump(),
        seed=config.training.seed,
        part="holdout" if purpose is Purpose.EVALUATION_WORKLOAD else "train",
        purpose=int(purpose),
        variant=variant,
    )


def demonstration_table(
    config: TrainingConfig, index: int, count: int, load_level: float
) -> RequestTable:
    """Return the requests of demonstration ``index``, at a load level."""
    purpose = Purpose.DEMONSTRATION_WORKLOAD
    if config.workload.source == "trace":
        return workload_stream(config, purpose).window(index * count, count).at_rate(load_level)
    return workload_stream(config, purpose, index).window(0, count).at_rate(load_level)


def evaluation_requests(config: TrainingConfig) -> int:
    """Return how many requests each held-out workload has.

    A trace's held-out part is shared out among the workloads, so there may be fewer than
    ``evaluation.requests``; ``describe_workload`` says so.

    Raises:
        UserError: the held-out part is too short to be shared out.
    """
    available = workload_stream(config, Purpose.EVALUATION_WORKLOAD).num_requests
    if available is None:
        return config.evaluation.requests
    share = available // config.evaluation.num_seeds
    if share < 16:
        raise UserError(
            f"{config.workload.trace_file}: its held-out part has {available} requests, too few "
            f"for evaluation.num_seeds={config.evaluation.num_seeds} workloads of 16; raise "
            "workload.holdout_fraction or lower evaluation.num_seeds"
        )
    return min(config.evaluation.requests, share)


def evaluation_table(config: TrainingConfig, seed: int) -> RequestTable:
    """Return held-out workload ``seed``: a stream of its own, or a window of the trace's end."""
    count = evaluation_requests(config)
    purpose = Purpose.EVALUATION_WORKLOAD
    if config.workload.source == "trace":
        return workload_stream(config, purpose).window(seed * count, count)
    return workload_stream(config, purpose, seed).window(0, count)


def describe_workload(config: TrainingConfig) -> str:
    """Return one line about the workload, for logs and reports."""
    workload = config.workload
    held_out = f"{config.evaluation.num_seeds} x {evaluation_requests(config)} requests held out"
    if workload.source == "trace":
        notes = read_trace(_generator_config(config, Purpose.WORKLOAD)).notes
        trace = f"trace {workload.trace_file} at {workload.rate_scale:g} x its rate"
        return ", ".join([trace, *notes, held_out])
    process = (
        "Poisson arrivals"
        if workload.arrival == "poisson"
        else f"Gamma arrivals (cv {workload.burstiness_cv:g})"
    )
    rate = workload.qps * workload.rate_scale
    return f"{rate:g} requests/s, {process}, {workload.code_fraction:.0%} code, {held_out}"
