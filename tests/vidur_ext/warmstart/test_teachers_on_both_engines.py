"""Teachers choose and show the same on either engine, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.warmstart.teachers import (
    DemonstrationJob,
    collect_demonstrations,
    demonstrate,
    demonstrate_together,
    demonstration_jobs,
)

TEACHERS = [
    "least_outstanding", "power_of_two", "least_tokens", "least_kv", "vllm_dp",
    "min_predicted_latency",
]  # fmt: skip
WARMSTART = {
    "method": "imitation",
    "teachers": TEACHERS,
    "load_levels": [0.5, 3.0],
    "demo_requests": 48,
}


@pytest.fixture
def jobs(make_config):
    """Return the jobs of a config with all teachers at a low and a high load."""

    def build(**groups: dict[str, object]) -> list[DemonstrationJob]:
        warmstart = {**WARMSTART, **groups.pop("warmstart", {})}
        config = make_config(warmstart=warmstart, **groups)
        return demonstration_jobs(config)

    return build


def assert_same(ours, theirs) -> None:
    assert ours.teachers == theirs.teachers
    np.testing.assert_array_equal(ours.action, theirs.action)
    np.testing.assert_array_equal(ours.load_level, theirs.load_level)
    np.testing.assert_allclose(ours.replicas, theirs.replicas, rtol=1e-9)
    np.testing.assert_allclose(ours.context, theirs.context, rtol=1e-9)
    assert (ours.replicas.dtype, ours.context.dtype) == (np.float32, np.float32)


def test_both_engines_demonstrate_the_same(jobs):
    every = jobs()
    together = demonstrate_together(every)
    assert [part.teachers[0] for part in together[::2]] == TEACHERS
    for job, part in zip(every, together, strict=True):
        assert_same(part, demonstrate(job))


def test_an_oracle_and_other_observations_too(jobs):
    every = jobs(
        warmstart={"teachers": ["oracle_work"]},
        observation={"output_length": "oracle", "queue_slots": 2, "history": False},
    )
    for job, part in zip(every, demonstrate_together(every), strict=True):
        assert_same(part, demonstrate(job))


def test_a_seed_beyond_vidurs_breaks_ties_alike(jobs):
    """Vidur's seeds have 32 bits; a training's may have more."""
    [job] = jobs(
        training={"seed": 2**40 + 7},
        warmstart={"teachers": ["power_of_two"], "load_levels": [0.5]},
    )
    [part] = demonstrate_together([job])
    assert_same(part, demonstrate(job))


def test_every_job_breaks_ties_by_a_stream_of_its_own(jobs):
    draws = [job.tie_breaker().integers(2**32, size=4).tolist() for job in jobs()]
    assert len({tuple(draw) for draw in draws}) == len(draws)
    assert draws == [job.tie_breaker().integers(2**32, size=4).tolist() for job in jobs()]


def test_the_engine_of_the_config_collects(make_config):
    told: list[str] = []
    collected = [
        collect_demonstrations(
            make_config(
                simulation={"engine": engine},
                warmstart={
                    "method": "imitation",
                    "teachers": ["vllm_dp", "least_kv"],
                    "demo_requests": 20,
                },
            ),
            told.append,
        )
        for engine in ("vidur", "compiled")
    ]
    np.testing.assert_array_equal(collected[0].action, collected[1].action)
    np.testing.assert_array_equal(collected[0].teacher, collected[1].teacher)
    assert told == 2 * [
        "20 demonstrations of vllm_dp at load 1",
        "20 demonstrations of least_kv at load 1",
    ]


def test_a_request_that_can_never_be_served_is_named(make_config):
    """Vidur ends in an assertion: that there is a name shows that the compiled engine collects."""
    config = make_config(
        cluster={"replica_scheduler": "vllm", "max_tokens_in_batch": 64},
        warmstart={"method": "imitation", "teachers": ["vllm_dp"]},
    )
    with pytest.raises(UserError, match=r"request \d+ can never be served: its \d+ prompt tokens"):
        collect_demonstrations(config, lambda line: None)
