"""The network's symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import ArchitectureSection
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.ppo.objective import draw, entropy, kl_divergence, log_probabilities


def network(**keys: object) -> ActorCritic:
    section = ArchitectureSection.model_validate({"hidden_size": 16, "attention_layers": 1, **keys})
    built = ActorCritic(5, 3, section)
    built.initialize(torch.Generator().manual_seed(0), section.orthogonal_init)
    return built


def features(replicas: int, batch: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, replicas, 5, generator=generator),
        torch.randn(batch, 3, generator=generator),
    )


@settings(deadline=None)
@given(replicas=st.integers(1, 12), seed=st.integers(0, 1000))
def test_permuting_replicas_permutes_logits_and_keeps_the_value(replicas, seed):
    built = network()
    states, context = features(replicas)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(replicas))
    logits, value = built(states, context)
    permuted_logits, permuted_value = built(states[:, order], context)
    torch.testing.assert_close(permuted_logits, logits[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(permuted_value, value, rtol=1e-4, atol=1e-5)


def test_values_differ_within_a_batch():
    _, value = network()(*features(3, batch=8))
    assert len(torch.unique(value)) == 8


def test_a_batch_is_evaluated_row_by_row():
    built = network()
    states, context = features(3)
    logits, value = built(states, context)
    alone_logits, alone_value = built(states[1:2], context[1:2])
    torch.testing.assert_close(alone_logits, logits[1:2])
    torch.testing.assert_close(alone_value, value[1:2])


def test_logits_are_not_squeezed_into_a_range():
    built = network()
    with torch.no_grad():
        built.actor_head.weight.mul_(1e4)
    logits, _ = built(*features(4))
    assert logits.abs().max() > 100.0


@pytest.mark.shows(
    "actor_critic_architecture.hidden_size",
    "actor_critic_architecture.encoder_layers",
    "actor_critic_architecture.attention_layers",
    "actor_critic_architecture.attention_heads",
    "actor_critic_architecture.activation",
    "actor_critic_architecture.orthogonal_init",
)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 32),
        ("encoder_layers", 3),
        ("attention_layers", 0),
        ("attention_heads", 2),
        ("activation", "tanh"),
        ("orthogonal_init", False),
    ],
)
def test_every_architecture_key_changes_the_outputs(key, value):
    states, context = features(3)
    before, _ = network()(states, context)
    after, _ = network(**{key: value})(states, context)
    assert not torch.allclose(before, after)


def test_without_attention_a_replica_is_scored_by_itself():
    built = network(attention_layers=0)
    states, context = features(3)
    changed = states.clone()
    changed[:, 2] += 1.0
    logits, _ = built(states, context)
    changed_logits, _ = built(changed, context)
    torch.testing.assert_close(changed_logits[:, :2], logits[:, :2])


def test_with_attention_replicas_see_each_other():
    built = network(attention_layers=1)
    states, context = features(3)
    changed = states.clone()
    changed[:, 2] += 1.0
    assert not torch.allclose(built(changed, context)[0][:, :2], built(states, context)[0][:, :2])


def test_actions_are_drawn_by_inverting_the_cumulative_distribution():
    """By hand: probabilities 0.2, 0.5 and 0.3 end at 0.2, 0.7 and 1."""
    logits = np.log(np.tile(np.array([0.2, 0.5, 0.3], np.float32), (6, 1)))
    uniform = np.array([0.0, 0.19, 0.21, 0.69, 0.71, 1.0 - 2**-53])
    actions, chosen = draw(logits, np.ones(6), uniform)
    assert actions.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(np.exp(chosen), [0.2, 0.2, 0.5, 0.5, 0.3, 0.3], rtol=1e-6)


def test_what_is_drawn_follows_the_distribution_at_its_temperature():
    logits = np.tile(np.array([0.0, 1.0, 2.0], np.float32), (20_000, 1))
    temperature = np.full(len(logits), 2.0)
    actions, chosen = draw(logits, temperature, np.random.default_rng(0).random(len(logits)))
    table = log_probabilities(torch.from_numpy(logits[:1]), torch.tensor([2.0]))[0].numpy()
    shares = np.bincount(actions, minlength=3) / len(actions)
    np.testing.assert_allclose(shares, np.exp(table), atol=0.02)
    np.testing.assert_allclose(chosen, table[actions], rtol=1e-6)


@pytest.mark.parametrize("possible", range(3))
def test_impossible_actions_are_never_drawn(possible):
    logits = np.full((500, 3), -np.inf, np.float32)
    logits[:, possible] = 7.0
    uniform = np.random.default_rng(0).random(500)
    uniform[0], uniform[-1] = 0.0, 1.0 - 2**-53
    actions, chosen = draw(logits, np.ones(500), uniform)
    assert (actions == possible).all()
    assert (chosen == 0.0).all()


def test_temperature_flattens_and_sharpens():
    logits = torch.tensor([[0.0, 1.0, 2.0]] * 3)
    table = log_probabilities(logits, torch.tensor([0.5, 1.0, 2.0]))
    cold, plain, hot = entropy(table)
    assert cold < plain < hot


def test_kl_is_zero_only_between_equal_distributions():
    one = torch.ones(1)
    first = log_probabilities(torch.tensor([[0.0, 1.0]]), one)
    second = log_probabilities(torch.tensor([[1.0, 0.0]]), one)
    assert kl_divergence(first, first).item() == 0.0
    assert kl_divergence(first, second).item() > 0.0
