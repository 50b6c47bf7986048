"""Fit the roofline's constants to measured profiles, and measure its error.

``python benchmarks/fit_predictor.py --profiles DIR`` prints both. The constants in use are
those committed in ``devices.py``; this module reproduces them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from kernel_profiles import (
    GEMM_OPERATORS,
    STREAM_OPERATORS,
    Floats,
    Profile,
    read_profiles,
    write_profiles,
)
from scipy.optimize import least_squares  # type: ignore[import-untyped]

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.constants import (
    AttentionConstants,
    DataSheet,
    DeviceConstants,
    GemmConstants,
    StreamConstants,
)
from vidur_ext.execution_time.devices import DATA_SHEETS, device_constants
from vidur_ext.execution_time.roofline import RooflineModel

Constants = TypeVar("Constants", GemmConstants, StreamConstants, AttentionConstants)
Pairs = list[tuple[Floats, Floats]]
_ROBUST_SCALE = 0.1  # relative errors above 10 % count linearly, not squared


def gemm_pairs(profiles: Sequence[Profile], device: DeviceConstants) -> Pairs:
    """Return (predicted, measured) times of the matrix products."""
    return [
        _operator_pair(profile, device, name, degree)
        for profile in profiles
        for degree in profile.degrees()
        for name in GEMM_OPERATORS
    ]


def stream_pairs(profiles: Sequence[Profile], device: DeviceConstants, kernel: str) -> Pairs:
    """Return (predicted, measured) times of one kind of element-wise kernel."""
    return [
        _operator_pair(profile, device, name, degree)
        for profile in profiles
        for degree in profile.degrees()
        for name, its_kernel in STREAM_OPERATORS.items()
        if its_kernel == kernel
    ]


def attention_pairs(profiles: Sequence[Profile], device: DeviceConstants, kind: str) -> Pairs:
    """Return (predicted, measured) times of attention, ``decode`` or ``prefill``."""
    pairs = []
    for profile in profiles:
        if profile.attention is None:
            continue
        for degree in sorted(profile.attention["num_tensor_parallel_workers"].unique()):
            model = RooflineModel(profile.shape, device, int(degree), 1)
            first, kv, measured = profile.attention_rows(kind, int(degree))
            decode = kind == "decode"
            predicted = model.attn_decode(first, kv) if decode else model.attn_prefill(kv, first)
            pairs.append((predicted, measured))
    return pairs


def cache_save_pairs(profiles: Sequence[Profile], device: DeviceConstants) -> Pairs:
    """Return (predicted, measured) times of the KV cache write."""
    pairs = []
    for profile in profiles:
        if profile.attention is not None:
            tokens, measured = profile.cache_save_rows()
            operators = RooflineModel(profile.shape, device, 1, 1).token_operators
            pairs.append((operators["attn_kv_cache_save"].ms(tokens), measured))
    return pairs


def relative_errors(pairs: Pairs) -> Floats:
    """Return predicted / measured - 1 over all points."""
    return np.concatenate([predicted / measured - 1.0 for predicted, measured in pairs])


def fit_device(profiles: Sequence[Profile], start: DeviceConstants) -> DeviceConstants:
    """Return ``start`` with every constant that these profiles determine fitted anew."""
    sheet = DATA_SHEETS[start.name]
    device = replace(
        start,
        gemm=_fit(
            start.gemm, lambda c: gemm_pairs(profiles, replace(start, gemm=c)), _gemm_limits(sheet)
        ),
    )
    for kernel in sorted(set(STREAM_OPERATORS.values())):
        device = _fit_stream(device, kernel, partial(stream_pairs, profiles, kernel=kernel))
    if any(profile.attention is not None for profile in profiles):
        device = _fit_stream(device, "kv_cache_save", partial(cache_save_pairs, profiles))
        attention = _fit(
            device.attention,
            lambda c: (
                attention_pairs(profiles, replace(device, attention=c), "decode")
                + attention_pairs(profiles, replace(device, attention=c), "prefill")
            ),
        )
        device = replace(device, attention=attention)
    return device


def error_table(profiles: Sequence[Profile], device: DeviceConstants) -> dict[str, Floats]:
    """Return the relative errors of every kind of operator that the profiles hold."""
    table = {"gemm": relative_errors(gemm_pairs(profiles, device))}
    for kernel in sorted(set(STREAM_OPERATORS.values())):
        table[kernel] = relative_errors(stream_pairs(profiles, device, kernel))
    if any(profile.attention is not None for profile in profiles):
        for kind in ("decode", "prefill"):
            table[f"attention_{kind}"] = relative_errors(attention_pairs(profiles, device, kind))
        table["kv_cache_save"] = relative_errors(cache_save_pairs(profiles, device))
    return table


def layer_errors(profiles: Sequence[Profile], device: DeviceConstants) -> Floats:
    """Return the relative errors of a layer's summed token operators (attention apart)."""
    names = (*GEMM_OPERATORS, *(name for name in STREAM_OPERATORS if name != "emb"))
    sums = []
    for profile in profiles:
        for degree in profile.degrees():
            pairs = [_operator_pair(profile, device, name, degree) for name in names]
            sums.append((sum(p for p, _ in pairs), sum(m for _, m in pairs)))
    return relative_errors([(np.asarray(p), np.asarray(m)) for p, m in sums])


