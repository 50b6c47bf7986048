"""A heuristic's ties are broken by the stream it is given, else by that of Vidur's seed."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.seeding import Purpose, generator

SEED = 5


@pytest.fixture
def route(make_case, vidur_config, small_table, compiled):
    """Return the routing of a heuristic whose every decision is a tie or a draw."""
    case = make_case({"num_replicas": 4}, "power_of_two", 300, SEED, small_table)
    config = vidur_config(case)

    def run(rng: np.random.Generator | None = None) -> list[int]:
        simulation = compiled(config, small_table, rng=rng)
        simulation.run()
        return simulation.routing.tolist()

    return run


def test_the_seeds_own_stream_is_the_usual_one(route):
    assert route(generator(SEED, Purpose.SCHEDULER)) == route()


def test_another_stream_breaks_them_otherwise_and_again_alike(route):
    streams = [generator(SEED, Purpose.SCHEDULER, episode=3, environment=1) for _ in range(2)]
    first, second = (route(stream) for stream in streams)
    assert first == second != route()
