"""Constants with which measurements were made are found again, as far as these determine them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.calibration.calibrate import calibrate
from vidur_ext.calibration.judging import Errors
from vidur_ext.calibration.replica import Replica

STEPS = ("gemm_factor", "attention_factor", "iteration_overhead_ms")


def test_iterations_give_back_what_adds_to_them(server, truth) -> None:
    found = calibrate(server().config, [server().iterations()])
    for name in STEPS:
        assert getattr(found.fit.device, name) == pytest.approx(truth[name], rel=0.01), name
    assert found.fit.device.request_overhead_ms == 0.0
    [step] = found.judgements
    assert (step.metric, step.rows) == ("step", 40)
    assert step.before.median > 0.1
    assert step.after.median < 0.002
    assert found.improves


def test_outliers_hardly_count(server, truth) -> None:
    measured = server().iterations()
    slow = measured.step_s * np.where(np.arange(len(measured)) % 11 == 0, 5.0, 1.0)
    found = calibrate(server().config, [replace(measured, step_s=slow)])
    assert found.fit.device.gemm_factor == pytest.approx(truth["gemm_factor"], rel=0.05)
    assert found.fit.device.attention_factor == pytest.approx(truth["attention_factor"], rel=0.1)


def test_with_tensor_parallelism_collectives_are_fitted_too(server, truth) -> None:
    two = server(tensor_parallel_size=2)
    found = calibrate(two.config, [two.iterations(collective_factor=1.5)])
    assert found.fit.device.collective_factor == pytest.approx(1.5, rel=0.05)
    assert found.fit.device.gemm_factor == pytest.approx(truth["gemm_factor"], rel=0.05)


def test_requests_give_back_what_requests_take(server, truth) -> None:
    found = calibrate(server().config, [server().requests()])
    device = found.fit.device
    # One request more or less in a batch makes errors of some percent: factors and overheads of
    # iterations make up for each other within that.
    assert device.gemm_factor == pytest.approx(truth["gemm_factor"], rel=0.1)
    assert device.iteration_overhead_ms == pytest.approx(truth["iteration_overhead_ms"], rel=0.3)
    assert device.request_overhead_ms == pytest.approx(truth["request_overhead_ms"], rel=0.3)
    errors = {one.metric: (one.before.median, one.after.median) for one in found.judgements}
    assert set(errors) == {"TTFT", "TPOT", "E2E"}
    for before, after in errors.values():
        assert before > 0.1
        assert after < 0.05


def test_requests_and_iterations_together_give_back_all(server, truth) -> None:
    measured = [server().iterations(), server().requests()]
    found = calibrate(server().config, measured)
    for name, value in truth.items():
        assert getattr(found.fit.device, name) == pytest.approx(value, rel=0.1), name
    assert [one.metric for one in found.judgements] == ["step", "TTFT", "TPOT", "E2E"]


def test_the_overhead_of_a_request_comes_before_both_its_tokens(server) -> None:
    measured = server().requests()
    replica = Replica(server().config, measured.longest)
    without, with_it = (
        replica.times(server().device(request_overhead_ms=ms), measured) for ms in (0.0, 50.0)
    )
    for name in ("TTFT", "E2E"):
        assert with_it[name] - without[name] == pytest.approx(0.05)
    assert with_it["TPOT"] == pytest.approx(without["TPOT"])


@pytest.mark.parametrize("eager_iteration_ms", [0.0, 40.0])
def test_iterations_take_what_the_model_says_of_each(server, eager_iteration_ms: float) -> None:
    two = server(tensor_parallel_size=2)
    constants = {"collective_factor": 1.5, "eager_iteration_ms": eager_iteration_ms}
    measured = two.iterations(count=25, **constants)
    replica = Replica(two.config, 8192)
    roofline = replace(replica._roofline, device=two.device(**constants))
    for row in range(len(measured)):
        prompt = int(measured.prefill_tokens[row])
        expected = roofline.iteration_time_s(
            int(measured.decodes[row]), measured.mean_kv[row], [(0, prompt)] if prompt else []
        )
        assert measured.step_s[row] == pytest.approx(expected, rel=1e-9)


def test_what_the_data_do_not_determine_is_left(server) -> None:
    """Batches of one kind tell one time, so two of three constants stay as they are."""
    measured = server().iterations()
    alike = replace(
        measured,
        decodes=np.full(len(measured), 8.0),
        mean_kv=np.full(len(measured), 200.0),
        prefill_tokens=np.zeros(len(measured)),
    )
    found = calibrate(server().config, [server().timed(alike)])
    assert len(found.fit.left) == 2
    for name in found.fit.left:
        assert getattr(found.fit.device, name) == getattr(found.start, name)
    assert found.judgements[0].after.median < 0.002


def test_data_that_determine_nothing_are_refused(server) -> None:
    measured = server().iterations(count=30)
    rng = np.random.default_rng(0)
    noise = np.exp(rng.normal(size=len(measured)) * 2.0)
    with pytest.raises(
        UserError, match=r"determine none of .*iteration_overhead_ms.*measure batch"
    ):
        calibrate(server().config, [replace(measured, step_s=measured.step_s * noise)])


@pytest.mark.parametrize(
    ("factor", "said"), [(1e-3, r"its median step is 1/\d+ of"), (1e3, r"its median step is 1\.")]
)
def test_a_unit_that_is_wrong_by_orders_of_magnitude_is_seen(server, factor, said) -> None:
    measured = server().iterations()
    with pytest.raises(UserError, match=said + r".*check that times are in ms"):
        calibrate(server().config, [replace(measured, step_s=measured.step_s * factor)])


def test_requests_in_milliseconds_are_seen(server) -> None:
    measured = server().requests()
    in_ms = replace(measured, ttft_s=measured.ttft_s * 1e3, e2e_s=measured.e2e_s * 1e3)
    with pytest.raises(UserError, match=r"its median TPOT is .* times .*are in seconds"):
        calibrate(server().config, [in_ms])


def test_held_out_rows_do_not_move_the_fit(server) -> None:
    for measured in (server().iterations(), server().requests()):
        spoiled = {
            name: np.where(measured.held_out, 1.5 * values, values)
            for name, values in vars(measured).items()
            if name in ("step_s", "ttft_s", "e2e_s")
        }
        fits = [
            calibrate(server().config, [one]).fit.device
            for one in (measured, replace(measured, **spoiled))
        ]
        assert fits[0] == fits[1]


def test_a_request_that_the_replica_cannot_hold_is_refused(server) -> None:
    measured = server().requests()
    with pytest.raises(UserError, match=r"KV blocks.*raise cluster\.num_blocks"):
        calibrate(server(num_blocks=100).config, [measured])


def test_errors_are_median_tail_and_bias() -> None:
    errors = Errors.of(np.log([0.9, 1.0, 1.1, 1.2, 1.3]))
    assert errors.median == pytest.approx(0.1)
    assert errors.p90 == pytest.approx(0.26)
    assert errors.bias == pytest.approx(0.1)
