"""The temperature falls under pressure, rises at imbalance, and pulses when learning stalls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import TemperatureSection
from ppo_scheduler.control.temperature import TemperatureController
from ppo_scheduler.state import StateDict

NAN = float("nan")
CALM = {"qps": 24.0, "latency_s": 10.0, "balance": 1.0, "reward": 0.0}
"""At the targets of ``controller``: no pressure, no imbalance."""

KEYS = {
    "enabled": True,
    "base_temperature": 1.0,
    "min_temperature": 0.5,
    "max_temperature": 1.5,
    "target_qps": 24.0,
    "target_latency_s": 10.0,
    "qps_sensitivity": 0.1,
    "latency_sensitivity": 0.1,
    "balance_weight": 0.1,
    "ema_alpha": 0.1,
    "pulse_magnitude": 0.0,
    "stagnation_threshold": 0.01,
}


def controller(**keys: Any) -> TemperatureController:
    return TemperatureController(TemperatureSection(**{**KEYS, **keys}))


def after(steps: int, made: TemperatureController, **inputs: float) -> float:
    return [made.update(**{**CALM, **inputs}) for _ in range(steps)][-1]


def pulsed_steps(rewards: list[float], **keys: Any) -> list[int]:
    made = controller(**{"pulse_magnitude": 0.5, "pulse_steps": 1, "stagnation_window": 4, **keys})
    pulsed = []
    for step, reward in enumerate(rewards):
        made.update(**{**CALM, "reward": reward})
        if made.pulse_active:
            pulsed.append(step)
    return pulsed


def test_formula_after_two_steps() -> None:
    made = controller(ema_alpha=0.5, qps_sensitivity=0.2, latency_sensitivity=0.3)
    made.update(qps=36.0, latency_s=15.0, balance=1.0, reward=0.0)  # qp 0.5, lp 0.5
    temperature = made.update(qps=30.0, latency_s=10.0, balance=0.5, reward=0.0)  # qp 0.25, lp 0
    qps_ema, latency_ema = 0.5 * 0.25 + 0.5 * 0.25, 0.5 * 0.25
    expected = 1.0 - 0.2 * qps_ema - 0.3 * latency_ema + 0.1 * 0.5
    assert temperature == pytest.approx(expected)
    assert made.current_temperature == temperature


@pytest.mark.shows("temperature_control.enabled")
def test_enabled_false_keeps_the_base_for_ever() -> None:
    made = controller(enabled=False, base_temperature=0.9, pulse_magnitude=0.5, stagnation_window=2)
    assert {after(1, made, qps=1e3, latency_s=1e3, balance=0.0) for _ in range(20)} == {0.9}
    assert made.pulses == 0


@pytest.mark.shows("temperature_control.base_temperature")
def test_base_temperature_holds_without_pressure() -> None:
    for base in (0.8, 1.0, 1.2):
        made = controller(base_temperature=base)
        assert made.current_temperature == base
        assert after(50, made) == base


@pytest.mark.shows("temperature_control.min_temperature")
def test_min_temperature_is_the_floor_under_any_pressure() -> None:
    for floor in (0.5, 0.7):
        assert after(100, controller(min_temperature=floor), qps=1e4, latency_s=1e4) == floor


@pytest.mark.shows("temperature_control.max_temperature")
def test_max_temperature_is_the_ceiling_and_twice_it_that_of_pulses() -> None:
    for ceiling in (1.1, 1.5):
        made = controller(max_temperature=ceiling, balance_weight=5.0)
        assert after(1, made, balance=0.0) == ceiling
        pulsing = controller(max_temperature=ceiling, pulse_magnitude=9.0, stagnation_window=2)
        assert after(4, pulsing) == 2 * ceiling


@pytest.mark.shows("temperature_control.target_qps")
def test_target_qps_is_where_rate_pressure_is_zero() -> None:
    for target in (5.0, 50.0):
        assert after(20, controller(target_qps=target), qps=target) == 1.0
        assert after(20, controller(target_qps=target), qps=1.5 * target) < 1.0
        assert after(20, controller(target_qps=target), qps=0.5 * target) > 1.0


@pytest.mark.shows("temperature_control.target_latency_s")
def test_target_latency_s_is_where_latency_pressure_begins() -> None:
    for target in (2.0, 20.0):
        assert after(20, controller(target_latency_s=target), latency_s=target) == 1.0
        assert after(20, controller(target_latency_s=target), latency_s=0.1 * target) == 1.0
        assert after(20, controller(target_latency_s=target), latency_s=1.5 * target) < 1.0


@pytest.mark.shows("temperature_control.qps_sensitivity")
def test_qps_sensitivity_scales_the_drop() -> None:
    drops = [1.0 - after(20, controller(qps_sensitivity=s), qps=30.0) for s in (0.0, 0.1, 0.2)]
    assert drops[0] == 0.0
    assert drops[2] == pytest.approx(2 * drops[1])


@pytest.mark.shows("temperature_control.latency_sensitivity")
def test_latency_sensitivity_scales_the_drop() -> None:
    drops = [
        1.0 - after(20, controller(latency_sensitivity=s), latency_s=20.0) for s in (0.0, 0.1, 0.2)
    ]
    assert drops[0] == 0.0
    assert drops[2] == pytest.approx(2 * drops[1])


@pytest.mark.shows("temperature_control.balance_weight")
def test_balance_weight_is_the_rise_at_complete_imbalance() -> None:
    for weight in (0.0, 0.1, 0.3):
        assert after(1, controller(balance_weight=weight), balance=0.0) == pytest.approx(1 + weight)


@pytest.mark.shows("temperature_control.ema_alpha")
def test_ema_alpha_sets_how_fast_pressure_is_felt() -> None:
    slow, fast = (after(3, controller(ema_alpha=a), qps=48.0) for a in (0.1, 0.9))
    assert fast < slow < 1.0
    assert after(1, controller(ema_alpha=1.0), qps=48.0) == pytest.approx(0.9)


def test_unknown_latency_leaves_the_latency_pressure_as_it_is() -> None:
    fresh = controller()
    assert after(10, fresh, latency_s=NAN) == 1.0
    pressed = controller()
    before = after(10, pressed, latency_s=30.0)
    assert after(5, pressed, latency_s=NAN) == before


def test_input_that_is_not_finite_is_a_bug() -> None:
    for name in ("qps", "balance", "reward"):
        with pytest.raises(AssertionError):
            controller().update(**{**CALM, name: NAN})


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e4),
            st.one_of(st.just(NAN), st.floats(0, 1e4)),
            st.floats(0, 1),
            st.floats(-1e6, 1e6),
        ),
        max_size=60,
    )
)
def test_temperature_never_leaves_its_clamps(stream: list[tuple[float, ...]]) -> None:
    made = controller(pulse_magnitude=3.0, pulse_steps=3, stagnation_window=4)
    for qps, latency, balance, reward in stream:
        temperature = made.update(qps, latency, balance, reward)
        assert 0.5 <= temperature <= (3.0 if made.pulse_active else 1.5)


@pytest.mark.shows("temperature_control.pulse_magnitude")
def test_pulse_magnitude_is_the_height_relative_to_the_base() -> None:
    for magnitude in (0.25, 0.5):
        made = controller(base_temperature=1.2, pulse_magnitude=magnitude, stagnation_window=2)
        assert after(3, made) == 1.2
        assert after(1, made) == pytest.approx(1.2 + 1.2 * magnitude)
        assert made.pulses == 1
    assert pulsed_steps([0.0] * 40, pulse_magnitude=0.0) == []


@pytest.mark.shows("temperature_control.pulse_steps")
def test_pulse_steps_is_the_length_of_a_pulse() -> None:
    for steps in (1, 3):
        assert pulsed_steps([0.0] * 11, pulse_steps=steps) == list(range(7, 7 + steps))


@pytest.mark.shows("temperature_control.stagnation_window")
def test_stagnation_window_sets_when_a_pulse_can_come() -> None:
    """A pulse needs two full windows: one to be compared and one to be compared with."""
    for window in (2, 5):
        pulsed = pulsed_steps([1.0] * (4 * window - 1), stagnation_window=window)
        assert pulsed == [2 * window - 1, 3 * window - 1]


@pytest.mark.shows("temperature_control.stagnation_threshold")
def test_stagnation_threshold_is_the_rise_that_counts_as_progress() -> None:
    rising = [-10.0] * 4 + [-9.5] * 4  # by 5 % of the older mean's size
    assert pulsed_steps(rising, stagnation_threshold=0.01) == []
    assert pulsed_steps(rising, stagnation_threshold=0.1) == [7]


def test_falling_rewards_are_no_progress_at_any_threshold() -> None:
    assert pulsed_steps([-10.0] * 4 + [-11.0] * 4, stagnation_threshold=0.0) == [7]


def test_progress_is_over_the_window_before_not_over_the_first() -> None:
    assert pulsed_steps([1.0] * 4 + [2.0] * 4 + [2.0] * 4) == [11]


def test_progress_is_of_window_means_not_of_single_rewards() -> None:
    assert pulsed_steps([0.0, 0.0, 8.0, 0.0] + [3.0] * 4) == []


def test_a_pulse_ends_where_it_began() -> None:
    made = controller(pulse_magnitude=0.5, pulse_steps=2, stagnation_window=4)
    temperatures = [after(1, made) for _ in range(11)]
    assert temperatures == [1.0] * 7 + [1.5, 1.5] + [1.0] * 2


@given(before=st.integers(0, 30), seed=st.integers(0, 100))
def test_control_continues_from_a_file_bit_by_bit(
    before: int, seed: int, through_file: Callable[[StateDict], StateDict]
) -> None:
    original, restored = (
        controller(pulse_magnitude=0.5, pulse_steps=3, stagnation_window=4) for _ in range(2)
    )

    def step(made: TemperatureController, number: int) -> float:
        return made.update(
            qps=20.0 + (seed * number) % 17 / 3,
            latency_s=NAN if number % 5 == 0 else 8.0 + (seed + number) % 7 / 3,
            balance=(number % 4) / 4,
            reward=-float((seed * number) % 11) / 7,
        )

    for number in range(before):
        step(original, number)
    restored.load_state_dict(through_file(original.state_dict()))
    assert restored.state_dict() == original.state_dict()
    for number in range(before, before + 30):
        assert step(original, number) == step(restored, number)
        assert original.pulse_active == restored.pulse_active
    assert restored.state_dict() == original.state_dict()


def test_state_has_what_a_checkpoint_reader_looks_for() -> None:
    made = controller(pulse_magnitude=0.5, pulse_steps=9, stagnation_window=4)
    after(9, made)
    state = made.state_dict()
    assert state["current_temperature"] == 1.5
    assert (state["step_count"], state["last_pulse_step"]) == (9, 8)
    assert (state["pulse_active"], state["pulse_remaining"], state["pulses"]) == (True, 7, 1)
    assert {"qps_ema", "latency_ema", "stagnation"} < set(state)


def test_switching_the_controller_off_on_resume_returns_to_the_base() -> None:
    pressed = controller()
    after(50, pressed, qps=100.0)
    off = controller(enabled=False)
    off.load_state_dict(pressed.state_dict())
    assert after(1, off) == 1.0