def profiled_devices(profiles: Sequence[Profile]) -> dict[str, list[Profile]]:
    """Group profiles by device; a device that the roofline does not know is an error."""
    groups: dict[str, list[Profile]] = {}
    for profile in profiles:
        if profile.device not in DATA_SHEETS:
            raise UserError(
                f"no data sheet of the profiled device {profile.device!r}: add it to "
                "DATA_SHEETS in vidur_ext/execution_time/devices.py"
            )
        groups.setdefault(profile.device, []).append(profile)
    return groups


def _operator_pair(
    profile: Profile, device: DeviceConstants, name: str, degree: int
) -> tuple[Floats, Floats]:
    tokens, measured = profile.operator(name, degree)
    return RooflineModel(profile.shape, device, degree, 1).operator_ms(name, tokens), measured


def _fit_stream(
    device: DeviceConstants, kernel: str, pairs_of: Callable[[DeviceConstants], Pairs]
) -> DeviceConstants:
    start = getattr(device, kernel)
    fitted = _fit(start, lambda c: pairs_of(replace(device, **{kernel: c})))
    return replace(device, **{kernel: fitted})


def _fit(
    start: Constants,
    pairs_of: Callable[[Constants], Pairs],
    limits: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Constants:
    """Least squares of log(predicted / measured), robust, in log parameters (all positive)."""
    kind: Any = type(start)

    def residuals(log_values: Floats) -> Floats:
        pairs = pairs_of(kind(*np.exp(log_values).tolist()))
        return np.concatenate([np.log(predicted / measured) for predicted, measured in pairs])

    bounds = (-np.inf, np.inf) if limits is None else tuple(np.log(limit) for limit in limits)
    result = least_squares(
        residuals,
        np.log(astuple(start)),
        bounds=bounds,
        loss="soft_l1",
        f_scale=_ROBUST_SCALE,
        diff_step=1e-4,
    )
    fitted: Constants = kind(*(float(f"{value:.4g}") for value in np.exp(result.x)))
    return fitted


def _gemm_limits(sheet: DataSheet) -> tuple[Sequence[float], Sequence[float]]:
    """Rates stay below the data sheet: a profile that rereads weights from L2 suggests more."""
    low = (0.1 * sheet.tflops, 0.1 * sheet.memory_gb_s, 1e-4, 1e2, 1.05)
    return low, (sheet.tflops, sheet.memory_gb_s, 0.1, 1e8, 10.0)


def _print_constants(start: DeviceConstants, fitted: DeviceConstants) -> None:
    for field in fields(fitted):
        value = getattr(fitted, field.name)
        if value is not getattr(start, field.name):
            print(f"    {field.name}={value},")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print the constants and both errors: of the new constants and of the committed."""
    parser = argparse.ArgumentParser(description="Fit the roofline's constants to profiles.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--profiles", type=Path, help="folder of profile CSVs")
    source.add_argument(
        "--quick", action="store_true", help="fit what the present constants give: no file needed"
    )
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as made_up:
            folder = options.profiles or write_profiles(Path(made_up), device_constants("a100"))
            for name, profiles in profiled_devices(read_profiles(folder)).items():
                _print_fit(name, profiles)
    except UserError as error:
        parser.error(str(error))


def _print_fit(name: str, profiles: Sequence[Profile]) -> None:
    committed = device_constants(name)
    fitted = fit_device(profiles, committed)
    print(f"{name}: {', '.join(profile.model_name for profile in profiles)}")
    _print_constants(committed, fitted)
    old = error_table(profiles, committed)
    print(f"    {'relative error [%]':24}{'points':>8}{'median':>8}{'p90':>8}{'bias':>8}")
    for operator, errors in error_table(profiles, fitted).items():
        size = 100.0 * np.abs(errors)
        print(
            f"    {operator:24}{len(errors):8d}{np.median(size):8.1f}"
            f"{np.percentile(size, 90):8.1f}{100.0 * errors.mean():8.1f}"
            f"   (committed: median {100.0 * np.median(np.abs(old[operator])):.1f})"
        )


if __name__ == "__main__":
    main()
