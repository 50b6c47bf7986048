"""The compiled network is torch's, in values and gradients, to what 32 bits can tell."""

from __future__ import annotations

import copy

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from ppo_scheduler.config.learner_sections import ArchitectureSection, PPOSection
from ppo_scheduler.observation import ObservationSchema
from ppo_scheduler.policy.kernel import exp, lanes_of, scratch_for, tile_of
from ppo_scheduler.policy.network import ActorCritic
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.ppo.batches import Batch, PricedBatch, SampledBatch
from ppo_scheduler.ppo.objective import balance_loss, entropy, kl_divergence, log_probabilities

EXACT = torch.float64
NEAR = 1e-6
"""Of the largest number of a tensor."""


def pair(features: int, common: int, seed: int, **keys) -> tuple[ActorCritic, ActorCritic]:
    """Return a random network, compiled and as torch's in 64 bits."""
    section = ArchitectureSection.model_validate({"attention_heads": 1, **keys})
    fused = ActorCritic(features, common, section, "fused")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in fused.parameters():
            size = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 1.0
            weight.copy_(size * torch.randn(weight.shape, generator=generator))
    exact = ActorCritic(features, common, section, "torch")
    exact.load_state_dict(fused.state_dict())
    assert fused.is_fused
    assert not exact.is_fused
    return fused, exact.to(EXACT)


def assert_near(actual: Tensor, exact: Tensor) -> None:
    assert actual.dtype == torch.float32
    error = (actual.to(EXACT) - exact).abs().max()
    assert error <= NEAR * exact.abs().max(), (error, exact.abs().max())


def assert_gradients_near(fused: ActorCritic, exact: ActorCritic) -> None:
    """Within ``NEAR`` of the largest gradient of all: some sums cancel to almost nothing."""
    gradients = [
        (weight.grad, reference.grad)
        for weight, reference in zip(fused.parameters(), exact.parameters(), strict=True)
    ]
    known = [(actual, reference) for actual, reference in gradients if reference is not None]
    largest = max(float(reference.abs().max()) for _, reference in known)
    for actual, reference in known:
        assert (actual.to(EXACT) - reference).abs().max() <= NEAR * largest
    assert sum(actual is None for actual, _ in gradients) == len(gradients) - len(known)


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize(
    ("batch", "replicas", "features", "common", "width", "layers"),
    [
        (1, 4, 31, 14, 32, 2),  # one decision of the default network
        (1, 1, 5, 3, 4, 1),
        (2000, 4, 31, 14, 32, 2),
        (333, 5, 7, 2, 19, 2),  # nothing fills a vector or a tile
        (3, 300, 4, 3, 8, 1),  # one decision is more than a tile
        (0, 4, 5, 3, 8, 1),
    ],
)
def test_values_and_gradients_are_torchs(
    batch, replicas, features, common, width, layers, activation
):
    keys = {"hidden_size": width, "encoder_layers": layers, "activation": activation}
    fused, exact = pair(features, common, seed=batch + replicas, **keys)
    generator = torch.Generator().manual_seed(batch)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    seen = draw(batch, replicas, features), draw(batch, common)
    of_logits, of_values = draw(batch, replicas), draw(batch)
    outputs, references = fused(*seen), exact(*(part.to(EXACT) for part in seen))
    torch.autograd.backward(outputs, (of_logits, of_values))
    torch.autograd.backward(references, (of_logits.to(EXACT), of_values.to(EXACT)))
    if batch:
        for output, reference in zip(outputs, references, strict=True):
            assert_near(output.detach(), reference.detach())
    assert_gradients_near(fused, exact)


def priced(draw, batch: int, replicas: int, seen: tuple[Tensor, Tensor]) -> PricedBatch:
    behavior = torch.log_softmax(draw(batch, replicas), dim=-1)
    return PricedBatch(*seen, draw(batch).exp(), behavior, draw(batch, replicas))


def sampled(draw, batch: int, replicas: int, seen: tuple[Tensor, Tensor]) -> SampledBatch:
    action = draw(batch, replicas).argmax(dim=1)
    old = draw(batch) - 1.0
    return SampledBatch(
        *seen, draw(batch).exp(), action, old, draw(batch), draw(batch), draw(batch)
    )


def in_64_bits(batch: Batch) -> Batch:
    columns = {
        name: column.to(EXACT) if column.is_floating_point() else column
        for name, column in vars(batch).items()
    }
    return type(batch)(**columns)


