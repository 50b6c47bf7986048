"""Which requests a run's training, demonstrations, validation and comparison see."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.sections import PRESETS, WorkloadSection
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.session_stream import SessionStream
from vidur_ext.workload.stream import RequestStream
from vidur_ext.workload.synthetic import SyntheticStream
from vidur_ext.workload.trace_files import load_trace
from vidur_ext.workload.trace_rows import Trace
from vidur_ext.workload.trace_stream import TraceStream

Part = Literal["train", "holdout", "all"]
"""Of a trace: the training part starts again at its end, the held-out part and the whole end."""


def build_stream(
    workload: WorkloadSection,
    seed: int,
    *,
    purpose: Purpose = Purpose.WORKLOAD,
    variant: int = 0,
    part: Part = "train",
) -> RequestStream:
    """Return a request stream of a workload.

    Args:
        purpose: unless a trace: with seed and variant, which of the endless streams.
        part: trace: which requests of it.

    Raises:
        UserError: the trace file cannot be used.
    """
    if workload.source == "synthetic":
        return SyntheticStream(
            seed=seed,
            purpose=purpose,
            qps=workload.qps * workload.rate_scale,
            arrival=workload.arrival,
            burstiness_cv=workload.burstiness_cv,
            code_fraction=workload.code_fraction,
            max_tokens=workload.max_tokens,
            output_tail_index=workload.output_tail_index,
            rate_profile=workload.rate_profile,
            rate_period=workload.rate_period,
            variant=variant,
        )
    if workload.source in PRESETS:
        return SessionStream(
            preset=workload.source,
            seed=seed,
            purpose=purpose,
            qps=workload.qps * workload.rate_scale,
            arrival=workload.arrival,
            burstiness_cv=workload.burstiness_cv,
            max_tokens=workload.max_tokens,
            length_scale=workload.length_scale,
            variant=variant,
        )
    whole = TraceStream(read_trace(workload).table.at_rate(workload.rate_scale))
    if part == "all":
        return whole
    training, held_out = whole.split(workload.holdout_fraction)
    return training if part == "train" else held_out


def read_trace(workload: WorkloadSection) -> Trace:
    """Return the trace that a workload names, with its notes.

    Raises:
        UserError: it cannot be used.
    """
    assert workload.trace_file is not None, "the section allows no source 'trace' without a file"
    return load_trace(
        Path(workload.trace_file),
        workload.trace_format,
        workload.max_tokens,
        workload.trace_time_unit,
    )


def longest_request(workload: WorkloadSection) -> int:
    """Return the most tokens, prompt and output together, that a request of a workload may have.

    Raises:
        UserError: the trace cannot be used.
    """
    if workload.source != "trace":
        return workload.max_tokens
    table = read_trace(workload).table
    return int((table.prefill_tokens + table.decode_tokens).max())


def workload_stream(config: TrainingConfig, purpose: Purpose, variant: int = 0) -> RequestStream:
    """Return the stream that a purpose draws from.

    Of a trace, the comparison sees the held-out part and everything else the training part, which
    starts again at its end; drawn streams are told apart by their seeds.
    """
    held_out = purpose is Purpose.EVALUATION_WORKLOAD
    return build_stream(
        config.workload,
        config.training.seed,
        purpose=purpose,
        variant=variant,
        part="holdout" if held_out else "train",
    )


_VALIDATED_SHARE = 0.25
"""Of a trace's training part, at most, for validation."""


def demonstration_table(
    config: TrainingConfig, index: int, count: int, load_level: float
) -> RequestTable:
    """Return the requests of demonstration ``index``, at a load level."""
    return _practice_table(config, Purpose.DEMONSTRATION_WORKLOAD, index, count, load_level)


def branch_table(config: TrainingConfig, index: int, count: int, load_level: float) -> RequestTable:
    """Return the requests of simulation ``index`` that branches, at a load level."""
    return _practice_table(config, Purpose.BRANCH_WORKLOAD, index, count, load_level)


def _practice_table(
    config: TrainingConfig, purpose: Purpose, index: int, count: int, load_level: float
) -> RequestTable:
    """Return requests to learn from; of a trace they are those of its training part."""
    if config.workload.source == "trace":
        return workload_stream(config, purpose).window(index * count, count).at_rate(load_level)
    return workload_stream(config, purpose, index).window(0, count).at_rate(load_level)


