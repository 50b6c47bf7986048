"""Requests as Vidur takes them: one that can be preempted, and the stream as a generator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Optional, get_args

import numpy as np
from pydantic import ValidationError
from vidur.config import BaseRequestGeneratorConfig
from vidur.entities import Request
from vidur.request_generator.base_request_generator import BaseRequestGenerator
from vidur.types import BaseIntEnum

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.config.fields import Location
from vidur_ext.config.problems import describe_problems, join_problems
from vidur_ext.config.sections import PRESETS, WorkloadSection
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.workload.block_identities import BlockRuns, block_runs
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.routed_sessions import routed_sessions
from vidur_ext.workload.run_workloads import Part, build_stream
from vidur_ext.workload.stream import RequestStream
from vidur_ext.workload.trace_files import trace_formats


class RestartableRequest(Request):
    """A request that survives ``restart``.

    Vidur 0.0.26 leaves the tokens counted per pipeline stage as they were when it restarts a
    preempted request, counts them again, and ends in its own assertion. Preemption is the point
    of simulating an overloaded cluster, so the counter starts anew here.
    """

    identities: Optional[Callable[[int], Sequence[int]]] = None  # noqa: UP045
    """By the size of blocks, what each full one of prompt and answer holds, for prefix caches; see
    ``workload.block_identities``. None: what no other does."""

    found_tokens: int = 0
    """Of its prompt, in the replica's prefix cache when it was first scheduled."""

    session: int = 0
    """Number of its session; see ``workload.routed_sessions``."""

    before: Optional["RestartableRequest"] = None
    """The session's request before it."""

    replica: int = -1
    """Index of the one that it was routed to."""
    awaited: Any = None
    """The request after whose completion it arrives, ``think_s`` later; None: it has its time."""

    think_s: float = 0.0

    when_completed: Optional[Callable[[], None]] = None  # noqa: UP045
    """Is called when it is completed."""

    def on_batch_end(self, time: float, num_tokens_processed: int) -> None:
        """Count the tokens of a batch."""
        super().on_batch_end(time, num_tokens_processed)
        if self.completed and self.when_completed is not None:
            self.when_completed()

    def restart(self) -> None:
        """Give up all progress; the tokens so far become the prompt."""
        super().restart()
        self._num_stage_processed_tokens = 0
        self._is_prefill_stage_complete = False


def requests_of(table: RequestTable) -> list[Any]:
    """Return the requests of a table as Vidur's entities."""
    columns = (table.arrived_at, table.prefill_tokens, table.decode_tokens)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    requests = [RestartableRequest(*row) for row in rows]
    sessions = routed_sessions(table)
    for request, session, before in zip(requests, *map(np.ndarray.tolist, sessions), strict=True):
        request.session = session
        request.before = requests[before] if before >= 0 else None
    if table.prompts is not None:
        runs = cache(partial(block_runs, table.prompts, table.decode_tokens))
        for index, request in enumerate(requests):
            request.identities = partial(_identities, runs, index)
    if table.sessions is not None:
        for row in np.flatnonzero(table.sessions.waits).tolist():
            requests[row].awaited = requests[table.sessions.previous[row]]
            requests[row].think_s = float(table.sessions.think_s[row])
    return requests


def _identities(runs: Callable[[int], BlockRuns], index: int, block_size: int) -> Sequence[int]:
    identities: list[int] = runs(block_size).of_request(index).tolist()
    return identities


WORKLOAD_FLAG_PREFIX = "workload_request_generator_config_"


class StreamType(BaseIntEnum):
    """Type keys of the request generators that the plug-in adds; far above Vidur's own."""

    STREAM = 100


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


