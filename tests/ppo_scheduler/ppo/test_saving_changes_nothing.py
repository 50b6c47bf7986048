"""A training that is saved at every decision is the one that is never saved, and so are resumes.

The collapse guard intervenes here, from an update to the end of the rollout after it: whoever only
looks must not end that.
"""

from __future__ import annotations

import copy

import pytest

from ppo_scheduler.state import snapshot

STEPS = 260
GUARD = {"window": 16, "max_share": 0.4, "intervention_steps": 4, "entropy_boost": 0.3}


@pytest.fixture(params=["gae", "counterfactual"])
def new(request, make_learner):
    ppo = {"advantage": request.param, "minibatch_size": 16}
    return lambda: make_learner(collapse_guard=GUARD, ppo_config=ppo)


def bits(learner) -> dict[str, bytes]:
    network = learner.policy.network.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in network.items()}


def run(learner, task, steps: int) -> None:
    for _ in range(steps):
        task.step(learner)


def test_saved_at_every_decision_it_ends_with_the_same_bits(new, make_task, sink):
    never, always = new(), new()
    run(never, make_task(), STEPS)
    boosted = sink.series("Training/EntropyCoef")
    task = make_task()
    for _ in range(STEPS):
        task.step(always)
        always.state_dict()
    assert 0.3 in boosted, "the guard's boost reaches an update"
    assert bits(always) == bits(never)


def test_a_resume_inside_an_intervention_ends_with_the_same_bits(new, make_task):
    """One save in eleven, which meets every place of a rollout: eleven divides no power of 2."""
    straight, task = new(), make_task()
    saves = []
    for _ in range(STEPS):
        task.step(straight)
        state = straight.state_dict()
        if state["learner"]["guard"]["remaining"]:
            saves.append((snapshot(state), copy.deepcopy(task)))
    saves = saves[::11]
    assert len({state["rollout"]["buffer"]["filled"] for state, _ in saves}) > 5
    for state, world in saves:
        resumed = new()
        resumed.load_state_dict(state)
        run(resumed, world, STEPS - world.steps)
        assert bits(resumed) == bits(straight), f"resumed after {world.steps} decisions"
