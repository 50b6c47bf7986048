"""The constants of a device, fitted to measurements, and errors on what the fit did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.observation import Floats
from vidur_ext.calibration.fit import Constant, Fit, fit_constants
from vidur_ext.calibration.judging import Judgement, check_units, chosen, judge, log_errors
from vidur_ext.calibration.measurements import Iterations, Measured
from vidur_ext.calibration.replica import Replica
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.execution_time.devices import Device, device_named

_FAR = 0.5
"""No server of the kind that is simulated is predicted with such a median error after a fit."""


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        start: the device before, in the node that the config names.
        fit: the device after, and what the data leave open.
        judgements: errors on held-out rows, by file and kind of time.
    """

    start: Device
    fit: Fit
    judgements: tuple[Judgement, ...]

    @property
    def improves(self) -> bool:
        """Whether the median errors on held-out rows are smaller, taken together."""
        before, after = (
            sum(errors.median for errors in each)
            for each in zip(*((one.before, one.after) for one in self.judgements), strict=True)
        )
        return after < before

    @property
    def is_far_off(self) -> bool:
        """Whether some time is predicted so badly that something else was measured."""
        return any(one.after.median > _FAR for one in self.judgements)


def calibrate(config: TrainingConfig, files: Sequence[Measured]) -> Calibration:
    """Fit the constants of ``cluster.device`` to what one replica was measured to do.

    Raises:
        UserError: the engine cannot simulate the replica; times are in another unit than they
            should be; or the measurements determine no constant.
    """
    start = device_named(config.cluster.device).model_copy(
        update={"node": config.cluster.network_device}
    )
    longest = max(
        config.workload.max_tokens if isinstance(one, Iterations) else one.longest for one in files
    )
    replica = Replica(config, longest)
    before = [replica.times(start, one) for one in files]
    for one, times in zip(files, before, strict=True):
        check_units(one, times)

    def errors_of(device: Device) -> Floats:
        return np.concatenate(
            [
                values
                for one in files
                for _, values in chosen(log_errors(replica.times(device, one), one), ~one.held_out)
            ]
        )

    constants = _constants(files, replica.tensor_parallel)
    fit = fit_constants(errors_of, start, constants, _groups(files))
    if not fit.uncertainty:
        raise UserError(
            "the measurements determine none of "
            f"{', '.join(fit.left)}: measure batches of different sizes, prompts and contexts"
        )
    after = [replica.times(fit.device, one) for one in files]
    judgements = [
        judgement
        for one, first, second in zip(files, before, after, strict=True)
        for judgement in judge(one, first, second)
    ]
    return Calibration(start, fit, tuple(judgements))


def _constants(files: Sequence[Measured], tensor_parallel: int) -> list[Constant]:
    """Return what may be fitted.

    Both overheads count in iterations: the overhead of a request that is known less well would be
    what the model misses of queues and prompts.
    """
    seen = [dict(chosen(one.measured, ~one.held_out)) for one in files]
    steps = [times[name] for times in seen for name in ("step", "TPOT") if name in times]
    first_tokens = [times["TTFT"] for times in seen if "TTFT" in times]
    typical_s = np.median(np.concatenate(steps)) if steps else np.concatenate(first_tokens).min()
    constants = [
        Constant("gemm_factor"),
        Constant("attention_factor"),
        Constant("iteration_overhead_ms", 1e3 * float(typical_s)),
    ]
    if tensor_parallel > 1:
        constants.append(Constant("collective_factor"))
    if first_tokens:
        constants.append(Constant("request_overhead_ms", 1e3 * float(typical_s)))
    return constants


def _groups(files: Sequence[Measured]) -> NDArray[np.int64]:
    """Return which of the errors that the fit sees go together, in their order."""
    found: list[Floats] = []
    first = 0
    for one in files:
        # What is known of a row, as numbers that ``chosen`` can choose from.
        numbers = {
            name: np.where(np.isnan(times), np.nan, one.groups + first)
            for name, times in one.measured.items()
        }
        found += [values for _, values in chosen(numbers, ~one.held_out)]
        first += int(one.groups.max()) + 1
    return np.concatenate(found).astype(np.int64)