# Vidur makes flags of the annotations themselves: they must be types, so this module does not
# postpone their evaluation, and optional ones must be typing.Optional.
@dataclass
class WorkloadRequestGeneratorConfig(BaseRequestGeneratorConfig):
    """Flags of the generator ``stream``. Vidur's ``--seed`` does not reach it; ``seed`` does."""

    max_tokens: int = _flag(8192, "Prompt + output tokens of a request at most; prompts are cut.")
    source: str = _flag("synthetic", f"synthetic, trace, {', '.join(PRESETS)}.")
    qps: float = _flag(24.5, "synthetic, presets: mean arrival rate [requests/s].")
    arrival: str = _flag("gamma", "synthetic, presets: poisson or gamma.")
    burstiness_cv: float = _flag(2.0, "gamma: coefficient of variation of the gaps.")
    rate_profile: str = _flag("1.0", "synthetic: factors on qps, e.g. 0.6,1.1,0.8.")
    rate_period: int = _flag(2048, "synthetic: requests in which the profile is gone through.")
    code_fraction: float = _flag(0.2, "synthetic: share of code requests.")
    output_tail_index: Optional[float] = _flag(  # noqa: UP045
        None, "synthetic: Pareto index of the tail of outputs."
    )
    length_scale: float = _flag(1.0, "presets: factor on the tokens of texts and answers.")
    trace_file: Optional[str] = _flag(None, "trace: file to replay.")  # noqa: UP045
    trace_format: str = _flag("auto", f"trace: auto or {', '.join(trace_formats())}.")
    trace_time_unit: str = _flag("auto", "trace: unit of time stamps, auto, s, ms, us or ns.")
    rate_scale: float = _flag(1.0, "Factor on the arrival rate.")
    part: str = _flag("train", "trace: train (starts again at its end), holdout or all.")
    holdout_fraction: float = _flag(0.2, "trace: share at the end that is held out.")
    purpose: int = _flag(int(Purpose.WORKLOAD), "synthetic: stream of the seed, by its purpose.")
    variant: int = _flag(0, "synthetic: stream of seed and purpose.")
    first_request: int = _flag(0, "Simulation only: index of the first request.")
    num_requests: int = _flag(2048, "Requests to simulate.")

    @staticmethod
    def get_type() -> Any:
        """Return the type key."""
        return StreamType.STREAM


def stream_config(config: TrainingConfig) -> WorkloadRequestGeneratorConfig:
    """Return the generator's config of a run's training stream."""
    return WorkloadRequestGeneratorConfig(
        **workload_flags(config.workload),
        seed=config.training.seed,
        num_requests=config.training.total_requests,
    )


def workload_flags(workload: WorkloadSection) -> dict[str, Any]:
    """Return a workload's values as the flags of a ``WorkloadRequestGeneratorConfig``."""
    return {**workload.model_dump(), "rate_profile": ",".join(map(str, workload.rate_profile))}


def workload_values(config: Any) -> dict[str, Any]:
    """Return the keys of ``workload`` that a ``WorkloadRequestGeneratorConfig`` has; they are not
    validated.

    Raises:
        UserError: the rate profile is no list of numbers.
    """
    values = {name: getattr(config, name) for name in WorkloadSection.model_fields}
    try:
        values["rate_profile"] = tuple(map(float, config.rate_profile.split(",")))
    except ValueError:
        raise UserError(
            f"{_flag_at(['rate_profile'])} {config.rate_profile}: expected numbers with commas "
            "between them, e.g. 0.6,1.1,0.8"
        ) from None
    return values


def workload_of(config: Any) -> WorkloadSection:
    """Return the workload that a ``WorkloadRequestGeneratorConfig`` describes.

    Raises:
        UserError: a flag is out of range, or flags contradict each other.
    """
    try:
        return WorkloadSection.model_validate(workload_values(config))
    except ValidationError as error:
        problems = describe_problems(error, WorkloadSection, _flag_at)
        raise UserError(join_problems(problems)) from None


def stream_of(config: Any) -> RequestStream:
    """Return the stream that a ``WorkloadRequestGeneratorConfig`` describes.

    Raises:
        UserError: a flag is out of range, or the trace file cannot be used.
    """
    if config.part not in get_args(Part):
        allowed = ", ".join(get_args(Part))
        raise UserError(f"workload part={config.part!r}: expected {allowed}")
    if config.purpose not in list(Purpose):
        known = ", ".join(f"{purpose.value} ({purpose.name.lower()})" for purpose in Purpose)
        raise UserError(f"workload purpose={config.purpose}: expected one of {known}")
    return build_stream(
        workload_of(config),
        config.seed,
        purpose=Purpose(config.purpose),
        variant=config.variant,
        part=config.part,
    )


def _flag_at(location: Location) -> str:
    return f"--{WORKLOAD_FLAG_PREFIX}{location[0] if location else '*'}"


class WorkloadRequestGenerator(BaseRequestGenerator):
    """Hands a window of the stream to Vidur."""

    def generate_requests(self) -> list[Any]:
        """Return requests [first_request, first_request + num_requests) as Vidur's entities.

        Raises:
            UserError: requests wait for answers.
        """
        config = self.config
        return requests_of(stream_of(config).window(config.first_request, config.num_requests))