@pytest.mark.parametrize("kind", [priced, sampled])
@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_a_whole_loss_are_torchs(kind, seed):
    """With random coefficients, among them those that are 0 by default."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    size, replicas = 700, 3 + seed
    batch = kind(draw, size, replicas, (draw(size, replicas, 9), draw(size, 4)))
    of_entropy, of_balance, of_kl, of_value = draw(4).abs().tolist()
    reference = torch.log_softmax(draw(size, replicas), dim=-1)
    section = PPOSection(value_coef=of_value)
    networks = pair(9, 4, seed, hidden_size=24)
    for network, given in zip(networks, (batch, in_64_bits(batch)), strict=True):
        logits, value = network(given.replicas, given.context)
        log_probs = log_probabilities(logits, given.temperature)
        loss, _ = given.surrogate(log_probs, value, section)
        loss = loss.mean() - of_entropy * entropy(log_probs).mean()
        loss = loss + of_balance * balance_loss(log_probs.exp().mean(dim=0))
        kl = kl_divergence(torch.log_softmax(logits, dim=-1), reference.to(logits.dtype))
        (loss + of_kl * kl.mean()).backward()
    fused, exact = networks
    # A head without a gradient is left alone by the optimizer; one with zeros would decay.
    assert (fused.critic_head.weight.grad is None) == (kind is priced)
    assert_gradients_near(fused, exact)


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_what_is_not_a_number_stays_so(activation):
    """Otherwise an update would go on from weights that are lost."""
    fused, _ = pair(5, 3, 0, hidden_size=8, activation=activation)
    with torch.no_grad():
        fused.replica_input.weight[0, 0] = torch.nan
    outputs = fused(torch.ones(2, 4, 5), torch.ones(2, 3))
    assert all(output.isnan().all() for output in outputs)
    torch.autograd.backward(outputs, tuple(torch.ones_like(output) for output in outputs))
    assert all(weight.grad.isnan().any() for weight in fused.parameters() if weight.ndim > 1)


def test_attention_is_left_to_torch():
    section = ArchitectureSection(attention_layers=1)
    assert not ActorCritic(5, 3, section, "fused").is_fused


def test_a_policy_follows_its_weights():
    """Compiled code sees changed, loaded and learned weights, and a copy is on its own."""
    schema = ObservationSchema(("a", "b"), ("c",), ())
    policy = RoutingPolicy(schema, ArchitectureSection(), 10.0, "fused")
    policy.initialize(0)
    seen = np.ones((1, 3, 2), np.float32), np.ones((1, 1), np.float32)
    copied = copy.deepcopy(policy)

    def value(of: RoutingPolicy) -> float:
        return float(of.evaluate(seen)[1][0])

    before = value(policy)
    with torch.no_grad():
        policy.network.critic_head.bias += 1.0
    assert value(policy) == pytest.approx(before + 1.0)
    assert value(copied) == before
    weights = copied.network.state_dict()
    policy.network.load_state_dict(weights)
    assert value(policy) == before


def test_the_exponential_is_within_two_units_in_the_last_place():
    @numba.njit
    def exponentials(numbers, results):
        for i in range(len(numbers)):
            results[i] = exp(numbers[i])

    numbers = np.linspace(-87.0, 88.0, 100_001, dtype=np.float32)
    results = np.empty_like(numbers)
    exponentials(numbers, results)
    exact = np.exp(numbers.astype(np.float64))
    units = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert np.abs((results - exact) / units).max() < 2.0
    ends = np.array([-1e9, -np.inf, 1e9, np.inf, np.nan], np.float32)
    results = np.empty_like(ends)
    exponentials(ends, results)
    assert results[0] == results[1] < 2e-38
    assert results[2] == results[3] > 1e38
    assert np.isnan(results[4])


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("replicas", [3, 4, 5])
def test_replicas_that_are_alike_have_the_same_logit_bit_by_bit(replicas, activation):
    """Ties then go to the lowest index, wherever a replica's numbers lie in a vector."""
    fused, _ = pair(31, 14, 0, activation=activation)
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 2, 7, 63, 100):
        alike = torch.randn(batch, 1, 31, generator=generator).repeat(1, replicas, 1)
        logits, _ = fused(alike, torch.randn(batch, 14, generator=generator))
        assert torch.equal(logits, logits[:, :1].expand(-1, replicas))


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5, 16, 33, 100, 300])
def test_a_decision_has_the_same_bits_whoever_is_beside_it(replicas, activation):
    """Then it does not matter how many processes share the decisions of a step."""
    fused, _ = pair(31, 14, 0, activation=activation)
    generator = torch.Generator().manual_seed(replicas)
    one = torch.randn(1, replicas, 31, generator=generator), torch.randn(1, 14, generator=generator)
    logits, values = fused(*one)
    for batch in (3, 50, 100):
        others = [torch.randn(batch, *part.shape[1:], generator=generator) for part in one]
        for place in (0, batch // 2, batch - 1):
            for all_, own in zip(others, one, strict=True):
                all_[place] = own[0]
            of_logits, of_values = fused(*others)
            assert torch.equal(of_logits[place], logits[0]), (batch, place)
            assert torch.equal(of_values[place], values[0]), (batch, place)


@pytest.mark.parametrize("batch", [1, 3, 70])
def test_what_was_computed_before_leaves_nothing_behind(batch):
    """The memory that networks of one shape share has lanes that no decision fills."""
    fused, _ = pair(5, 3, 0, hidden_size=8)
    generator = torch.Generator().manual_seed(0)
    seen = (
        torch.randn(batch, 3, 5, generator=generator),
        torch.randn(batch, 3, generator=generator),
    )

    def bits() -> list[bytes]:
        fused.zero_grad()
        outputs = fused(*seen)
        torch.autograd.backward(outputs, tuple(torch.ones_like(output) for output in outputs))
        gradients = [weight.grad for weight in fused.parameters()]
        return [part.detach().numpy().tobytes() for part in (*outputs, *gradients)]

    before, rooms = bits(), scratch_for.cache_info().misses
    for room in scratch_for(5 + 3, 8, 2, lanes_of(3, tile_of(3, batch))):
        room.fill(np.nan)
    assert scratch_for.cache_info().misses == rooms, "it is the memory that was computed in"
    assert bits() == before
