"""Robust least squares of the constants of a device, and which of them the data determine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from ppo_scheduler.observation import Floats
from vidur_ext.execution_time.devices import Device

TOLERANCE = 0.2
"""A constant is determined if its standard error is at most that: of a factor relative, of an
overhead as a share of an iteration."""

_SOFT = 0.1
"""Errors of log time above this count less and less: the model is not meant to explain them."""
_NOISE = 0.01
"""No data is better than that, and neither is the model: a standard error of log time at least."""
_STEP = 0.1
"""To each side, for differences: at a touch requests change into other batches, and only over a
wide step does what the constant itself changes outweigh that."""
_MOST_STEPS = 30
_DIGITS = 4


@dataclass(frozen=True)
class Constant:
    """A field of ``Device`` that is fitted.

    ``scale_ms`` is None for a factor; for an overhead it is how long an iteration takes, so that a
    tenth of it matters as much as a tenth of a factor.
    """

    name: str
    scale_ms: float | None = None

    def position(self, value: float) -> float:
        """Return where a value lies on the axis on which it is sought."""
        return math.log(value) if self.scale_ms is None else value / self.scale_ms

    def value(self, position: float) -> float:
        """Return the value at a position, as it is written into a device file."""
        value = math.exp(position) if self.scale_ms is None else position * self.scale_ms
        low, high = self._range
        return min(max(float(f"{value:.{_DIGITS}g}"), low), high)

    @property
    def bounds(self) -> tuple[float, float]:
        """The positions between which it is sought."""
        low, high = self._range
        return self.position(low), self.position(high)

    @property
    def _range(self) -> tuple[float, float]:
        limits = Device.model_fields[self.name].metadata
        low = next(limit.ge for limit in limits if hasattr(limit, "ge"))
        high = next(limit.le for limit in limits if hasattr(limit, "le"))
        return float(low), float(high)


@dataclass(frozen=True)
class Fit:
    """A device with the constants that fit.

    Attributes:
        device: the fitted one.
        uncertainty: standard error of each fitted constant, of a factor relative, of an overhead
            in ms.
        left: names of the constants that the data do not determine; they are as before.
    """

    device: Device
    uncertainty: dict[str, float]
    left: tuple[str, ...]


def fit_constants(
    log_errors: Callable[[Device], Floats],
    start: Device,
    constants: Sequence[Constant],
    groups: NDArray[np.int64],
) -> Fit:
    """Return the constants with which the model errs least.

    Constants that the data do not determine, by the standard errors at the fit, are left as they
    were, one by one: first the one without which the others fit best.

    Args:
        log_errors: log of predicted over measured time of every row [N].
        groups: which rows err together [N]; groups are independent.
    """
    sought = list(constants)
    positions = _solved(log_errors, start, sought)
    while True:
        errors = log_errors(_moved(start, sought, positions))
        slopes = _slopes(log_errors, start, sought, positions)
        deviations = _standard_errors(slopes, errors, groups)
        if deviations.max() <= TOLERANCE:
            break
        if len(sought) == 1:
            return Fit(start, {}, tuple(one.name for one in constants))
        # Those that make up for each other are uncertain alike, and any of them may be left.
        fewer = [
            [other for other in sought if other is not one]
            for one, deviation in zip(sought, deviations, strict=True)
            if deviation > 0.5 * TOLERANCE
        ]
        solved = [_solved(log_errors, start, some) for some in fewer]
        costs = [
            _soft_errors(log_errors(_moved(start, some, there)))
            for some, there in zip(fewer, solved, strict=True)
        ]
        best = int(np.argmin(costs))
        sought, positions = fewer[best], solved[best]
    return Fit(
        device=_moved(start, sought, positions),
        uncertainty={
            one.name: float(deviation) * (one.scale_ms or 1.0)
            for one, deviation in zip(sought, deviations, strict=True)
        },
        left=tuple(one.name for one in constants if one not in sought),
    )


def _moved(start: Device, sought: Sequence[Constant], positions: Floats) -> Device:
    values = {
        one.name: one.value(float(position))
        for one, position in zip(sought, positions, strict=True)
    }
    return start.model_copy(update=values)


def _solved(
    log_errors: Callable[[Device], Floats], start: Device, sought: Sequence[Constant]
) -> Floats:
    """Return the positions of least soft error."""
    low, high = np.array([one.bounds for one in sought]).T
    solution = least_squares(
        lambda positions: log_errors(_moved(start, sought, positions)),
        np.array([one.position(getattr(start, one.name)) for one in sought]),
        jac=lambda positions: _slopes(log_errors, start, sought, positions),
        bounds=(low, high),
        method="dogbox",  # may begin at a bound, where an overhead of 0 lies
        loss="soft_l1",
        f_scale=_SOFT,
        max_nfev=_MOST_STEPS,
    )
    return np.asarray(solution.x, dtype=np.float64)


def _soft_errors(errors: Floats) -> float:
    """Return what the fit makes small."""
    return float((np.sqrt(1.0 + (errors / _SOFT) ** 2) - 1.0).sum())


def _slopes(
    log_errors: Callable[[Device], Floats],
    start: Device,
    sought: Sequence[Constant],
    positions: Floats,
) -> Floats:
    """Return how errors change with each position [N, constants], by differences."""
    columns = []
    for index, one in enumerate(sought):
        low, high = (positions.copy() for _ in range(2))
        low[index], high[index] = np.clip(
            [positions[index] - _STEP, positions[index] + _STEP], *one.bounds
        )
        rise = log_errors(_moved(start, sought, high)) - log_errors(_moved(start, sought, low))
        columns.append(rise / (high[index] - low[index]))
    return np.stack(columns, axis=1)


def _standard_errors(slopes: Floats, errors: Floats, groups: NDArray[np.int64]) -> Floats:
    """Return the standard errors of the positions, with errors that are alike within groups.

    The sandwich of Liang and Zeger (Longitudinal data analysis using generalized linear models,
    Biometrika 73, 1986) over soft errors, and on top of it what ``_NOISE`` alone would leave open.
    """
    # First and second derivative of the soft error: outliers tell less than they pull.
    pulls = slopes * (errors / np.sqrt(1.0 + (errors / _SOFT) ** 2))[:, None]
    told = slopes * ((1.0 + (errors / _SOFT) ** 2) ** -0.75)[:, None]
    _, sizes, axes = np.linalg.svd(told, full_matrices=False)
    # What no row responds to is open without end, but a number.
    sizes = np.maximum(sizes, 1e-6)[:, None]
    scores = np.zeros((int(groups.max()) + 1, slopes.shape[1]))
    np.add.at(scores, groups, pulls)
    of_groups = scores @ (axes.T @ (axes / sizes**2))
    of_noise = _NOISE * axes / sizes
    return np.sqrt((of_groups**2).sum(axis=0) + (of_noise**2).sum(axis=0))
