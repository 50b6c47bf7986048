"""``vidur-ppo calibrate`` as an operator runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vidur_ext import cli
from vidur_ext.config.loading import load_config
from vidur_ext.execution_time.devices import Device, device_named
from vidur_ext.vidur.engine_inputs import engine_cluster

Outcome = tuple[int, str, str]


def written(name: str = "own.json") -> Device:
    """Return the device of a file in the working directory; devices are known by their paths."""
    return device_named(str(Path(name).absolute()))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run the command in an empty folder; return (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def command(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vidur-ppo", "calibrate", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return command


@pytest.fixture
def steps(server, write_csv) -> Path:
    """Iterations of a server that is slower than its device."""
    measured = server().iterations()
    columns = (
        measured.decodes,
        measured.prefill_tokens,
        measured.mean_kv,
        measured.step_s * 1e3,
    )
    header = ["decode_requests", "prefill_tokens", "kv_tokens_mean", "step_ms"]
    rows = [
        (int(decodes), int(prompt), kv, ms)
        for decodes, prompt, kv, ms in zip(*columns, strict=True)
    ]
    return write_csv(header, rows, "steps.csv")


@pytest.fixture
def log(server, write_csv) -> Path:
    """Requests to that server."""
    measured = server().requests()
    table = measured.table
    columns = (
        table.arrived_at,
        table.prefill_tokens,
        table.decode_tokens,
        measured.ttft_s,
        measured.e2e_s,
    )
    header = ["arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "e2e_s"]
    return write_csv(header, list(zip(*columns, strict=True)), "log.csv")


def test_the_file_is_a_device_that_a_config_takes(run, steps, log, truth) -> None:
    own = Path("own.json").absolute()
    status, out, err = run(steps, log, "--output", own)
    assert (status, err) == (0, "")
    assert "log.csv: 300 requests in " in out
    assert "200 iterations" in out
    assert out.splitlines()[-1] == (
        f"use it with --set cluster.device={own} --set cluster.network_device=a100_dgx"
    )
    device = written()
    for name, value in truth.items():
        assert getattr(device, name) == pytest.approx(value, rel=0.1), name
    slower, usual = (
        engine_cluster(load_config(None, [f"cluster.device={name}"])) for name in (own, "a100")
    )
    assert slower.estimates.base.sum() > 1.1 * usual.estimates.base.sum()


def test_what_is_printed_is_json_for_programs(run, steps) -> None:
    status, out, _ = run(steps, "--output", "own.json", "--json")
    document = json.loads(out)
    assert (status, document["improves"]) == (0, True)
    assert document["constants"]["gemm_factor"]["before"] == 1.0
    assert document["constants"]["gemm_factor"]["after"] == pytest.approx(1.3, rel=0.01)
    assert document["left_as_they_are"] == {}
    [row] = document["held_out"]
    assert (row["time"], row["rows"]) == ("step", 40)
    assert row["after"]["median"] < 0.01 < row["before"]["median"]


def test_another_device_stands_in_its_usual_node_unless_told_otherwise(run, steps) -> None:
    _, out, _ = run(steps, "--output", "own.json", "--device", "h100")
    assert out.rstrip().endswith("cluster.network_device=h100_dgx")
    assert written().measured == "h100"
    _, out, _ = run(
        steps, "--output", "two.json", "--device", "h100",
        "--set", "cluster.network_device=h100_pairwise_nvlink",
    )  # fmt: skip
    assert out.rstrip().endswith("cluster.network_device=h100_pairwise_nvlink")
    assert written("two.json").node == "h100_pairwise_nvlink"


def test_errors_that_did_not_become_smaller_write_nothing_without_force(
    run, server, write_csv, tmp_path
) -> None:
    """Every fifth row, which judges, is of the device as it is; the others of a slower one."""
    measured = server().iterations()
    usual = server().iterations(gemm_factor=1.0, attention_factor=1.0, iteration_overhead_ms=1.0)
    rows = [
        (
            int(measured.decodes[row]),
            int(measured.prefill_tokens[row]),
            measured.mean_kv[row],
            1e3 * (usual if measured.held_out[row] else measured).step_s[row],
        )
        for row in range(len(measured))
    ]
    header = ["decode_requests", "prefill_tokens", "kv_tokens_mean", "step_ms"]
    path = write_csv(header, rows)
    status, out, err = run(path, "--output", "own.json")
    assert status == 2
    assert "held out" in out
    assert "use it with" not in out
    assert "errors on held-out rows are not smaller, so nothing was written" in err
    assert not (tmp_path / "own.json").exists()
    status, out, _ = run(path, "--output", "own.json", "--force")
    assert status == 0
    assert written().gemm_factor == pytest.approx(1.3, rel=0.01)


def test_what_another_cluster_did_is_told_apart(run, log) -> None:
    """A batch of two requests makes them wait that did not."""
    shut = ("--set", "cluster.batch_size_cap=2", "--force")
    _, out, _ = run(log, "--output", "own.json", *shut)
    assert "warning: this is not the replica that was measured; check the model" in out
    _, out, _ = run(log, "--output", "two.json")
    assert "warning" not in out


def test_a_file_that_is_there_is_replaced_only_when_told(run, steps, tmp_path) -> None:
    (tmp_path / "own.json").write_text("mine", encoding="utf-8")
    status, _, err = run(steps, "--output", "own.json")
    assert (status, (tmp_path / "own.json").read_text(encoding="utf-8")) == (2, "mine")
    assert "own.json: there is such a file; choose another name, or say --overwrite" in err
    assert run(steps, "--output", "own.json", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "own.json").read_text(encoding="utf-8"))["measured"] == "a100"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("own.txt", "a device file's name ends in .json"),
        ("none/own.json", "there is no folder none; make it first"),
    ],
)
def test_an_output_that_could_not_be_used_is_refused_first(run, steps, output, said) -> None:
    status, _, err = run(steps, "--output", output)
    assert status == 2
    assert said in err


def test_malformed_files_are_named_and_nothing_is_written(run, write_csv, tmp_path) -> None:
    header = ["decode_requests", "prefill_tokens", "kv_tokens_mean", "step_ms"]
    bad = write_csv(header, [[4, 0, 500, "nan"]])
    status, out, err = run(bad, "--output", "own.json")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "measured.csv, line 2, column step_ms: expected a time in ms above 0, found nan" in err
    assert not (tmp_path / "own.json").exists()
    status, _, err = run("none.csv", "--output", "own.json")
    assert status == 2
    assert "none.csv" in err
    assert "does not exist" in err
