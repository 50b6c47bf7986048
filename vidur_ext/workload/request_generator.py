"""The request stream as a Vidur request generator, with its flags."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from vidur.config import BaseRequestGeneratorConfig
from vidur.entities import Request
from vidur.request_generator.base_request_generator import BaseRequestGenerator
from vidur.types import BaseIntEnum

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.stream import RequestStream
from vidur_ext.workload.synthetic import SyntheticStream
from vidur_ext.workload.trace_stream import TraceStream
from vidur_ext.workload.traces.load import load_trace


class StreamType(BaseIntEnum):
    """Type keys of the request generators that the plug-in adds."""

    STREAM = 100


def _help(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class WorkloadRequestGeneratorConfig(BaseRequestGeneratorConfig):
    """Flags of the request stream; the config group ``workload`` says what they mean."""

    # Vidur recognises optional flags by typing.Optional, and needs types, not their text: this
    # module does not postpone the evaluation of annotations.
    max_tokens: int = _help(8192, "Prompt + output tokens of a request at most.")
    source: str = _help("synthetic", "synthetic or trace.")
    qps: float = _help(18.0, "synthetic: mean arrival rate [requests/s].")
    arrival: str = _help("gamma", "synthetic: poisson or gamma.")
    burstiness_cv: float = _help(2.0, "gamma: coefficient of variation of the gaps.")
    code_fraction: float = _help(0.2, "synthetic: share of code requests.")
    trace_file: Optional[str] = _help(None, "trace: file to replay.")  # noqa: UP045
    trace_format: str = _help("auto", "trace: auto, azure, splitwise, burstgpt or mooncake.")
    rate_scale: float = _help(1.0, "Factor on arrival rates.")
    holdout_fraction: float = _help(0.2, "trace: share at the end kept for the comparison.")
    num_requests: int = _help(2048, "Requests to generate.")

    @staticmethod
    def get_type() -> Any:
        return StreamType.STREAM


class _ScaledStream:
    """A stream whose requests arrive faster or slower."""

    def __init__(self, stream: RequestStream, rate_scale: float) -> None:
        self._stream = stream
        self._rate_scale = rate_scale

    @property
    def num_requests(self) -> int | None:
        return self._stream.num_requests

    def window(self, start: int, count: int) -> RequestTable:
        return self._stream.window(start, count).at_rate(self._rate_scale)


def build_stream(config: Any, purpose: Purpose = Purpose.WORKLOAD, variant: int = 0) -> Any:
    """Return the stream of these flags (a ``RequestStream``).

    Args:
        config: a ``WorkloadRequestGeneratorConfig``.
        purpose: WORKLOAD and DEMONSTRATION_WORKLOAD read a trace's training part, which repeats;
            EVALUATION_WORKLOAD its held-out part. Synthetic streams are seeded by it.
        variant: tells synthetic streams of one purpose apart.
    """
    if config.source == "synthetic":
        stream: RequestStream = SyntheticStream(
            config.seed,
            purpose,
            config.qps,
            config.arrival,
            config.burstiness_cv,
            config.code_fraction,
            config.max_tokens,
            variant,
        )
    elif config.source == "trace":
        if config.trace_file is None:
            raise UserError("source=trace needs a trace_file")
        table = load_trace(Path(config.trace_file), config.trace_format, config.max_tokens)
        training, held_out = TraceStream(table).split(config.holdout_fraction)
        stream = held_out if purpose is Purpose.EVALUATION_WORKLOAD else training
    else:
        raise UserError(f"source={config.source}: expected synthetic or trace")
    return _ScaledStream(stream, config.rate_scale)


class WorkloadRequestGenerator(BaseRequestGenerator):
    """Hands the first ``num_requests`` requests of the stream to Vidur."""

    def generate_requests(self) -> list[Any]:
        table = build_stream(self.config).window(0, self.config.num_requests)
        columns = (table.arrived_at, table.prefill_tokens, table.decode_tokens)
        return [Request(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
