"""The network of ``network.py`` without attention, and its gradients, compiled.

torch hands every operation all decisions at once: each reads and writes memory that the next one
fetches again, and with a single decision the calls cost ten times the arithmetic. Here a tile of
decisions goes through all layers while its numbers stay in the nearest cache. The order of every
sum is fixed: it is taken tile after tile, in a tile as the vectors of the machine have it.

A lane is one replica of one decision, the D decisions of a tile are T = D * R lanes. All that is
computed stands as [units, T]: what is done to a unit is done to a vector of lanes at once.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.compiled import (
    compiled_entry,
    vectorized,
    vectorized_inline,
    vectorized_sums,
)

Array = NDArray[np.float32]

ACTIVATIONS = ("tanh", "relu", "silu")
"""Compiled code knows them by their place here."""
_TANH, _RELU, _SILU = range(len(ACTIVATIONS))

_TILE_LANES = 256
"""Lanes that go through the layers together, at least those of one decision."""

_LANES_AT_ONCE = 64
"""A tile has a multiple of it: then every lane is computed by the same instructions, wherever in a
tile it stands, and a decision has the same result whoever is beside it."""

_ZERO, _HALF, _ONE, _TWO = (np.float32(number) for number in (0.0, 0.5, 1.0, 2.0))
_EPSILON = np.float32(1e-5)
"""Added to the variance: that of ``torch.nn.LayerNorm``."""


class Weights(NamedTuple):
    """Parameters of the network, or their gradients: F features, C of the context, width H."""

    layers: tuple[Array, ...]
    """[H, F], then [H, H] for every further layer of the encoder."""
    biases: tuple[Array, ...]
    """[H] of each layer."""
    context: Array
    """[H, C]"""
    gain: Array
    """[H], of the norm, as ``shift``."""
    shift: Array
    actor: Array
    """[1, H], as ``critic``."""
    critic: Array
    actor_bias: Array
    """[1], as ``critic_bias``."""
    critic_bias: Array


class Scratch(NamedTuple):
    """Room for one tile of T lanes; its content means nothing between two calls."""

    inputs: Array
    """[F + C, T]"""
    activations: Array
    """[layers, H, T]"""
    slopes: Array
    """[layers, H, T]: derivatives of the activations."""
    normalized: Array
    """[H, T]"""
    gradients: Array
    """[2, H, T]: of a layer, and of the one below it."""
    lanes: Array
    """[6, T], by the names below."""
    heads: Array
    """[4, H], by the names below."""
    normed: Array
    """[H, 2]: normalized lanes by their gradients of actor and critic, summed."""


_MEAN, _INVERSE, _ACTOR, _CRITIC, _OF_ACTOR, _OF_CRITIC = range(6)
"""Of each lane: mean, one by the standard deviation, the heads' outputs, gradients by those."""
_ACTOR_GAIN, _CRITIC_GAIN, _ACTOR_CENTERED, _CRITIC_CENTERED = range(4)
"""The weights of the heads times the gain of the norm, and these less their mean."""


@lru_cache(maxsize=8)
def scratch_for(inputs: int, width: int, layers: int, lanes: int) -> Scratch:
    """Return room for tiles of so many lanes; all networks of this shape share it."""

    def room(*shape: int) -> Array:
        return np.empty(shape, np.float32)

    return Scratch(
        inputs=room(inputs, lanes),
        activations=room(layers, width, lanes),
        slopes=room(layers, width, lanes),
        normalized=room(width, lanes),
        gradients=room(2, width, lanes),
        lanes=room(6, lanes),
        heads=room(4, width),
        normed=room(width, 2),
    )


def tile_of(num_replicas: int, decisions: int) -> int:
    """Return how many of so many decisions go through the layers together: equal parts of them."""
    tiles = max(1, math.ceil(decisions * num_replicas / _TILE_LANES))
    return max(1, math.ceil(decisions / tiles))


def lanes_of(num_replicas: int, tile: int) -> int:
    """Return how many lanes a tile of so many decisions is given; the last may be empty."""
    return math.ceil(num_replicas * tile / _LANES_AT_ONCE) * _LANES_AT_ONCE


