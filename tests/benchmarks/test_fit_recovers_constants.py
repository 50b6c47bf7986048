"""The fit, on profiles made from known constants."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import fit_predictor as fit
import numpy as np
import pandas as pd
import pytest
from kernel_profiles import read_profiles, write_profiles

from ppo_scheduler.errors import UserError
from vidur_ext.execution_time.devices import DATA_SHEETS, device_constants

TRUE_DEVICE = replace(
    device_constants("a100"),
    gemm=replace(device_constants("a100").gemm, tflops=180.0, gb_s=1400.0, launch_ms=0.008),
    norm=replace(device_constants("a100").norm, gb_s=500.0, launch_ms=0.004),
    attention=replace(device_constants("a100").attention, decode_gb_s=1300.0, prefill_tflops=150.0),
)


def test_known_constants_are_found_again(tmp_path: Path) -> None:
    profiles = read_profiles(write_profiles(tmp_path, TRUE_DEVICE))
    fitted = fit.fit_device(profiles, device_constants("a100"))
    assert astuple(fitted.norm) == pytest.approx(astuple(TRUE_DEVICE.norm), rel=0.01)
    assert fitted.gemm.tflops == pytest.approx(180.0, rel=0.02)
    assert fitted.gemm.gb_s == pytest.approx(1400.0, rel=0.02)
    assert fitted.attention.decode_gb_s == pytest.approx(1300.0, rel=0.01)
    assert fitted.attention.prefill_tflops == pytest.approx(150.0, rel=0.01)
    for operator, errors in fit.error_table(profiles, fitted).items():
        assert np.median(np.abs(errors)) < 0.01, operator


def test_errors_are_relative_and_signed(tmp_path: Path) -> None:
    profiles = read_profiles(write_profiles(tmp_path, TRUE_DEVICE))
    doubled = replace(
        TRUE_DEVICE,
        rope=replace(
            TRUE_DEVICE.rope,
            gb_s=TRUE_DEVICE.rope.gb_s / 2.0,
            launch_ms=TRUE_DEVICE.rope.launch_ms * 2.0,
        ),
    )
    errors = fit.error_table(profiles, doubled)
    assert errors["rope"] == pytest.approx(1.0)
    assert errors["gemm"] == pytest.approx(0.0, abs=1e-9)


def test_a_fitted_rate_never_exceeds_the_data_sheet(tmp_path: Path) -> None:
    impossible = replace(TRUE_DEVICE, gemm=replace(TRUE_DEVICE.gemm, gb_s=9000.0))
    profiles = read_profiles(write_profiles(tmp_path, impossible))
    fitted = fit.fit_device(profiles, device_constants("a100"))
    assert fitted.gemm.gb_s <= DATA_SHEETS["a100"].memory_gb_s


def test_the_command_prints_constants_and_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.main(["--profiles", str(write_profiles(tmp_path, TRUE_DEVICE))])
    printed = capsys.readouterr().out
    assert "gemm=GemmConstants(tflops=180" in printed
    assert "attention_prefill" in printed
    assert "committed: median" in printed


def test_the_command_ends_with_status_2_for_a_folder_without_profiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        fit.main(["--profiles", str(tmp_path)])
    assert stopped.value.code == 2
    assert "holds no profile" in capsys.readouterr().err


def test_unusable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no profile"):
        read_profiles(tmp_path)
    write_profiles(tmp_path, TRUE_DEVICE)
    (tmp_path / "a100_made-up_model_mlp.csv").rename(tmp_path / "v100_other_mlp.csv")
    with pytest.raises(UserError, match="no data sheet of the profiled device 'v100'"):
        fit.profiled_devices(read_profiles(tmp_path))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write_profiles(tmp_path, TRUE_DEVICE) / "a100_made-up_model_mlp.csv"
    pd.read_csv(path).drop(columns="time_stats.add.median").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"lacks the column 'time_stats\.add\.median'"):
        fit.error_table(read_profiles(tmp_path), TRUE_DEVICE)