def validation_table(config: TrainingConfig, seed: int) -> RequestTable:
    """Return validation workload ``seed``.

    Synthetic ones have streams of their own. Of a trace, the end of the training part is taken: the
    held-out part stays unseen until the comparison, and a training gets there only if its budget
    is as long as the part.

    Raises:
        UserError: the trace is too short.
    """
    section = config.checkpointing
    count = section.validation_requests
    stream = workload_stream(config, Purpose.VALIDATION_WORKLOAD, seed)
    if not isinstance(stream, TraceStream):
        return stream.window(0, count)
    available = len(stream.table)
    count = min(count, int(available * _VALIDATED_SHARE) // section.validation_seeds)
    if count < 16:
        raise UserError(
            f"{config.workload.trace_file}: its training part has {available} requests, too few "
            f"for checkpointing.validation_seeds={section.validation_seeds} workloads of 16 in a "
            "quarter of it: lower validation_seeds, or set validation_freq to null"
        )
    return stream.window(available - (seed + 1) * count, count)


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
    """Return one line about the workload and what is held out of it, for logs and reports."""
    held_out = f"{config.evaluation.num_seeds} x {evaluation_requests(config)} requests held out"
    said = [describe_requests(config.workload), held_out, doubt_about_rates(config)]
    return ", ".join(part for part in said if part is not None)


_MOST_PER_REPLICA = 100.0
_LEAST = 0.01
"""Mean arrival rates [requests/s] beyond which a unit, or a factor, is likely to be wrong."""


def doubt_about_rates(config: TrainingConfig) -> str | None:
    """Say that requests arrive absurdly fast or slowly; None if they do not.

    Raises:
        UserError: the trace cannot be used.
    """
    rates = arrival_rates(config.workload)
    check = "check workload.qps and workload.rate_scale"
    if config.workload.source == "trace":
        check = "check workload.rate_scale and the unit of time stamps, workload.trace_time_unit"
    replicas = config.cluster.num_replicas
    if max(rates) > _MOST_PER_REPLICA * replicas:
        return (
            f"WHICH ALL ARRIVE AT ONCE: {max(rates):.3g} requests/s are more than {replicas} "
            f"replicas serve by far; {check}"
        )
    if min(rates) < _LEAST:
        return f"WHICH NEVER MEET: one in {1 / min(rates):.3g} s; {check}"
    return None


def describe_requests(workload: WorkloadSection) -> str:
    """Return in words what arrives, and when.

    Raises:
        UserError: the trace cannot be used.
    """
    if workload.source == "trace":
        trace = read_trace(workload)
        [rate] = arrival_rates(workload)
        name = f"trace {workload.trace_file} at {workload.rate_scale:g} x its rate"
        seconds = _duration_s(workload)
        size = f"{len(trace.table)} requests in {seconds:.4g} s, {rate:.4g} requests/s"
        return ", ".join([name, size, *trace.notes])
    process = (
        "Poisson arrivals"
        if workload.arrival == "poisson"
        else f"Gamma arrivals (cv {workload.burstiness_cv:g})"
    )
    rates = " -> ".join(f"{rate:g}" for rate in arrival_rates(workload))
    if workload.source in PRESETS:
        scale = workload.length_scale
        lengths = "" if scale == 1.0 else f", lengths times {scale:g}"
        return f"{rates} requests/s, preset {workload.source}, {process} of sessions{lengths}"
    tail = workload.output_tail_index
    code = f"{workload.code_fraction:.0%} code"
    lengths = code if tail is None else f"{code}, outputs with tail index {tail:g}"
    return f"{rates} requests/s, {process}, {lengths}"


def arrival_rates(workload: WorkloadSection) -> tuple[float, ...]:
    """Return the mean arrival rates [requests/s] that a workload goes through, one after the other;
    of a trace it is one, that of all its requests.

    Raises:
        UserError: the trace cannot be used.
    """
    if workload.source == "trace":
        gaps, seconds = len(read_trace(workload).table) - 1, _duration_s(workload)
        return (gaps / seconds if seconds > 0.0 else float("inf"),)
    return tuple(workload.qps * workload.rate_scale * factor for factor in workload.rate_profile)


def _duration_s(workload: WorkloadSection) -> float:
    """Return how long a trace lasts, from its first arrival to its last."""
    arrived = read_trace(workload).table.arrived_at
    return float(arrived[-1] - arrived[0]) / workload.rate_scale
