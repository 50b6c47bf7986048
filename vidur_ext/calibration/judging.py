"""How far predicted times are from measured ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.calibration.measurements import Measured, Times


@dataclass(frozen=True)
class Errors:
    """Of predicted / measured - 1 over rows: median and 90th percentile without its sign, and the
    median with it."""

    median: float
    p90: float
    bias: float

    @classmethod
    def of(cls, log_errors: Floats) -> Errors:
        """Return the errors of log times."""
        errors = np.expm1(log_errors)
        size = np.abs(errors)
        return cls(float(np.median(size)), float(np.quantile(size, 0.9)), float(np.median(errors)))


@dataclass(frozen=True)
class Judgement:
    """One kind of time of one file: errors on ``rows`` held-out rows, before and after the fit."""

    path: Path
    metric: str
    rows: int
    before: Errors
    after: Errors


def log_errors(predicted: Times, measured: Measured) -> dict[str, Floats]:
    """Return log(predicted / measured) of each kind of time [N]; NaN where a row has none."""
    return {name: np.log(predicted[name] / times) for name, times in measured.measured.items()}


def chosen(errors: dict[str, Floats], rows: NDArray[np.bool_]) -> list[tuple[str, Floats]]:
    """Return the errors of those rows that have any, of each kind of time that some row has."""
    some = [(name, values[rows & ~np.isnan(values)]) for name, values in errors.items()]
    return [(name, values) for name, values in some if len(values)]


def judge(measured: Measured, before: Times, after: Times) -> list[Judgement]:
    """Return the errors on the rows that the fit did not see."""
    rows = measured.held_out
    pairs = zip(
        chosen(log_errors(before, measured), rows),
        chosen(log_errors(after, measured), rows),
        strict=True,
    )
    return [
        Judgement(measured.path, name, len(first), Errors.of(first), Errors.of(second))
        for (name, first), (_, second) in pairs
    ]


_IMPLAUSIBLE = 100.0


def check_units(measured: Measured, predicted: Times) -> None:
    """Refuse times that are orders of magnitude from any device's.

    Raises:
        UserError: they must be in another unit than the file says.
    """
    # How long a request waits, and so its other times, may be off by orders of magnitude indeed.
    kinds = chosen(log_errors(predicted, measured), np.ones(len(measured), dtype=np.bool_))
    errors = dict(kinds)
    name = next(one for one in ("step", "TPOT", "E2E") if one in errors)
    ratio = float(np.exp(-np.median(errors[name])))
    if 1.0 / _IMPLAUSIBLE < ratio < _IMPLAUSIBLE:
        return
    often = f"{ratio:.3g} times" if ratio > 1.0 else f"1/{1.0 / ratio:.3g} of"
    unit = "ms" if name == "step" else "seconds"
    raise UserError(
        f"{measured.path}: its median {name} is {often} what the device would take; check that "
        f"times are in {unit}, and that model and device are those that were measured "
        "(--device, --set cluster.model_name=...)"
    )