# e^x = 2^k e^r with |r| <= ln(2) / 2: the polynomial of Cephes' expf (S. Moshier), within 2 units
# in the last place. A call of the C library for each number would be ten times as slow.
_LOG2_E = np.float32(1.44269504)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_P5, _P4, _P3, _P2, _P1, _P0 = (
    np.float32(number)
    for number in (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
)
_LEAST, _MOST = np.float32(-87.0), np.float32(88.0)
"""Between them e^x is a normal number."""
_EXPONENT_BIAS, _MANTISSA_BITS = np.int32(127), np.int32(23)


@vectorized_inline
def exp(x: np.float32) -> np.float32:
    """Return e^x of x within [-87, 88], of others that of the nearer end; of NaN NaN."""
    x = _LEAST if x < _LEAST else x
    x = _MOST if x > _MOST else x
    k = np.floor(x * _LOG2_E + _HALF)
    r = x - k * _LN_2_HIGH - k * _LN_2_LOW
    power = ((((_P5 * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + _P0
    two_to_k = np.int32((np.int32(k) + _EXPONENT_BIAS) << _MANTISSA_BITS).view(np.float32)
    return np.float32((power * r * r + r + _ONE) * two_to_k)


@vectorized
def _activate(lanes: Array, activation: int) -> None:
    """Replace what reaches a layer's units by what leaves them."""
    for unit in range(lanes.shape[0]):
        if activation == _SILU:
            for lane in range(lanes.shape[1]):
                x = lanes[unit, lane]
                lanes[unit, lane] = x / (_ONE + exp(-x))
        elif activation == _TANH:
            for lane in range(lanes.shape[1]):
                lanes[unit, lane] = _ONE - _TWO / (_ONE + exp(_TWO * lanes[unit, lane]))
        else:
            for lane in range(lanes.shape[1]):
                x = lanes[unit, lane]
                lanes[unit, lane] = _ZERO if x < _ZERO else x


@vectorized
def _activate_with_slopes(lanes: Array, slopes: Array, activation: int) -> None:
    """As ``_activate``, and leave the derivatives in ``slopes``."""
    for unit in range(lanes.shape[0]):
        if activation == _SILU:
            for lane in range(lanes.shape[1]):
                x = lanes[unit, lane]
                share = _ONE / (_ONE + exp(-x))
                lanes[unit, lane] = x * share
                slopes[unit, lane] = share + x * share * (_ONE - share)
        elif activation == _TANH:
            for lane in range(lanes.shape[1]):
                y = _ONE - _TWO / (_ONE + exp(_TWO * lanes[unit, lane]))
                lanes[unit, lane] = y
                slopes[unit, lane] = _ONE - y * y
        else:
            for lane in range(lanes.shape[1]):
                x = lanes[unit, lane]
                lanes[unit, lane] = _ZERO if x < _ZERO else x
                slopes[unit, lane] = _ONE if x > _ZERO else _ZERO


@vectorized
def _add_product(total: Array, left: Array, right: Array) -> None:
    """Add left [M, K] @ right [K, T] to total [M, T].

    Four rows by four terms at a time: every number that is fetched is used four times, and what
    takes part in that fits the registers.
    """
    rows, terms = left.shape
    lanes = total.shape[1]
    fours, whole = rows - rows % 4, terms - terms % 4
    for m in range(0, fours, 4):
        for k in range(0, whole, 4):
            a00, a01, a02, a03 = left[m, k], left[m, k + 1], left[m, k + 2], left[m, k + 3]
            a10, a11 = left[m + 1, k], left[m + 1, k + 1]
            a12, a13 = left[m + 1, k + 2], left[m + 1, k + 3]
            a20, a21 = left[m + 2, k], left[m + 2, k + 1]
            a22, a23 = left[m + 2, k + 2], left[m + 2, k + 3]
            a30, a31 = left[m + 3, k], left[m + 3, k + 1]
            a32, a33 = left[m + 3, k + 2], left[m + 3, k + 3]
            for t in range(lanes):
                b0, b1, b2, b3 = right[k, t], right[k + 1, t], right[k + 2, t], right[k + 3, t]
                # All are read before one is written: they could be the same, for all that the
                # compiler knows.
                c0 = total[m, t] + a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
                c1 = total[m + 1, t] + a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
                c2 = total[m + 2, t] + a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
                c3 = total[m + 3, t] + a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
                total[m, t] = c0
                total[m + 1, t] = c1
                total[m + 2, t] = c2
                total[m + 3, t] = c3
        for k in range(whole, terms):
            for row in range(m, m + 4):
                _add_multiple(total[row], left[row, k], right[k])
    for row in range(fours, rows):
        for k in range(terms):
            _add_multiple(total[row], left[row, k], right[k])


@vectorized_sums
def _add_product_over_lanes(total: Array, left: Array, right: Array) -> None:
    """Add left [M, T] @ right.T [T, K] to total [M, K], four rows by four columns at a time."""
    rows, columns = total.shape
    fours, whole = rows - rows % 4, columns - columns % 4
    for m in range(0, fours, 4):
        for k in range(0, whole, 4):
            c00 = c01 = c02 = c03 = _ZERO
            c10 = c11 = c12 = c13 = _ZERO
            c20 = c21 = c22 = c23 = _ZERO
            c30 = c31 = c32 = c33 = _ZERO
            for t in range(left.shape[1]):
                a0, a1, a2, a3 = left[m, t], left[m + 1, t], left[m + 2, t], left[m + 3, t]
                b0, b1, b2, b3 = right[k, t], right[k + 1, t], right[k + 2, t], right[k + 3, t]
                c00 += a0 * b0
                c01 += a0 * b1
                c02 += a0 * b2
                c03 += a0 * b3
                c10 += a1 * b0
                c11 += a1 * b1
                c12 += a1 * b2
                c13 += a1 * b3
                c20 += a2 * b0
                c21 += a2 * b1
                c22 += a2 * b2
                c23 += a2 * b3
                c30 += a3 * b0
                c31 += a3 * b1
                c32 += a3 * b2
                c33 += a3 * b3
            total[m, k] += c00
            total[m, k + 1] += c01
            total[m, k + 2] += c02
            total[m, k + 3] += c03
            total[m + 1, k] += c10
            total[m + 1, k + 1] += c11
            total[m + 1, k + 2] += c12
            total[m + 1, k + 3] += c13
            total[m + 2, k] += c20
            total[m + 2, k + 1] += c21
            total[m + 2, k + 2] += c22
            total[m + 2, k + 3] += c23
            total[m + 3, k] += c30
            total[m + 3, k + 1] += c31
            total[m + 3, k + 2] += c32
            total[m + 3, k + 3] += c33
        for k in range(whole, columns):
            for row in range(m, m + 4):
                total[row, k] += _dot(left[row], right[k])
    for row in range(fours, rows):
        for k in range(columns):
            total[row, k] += _dot(left[row], right[k])


@vectorized
def _add_multiple(total: Array, factor: np.float32, lanes: Array) -> None:
    """Add factor * lanes [T] to total [T]."""
    for t in range(len(total)):
        total[t] += factor * lanes[t]


@vectorized_sums
def _dot(left: Array, right: Array) -> np.float32:
    total = _ZERO
    for n in range(len(left)):
        total += left[n] * right[n]
    return total


@vectorized_sums
def _sum(numbers: Array) -> np.float32:
    total = _ZERO
    for n in range(len(numbers)):
        total += numbers[n]
    return total


@vectorized
def _multiply(lanes: Array, factors: Array) -> None:
    """Multiply lanes [M, T] by factors [M, T], number by number."""
    for m in range(lanes.shape[0]):
        for t in range(lanes.shape[1]):
            lanes[m, t] *= factors[m, t]


@vectorized
def _normalize(hidden: Array, normalized: Array, mean: Array, inverse: Array) -> None:
    """Write hidden [H, T] less its means [T], times the inverses [T] of its deviations."""
    width = np.float32(len(hidden))
    mean[:] = _ZERO
    inverse[:] = _ZERO
    for unit in range(len(hidden)):
        for t in range(len(mean)):
            mean[t] += hidden[unit, t]
    for t in range(len(mean)):
        mean[t] /= width
    for unit in range(len(hidden)):
        for t in range(len(mean)):
            off = hidden[unit, t] - mean[t]
            inverse[t] += off * off
    for t in range(len(mean)):
        inverse[t] = _ONE / np.float32(math.sqrt(inverse[t] / width + _EPSILON))
    for unit in range(len(hidden)):
        for t in range(len(mean)):
            normalized[unit, t] = (hidden[unit, t] - mean[t]) * inverse[t]


@vectorized
def _fold_heads(weights: Weights, heads: Array) -> None:
    """Fill the ``heads`` of the scratch."""
    width = len(weights.gain)
    for unit in range(width):
        heads[_ACTOR_GAIN, unit] = weights.gain[unit] * weights.actor[0, unit]
        heads[_CRITIC_GAIN, unit] = weights.gain[unit] * weights.critic[0, unit]
    actor = _sum(heads[_ACTOR_GAIN]) / np.float32(width)
    critic = _sum(heads[_CRITIC_GAIN]) / np.float32(width)
    for unit in range(width):
        heads[_ACTOR_CENTERED, unit] = heads[_ACTOR_GAIN, unit] - actor
        heads[_CRITIC_CENTERED, unit] = heads[_CRITIC_GAIN, unit] - critic


@vectorized
def _take_in(replicas: Array, context: Array, inputs: Array) -> None:
    """Turn features [D, R, F] and [D, C] into inputs [F + C, T]; what is left over is 0."""
    num_replicas, features = replicas.shape[1], replicas.shape[2]
    for decision in range(len(context)):
        for replica in range(num_replicas):
            lane = decision * num_replicas + replica
            for feature in range(features):
                inputs[feature, lane] = replicas[decision, replica, feature]
            for feature in range(context.shape[1]):
                inputs[features + feature, lane] = context[decision, feature]
    for feature in range(len(inputs)):
        for lane in range(len(context) * num_replicas, inputs.shape[1]):
            inputs[feature, lane] = _ZERO


@vectorized
def _through_the_layers(
    replicas: Array,
    context: Array,
    weights: Weights,
    scratch: Scratch,
    activation: int,
    with_slopes: bool,
) -> None:
    """Take a tile [D, R, F], [D, C] up to the outputs of both heads, without what is constant."""
    layers, inputs = len(weights.layers), scratch.inputs
    _take_in(replicas, context, inputs)
    for layer in range(layers):
        hidden = scratch.activations[layer]
        for unit in range(len(hidden)):
            hidden[unit] = weights.biases[layer][unit]
        if layer == 0:
            features = replicas.shape[2]
            _add_product(hidden, weights.layers[0], inputs[:features])
            _add_product(hidden, weights.context, inputs[features:])
        else:
            below = scratch.activations[layer - 1]
            _add_product(hidden, weights.layers[layer], below)
        if with_slopes:
            _activate_with_slopes(hidden, scratch.slopes[layer], activation)
        else:
            _activate(hidden, activation)
    last, normalized = scratch.activations[layers - 1], scratch.normalized
    of_lanes = scratch.lanes
    _normalize(last, normalized, of_lanes[_MEAN], of_lanes[_INVERSE])
    of_lanes[_ACTOR] = _ZERO
    of_lanes[_CRITIC] = _ZERO
    for unit in range(len(normalized)):
        _add_multiple(of_lanes[_ACTOR], scratch.heads[_ACTOR_GAIN, unit], normalized[unit])
        _add_multiple(of_lanes[_CRITIC], scratch.heads[_CRITIC_GAIN, unit], normalized[unit])


@compiled_entry
def forward(
    replicas: Array,
    context: Array,
    weights: Weights,
    scratch: Scratch,
    activation: int,
    tile: int,
    logits: Array,
    values: Array,
) -> None:
    """Write logits [B, R] and values [B] of normalized features [B, R, F] and [B, C]."""
    num_replicas = logits.shape[1]
    _fold_heads(weights, scratch.heads)
    actor = _dot(weights.shift, weights.actor[0]) + weights.actor_bias[0]
    critic = _dot(weights.shift, weights.critic[0]) + weights.critic_bias[0]
    for first in range(0, len(context), tile):
        last = min(first + tile, len(context))
        _through_the_layers(
            replicas[first:last], context[first:last], weights, scratch, activation, False
        )
        for decision in range(first, last):
            value = _ZERO
            for replica in range(num_replicas):
                lane = (decision - first) * num_replicas + replica
                logits[decision, replica] = scratch.lanes[_ACTOR, lane] + actor
                value += scratch.lanes[_CRITIC, lane]
            values[decision] = value / np.float32(num_replicas) + critic


@compiled_entry
def backward(
    replicas: Array,
    context: Array,
    weights: Weights,
    scratch: Scratch,
    activation: int,
    tile: int,
    of_logits: Array,
    of_values: Array,
    of_tile: Weights,
    of_tile_flat: Array,
    total: Array,
) -> None:
    """Add to ``total`` [P] the gradients of a loss with these of logits [B, R] and values [B].

    Args:
        of_tile: zeros, as parts of ``of_tile_flat`` [P]; so they are left. Sums of tiles, summed,
            are nearer to the exact ones than one long sum.
    """
    _fold_heads(weights, scratch.heads)
    for first in range(0, len(context), tile):
        last = min(first + tile, len(context))
        _through_the_layers(
            replicas[first:last], context[first:last], weights, scratch, activation, True
        )
        _down_the_heads(of_logits[first:last], of_values[first:last], weights, scratch, of_tile)
        _down_the_layers(replicas.shape[2], weights, scratch, of_tile)
        _add_multiple(total, _ONE, of_tile_flat)
        of_tile_flat[:] = _ZERO


@vectorized
def _down_the_heads(
    of_logits: Array, of_values: Array, weights: Weights, scratch: Scratch, gradients: Weights
) -> None:
    """Carry the gradient of a tile through both heads and the norm (Ba et al. 2016).

    With z a normalized lane and g the gradient by it, a sum of both heads, the one below the norm
    is (g - mean(g) - z mean(g z)) / std. The mean of g is that of the heads, and the sum of g z
    follows from their outputs.
    """
    num_replicas = of_logits.shape[1]
    of_lanes, normalized = scratch.lanes, scratch.normalized
    of_lanes[_OF_ACTOR : _OF_CRITIC + 1] = _ZERO
    for decision in range(len(of_values)):
        for replica in range(num_replicas):
            lane = decision * num_replicas + replica
            of_lanes[_OF_ACTOR, lane] = of_logits[decision, replica]
            of_lanes[_OF_CRITIC, lane] = of_values[decision] / np.float32(num_replicas)
    scratch.normed[:] = _ZERO
    _add_product_over_lanes(scratch.normed, normalized, of_lanes[_OF_ACTOR : _OF_CRITIC + 1])
    actor_sum, critic_sum = _sum(of_lanes[_OF_ACTOR]), _sum(of_values)
    _down_the_norm(of_lanes, normalized, scratch.heads, scratch.gradients[0])
    for unit in range(len(weights.gain)):
        of_actor, of_critic = scratch.normed[unit, 0], scratch.normed[unit, 1]
        gain, shift = weights.gain[unit], weights.shift[unit]
        actor, critic = weights.actor[0, unit], weights.critic[0, unit]
        gradients.actor[0, unit] += gain * of_actor + shift * actor_sum
        gradients.critic[0, unit] += gain * of_critic + shift * critic_sum
        gradients.gain[unit] += actor * of_actor + critic * of_critic
        gradients.shift[unit] += actor * actor_sum + critic * critic_sum
    gradients.actor_bias[0] += actor_sum
    gradients.critic_bias[0] += critic_sum


@vectorized
def _down_the_norm(of_lanes: Array, normalized: Array, heads: Array, gradient: Array) -> None:
    of_actor, of_critic, inverse = of_lanes[_OF_ACTOR], of_lanes[_OF_CRITIC], of_lanes[_INVERSE]
    # The heads' outputs are not needed any more.
    common, width = of_lanes[_ACTOR], np.float32(len(normalized))
    for t in range(len(common)):
        summed = of_actor[t] * common[t] + of_critic[t] * of_lanes[_CRITIC, t]
        common[t] = summed / width
    for unit in range(len(normalized)):
        actor, critic = heads[_ACTOR_CENTERED, unit], heads[_CRITIC_CENTERED, unit]
        for t in range(len(common)):
            both = of_actor[t] * actor + of_critic[t] * critic
            gradient[unit, t] = inverse[t] * (both - normalized[unit, t] * common[t])


@vectorized
def _down_the_layers(features: int, weights: Weights, scratch: Scratch, gradients: Weights) -> None:
    """Carry a tile's gradient through the layers, from the last to the first."""
    layers = len(weights.layers)
    for step in range(layers):
        layer = layers - 1 - step
        here = scratch.gradients[step % 2]
        _multiply(here, scratch.slopes[layer])
        for unit in range(len(here)):
            gradients.biases[layer][unit] += _sum(here[unit])
        if layer == 0:
            inputs = scratch.inputs
            _add_product_over_lanes(gradients.layers[0], here, inputs[:features])
            _add_product_over_lanes(gradients.context, here, inputs[features:])
        else:
            activations = scratch.activations[layer - 1]
            _add_product_over_lanes(gradients.layers[layer], here, activations)
            below = scratch.gradients[1 - step % 2]
            below[:] = _ZERO
            _add_product(below, weights.layers[layer].T, here)
