"""What the fidelity benchmark reads, fits and leaves out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fidelity import made_up_rows, run_figures
from real_runs import read_run, reason_to_leave_out, simulated
from steady_state import (
    HostTimes,
    Row,
    fit_host_times,
    fits_in_memory,
    halves,
    least_tpot_ms,
    load_of,
    predict,
    read_rows,
    steady_tpot_ms,
)

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig

ROW = Row("llama_3_1_8b_bf16_h100_vllm", "meta-llama/Llama-3.1-8B", "h100", 1024, 128, 32, 1, 12.5)
COLUMNS = (
    "backend,model_path,system,mode,isl,osl,gemm_quant_mode,batch_size,tp_size,pp_size,"
    "attention_dp_size,silicon_tpot_ms"
)
LINE = "vllm,meta-llama/Llama-3.1-8B-Instruct,h100_sxm,agg,1024,128,,32.0,1.0,1.0,,12.5"


class Server:
    """An engine whose iterations take 1 us per cached token and 1 ms per token of a prompt."""

    def iteration_time_s(
        self, num_decode: int, mean_decode_kv: float, prefill_chunks: list[tuple[int, int]]
    ) -> float:
        return num_decode * mean_decode_kv * 1e-6 + sum(chunk for _, chunk in prefill_chunks) * 1e-3


@pytest.mark.parametrize(
    ("output", "concurrency", "expected_ms"),
    [
        # 150 tokens of context each; four others end in 100 iterations, each behind a prompt.
        (100, 5, 5 * 0.150 + 4 / 100 * 100.0),
        # More others than iterations: each of those holds a prompt.
        (8, 64, 64 * 0.104 + 100.0),
    ],
)
def test_every_other_request_ends_once_while_one_decodes(
    output: int, concurrency: int, expected_ms: float
) -> None:
    row = replace(ROW, prompt=100, output=output, concurrency=concurrency)
    assert steady_tpot_ms(row, Server()) == pytest.approx(expected_ms)


def test_a_row_is_read_with_its_units() -> None:
    assert read_rows([COLUMNS, LINE]) == [ROW]


@pytest.mark.parametrize(
    ("cell", "instead"),
    [
        ("12.5", ""),
        ("32.0", ""),
        ("1.0,1.0", ",1.0"),
        ("agg", "disagg"),
        ("h100_sxm", "gb200"),
        ("meta-llama/Llama-3.1-8B-Instruct", "deepseek-ai/DeepSeek-R1"),
        ("128,,", "128,nvfp4,"),
        ("1.0,1.0,", "1.0,2.0,"),
        ("1.0,,12.5", "1.0,8.0,12.5"),
    ],
)
def test_a_row_that_lacks_a_number_or_is_of_another_kind_is_left_out(
    cell: str, instead: str
) -> None:
    changed = LINE.replace(cell, instead, 1)
    assert changed != LINE
    assert read_rows([COLUMNS, changed]) == []


def test_missing_parallelism_means_none() -> None:
    assert read_rows([COLUMNS, LINE.replace("1.0,1.0,,12.5", "1.0,,,12.5")]) == [ROW]


@pytest.mark.parametrize("kind", ["fp8", "fp8_block"])
def test_servers_with_other_weights_are_other_servers(kind: str) -> None:
    [row] = read_rows([COLUMNS, LINE.replace("128,,", f"128,{kind},")])
    assert row.server == f"llama_3_1_8b_{kind}_h100_vllm"
    assert row.roofline.model.weights == "fp8"


def test_all_loads_of_a_configuration_are_on_one_side_and_its_neighbours_on_the_other() -> None:
    rows = [
        replace(ROW, prompt=prompt, output=output, tensor_parallel=degree, concurrency=load)
        for prompt in (1024, 2048, 4096)
        for output in (128, 512)
        for degree in (1, 2)
        for load in (8, 64)
    ]
    side = dict(zip(rows, halves(rows), strict=True))
    for row, second in side.items():
        assert side[replace(row, concurrency=8)] == side[replace(row, concurrency=64)]
        assert side[replace(row, tensor_parallel=3 - row.tensor_parallel)] != second
        assert side[replace(row, output=640 - row.output)] != second
    assert sum(side.values()) == len(rows) // 2


def test_host_times_that_made_the_rows_are_found_again() -> None:
    found = fit_host_times(made_up_rows())
    assert found.iteration_overhead_ms == pytest.approx(0.5, abs=0.05)
    assert found.eager_iteration_ms == 20.0


def test_a_launch_that_is_never_waited_for_is_none() -> None:
    rows = [replace(ROW, prompt=8192, concurrency=load) for load in (4, 8)]
    times = predict(rows, HostTimes(2.0, 0.0))
    rows = [replace(row, tpot_ms=float(ms)) for row, ms in zip(rows, times, strict=True)]
    assert fit_host_times(rows).eager_iteration_ms == 0.0


def test_what_a_server_holds_is_counted_by_hand() -> None:
    load = load_of(replace(ROW, concurrency=2, prompt=1000, output=200))
    layer = 4096 * (4096 + 4096 + 1024 + 1024) + 3 * 4096 * 14336
    assert load.weights == 32 * layer
    assert load.weight_bytes == 2 * 32 * layer + 2 * 2 * 4096 * 128256
    # 2 requests of 1,100 tokens: keys and values of 8 heads, 128 wide, 2 bytes each, 32 layers.
    assert load.cache_bytes == 2 * 1100 * 2 * 8 * 128 * 2 * 32


def test_more_requests_than_fit_are_not_judged() -> None:
    # 80 GiB less a tenth and 16 GB of weights are 470,000 tokens.
    assert fits_in_memory(replace(ROW, prompt=4096, output=0, concurrency=100))
    assert not fits_in_memory(replace(ROW, prompt=4096, output=0, concurrency=120))
    assert fits_in_memory(replace(ROW, prompt=4096, output=0, concurrency=120, tensor_parallel=2))


def test_no_prediction_is_below_the_data_sheet() -> None:
    rows = [
        replace(ROW, prompt=prompt, concurrency=load, model=f"meta-llama/Llama-3.1-8B{weights}")
        for prompt in (128, 8192)
        for load in (2, 64)
        for weights in ("", "-FP8")
    ]
    least = np.array([least_tpot_ms(row) for row in rows])
    assert np.all(least < predict(rows, HostTimes(0.0, 0.0)))
    assert np.all(least > 2.0)


ENGINE = {
    "model": "meta-llama/Llama-3.1-8B",
    "tensor_parallel_size": 1,
    "data_parallel_size": 1,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
}


def write_run(folder: Path, name: str = "RTX4090_Llama", **engine: object) -> Path:
    """Write a run of 25 requests of 100 + 3 tokens, one every two seconds."""
    run = folder / name
    run.mkdir()
    meta = {"engine_kwargs": ENGINE | engine, "kv_cache": {"num_gpu_blocks": 2588}}
    (run / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    times = {"queued_ts": 7.0, "first_token_ts": 7.5, "last_token_ts": 8.0, "arrival_time": 1000.0}
    lines = [
        {key: 2.0 * number + moment for key, moment in times.items()}
        | {"input_toks": 100, "output_toks": 3}
        for number in range(25)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "requests.jsonl").write_text(text, encoding="utf-8")
    return run


def test_a_run_is_simulated_with_its_servers_settings(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path))
    cluster = TrainingConfig.model_validate(run.settings).cluster
    assert (cluster.device, cluster.network_device) == ("rtx_4090", "rtx_4090_pcie")
    assert (cluster.chunk_size, cluster.batch_size_cap, cluster.num_blocks) == (2048, 64, 2588)
    ttft, e2e = simulated(run)
    assert np.all((ttft > 0.0) & (ttft < 0.1))
    assert np.all((ttft < e2e) & (e2e < 0.2))


def test_errors_are_of_what_was_measured(tmp_path: Path) -> None:
    """Every request took 500 ms to its first token and 1 s in all."""
    run = read_run(write_run(tmp_path))
    ttft, e2e = simulated(run)
    figures = run_figures(tmp_path, None)
    assert figures["ttft_bias_RTX4090_Llama"] == pytest.approx(100 * np.median(ttft / 0.5 - 1))
    assert figures["e2e_median_error"] == pytest.approx(100 * np.median(1 - e2e / 1.0))


def test_what_is_not_known_leaves_a_run_out_by_name(tmp_path: Path) -> None:
    run = write_run(tmp_path, "RTX4090_DeepSeek", model="deepseek-ai/DeepSeek-R1")
    assert "DeepSeek-R1" in str(reason_to_leave_out(run))
    assert "TPUv5" in str(reason_to_leave_out(write_run(tmp_path, "TPUv5_Llama")))
    assert reason_to_leave_out(write_run(tmp_path)) is None


def test_replicas_that_share_experts_are_not_judged_with_the_others(tmp_path: Path) -> None:
    write_run(tmp_path)
    shared = write_run(tmp_path, "RTX4090_shared", data_parallel_size=2)
    assert read_run(shared).settings["cluster"]["num_replicas"] == 2
    figures = run_figures(tmp_path, None)
    assert figures["ttft_median_error"] == figures["ttft_median_error_RTX4090_Llama"]
    assert "e2e_median_error_RTX4090_shared" in figures


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"name one that holds|holds no run"):
            run_figures(folder, None)


def test_a_run_without_settings_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "meta.json").write_text('{"engine_kwargs": {"model": "x"}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"meta\.json: engine_kwargs must hold"):
        reason_to_leave_out(run)
