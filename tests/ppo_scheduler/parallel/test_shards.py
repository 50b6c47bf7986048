"""Shards split the environments alike for any number of processes, and put the same together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from threaded_processes import in_threads

from ppo_scheduler.parallel.process_group import ProcessLost
from ppo_scheduler.parallel.shards import Processes, Shards


class Member:
    """One of several processes, which exchanges nothing."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def gather(self, own, lengths=None):
        raise AssertionError("nothing is exchanged")


def members(num_envs: int, wanted: int, count: int) -> list[Shards]:
    return [Shards(num_envs, wanted, Member(rank, count)) for rank in range(count)]


@st.composite
def splits(draw) -> tuple[int, int, int]:
    """Draw E environments, how many shards are wanted, and W processes that can share them."""
    num_envs, wanted = draw(st.integers(1, 60)), draw(st.integers(1, 20))
    shards = min(num_envs, wanted)
    count = draw(st.sampled_from([n for n in range(1, shards + 1) if shards % n == 0]))
    return num_envs, wanted, count


def of_every_shard(shards: Shards) -> list[list[int]]:
    """Return the numbers of the environments of each of a process's shards."""
    numbers = list(shards.numbers)
    return [numbers[part] for part in shards.parts]


def test_ten_environments_in_four_shards_by_hand() -> None:
    alone = Shards(10, 4)
    assert of_every_shard(alone) == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]
    first, second = members(10, 4, 2)
    assert (first.own, second.own) == (range(2), range(2, 4))
    assert (first.size, second.size) == (5, 5)
    assert (first.envs, second.envs) == (slice(0, 5), slice(5, 10))
    assert second.parts == [slice(0, 2), slice(2, 5)]


def test_fewer_environments_than_shards_are_one_each() -> None:
    assert of_every_shard(Shards(3, 8)) == [[0], [1], [2]]


@given(splits())
def test_shards_are_as_even_as_can_be_and_in_order(split) -> None:
    num_envs, wanted, _ = split
    shards = Shards(num_envs, wanted)
    found = of_every_shard(shards)
    assert len(found) == shards.count == min(num_envs, wanted)
    assert [number for numbers in found for number in numbers] == list(range(num_envs))
    sizes = {len(numbers) for numbers in found}
    assert max(sizes) - min(sizes) <= 1


@given(splits())
def test_a_shard_is_the_same_whoever_has_it(split) -> None:
    num_envs, wanted, count = split
    alone, every = Shards(num_envs, wanted), members(num_envs, wanted, count)
    assert [shard for one in every for shard in one.own] == list(alone.own)
    assert len({len(one.own) for one in every}) == 1, "each process has as many"
    assert [part for one in every for part in of_every_shard(one)] == of_every_shard(alone)
    for one in every:
        assert list(range(num_envs))[one.envs] == list(one.numbers)
        assert len(one.numbers) == one.size


def by_all(split, program: Callable[[Shards], object]) -> list[object]:
    """Return what a program has in each process."""
    num_envs, wanted, count = split
    return in_threads(count, lambda processes: program(Shards(num_envs, wanted, processes)))


def assert_same_bits(actual: NDArray[np.generic], expected: NDArray[np.generic]) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.flags.c_contiguous, "sums would be taken in another order"
    assert actual.tobytes() == expected.tobytes()


DTYPES = (np.float64, np.float32, np.int64, np.int16, np.bool_)


@st.composite
def arrays(draw, *leading: int) -> NDArray[np.generic]:
    """Draw an array of some type, also of nothing and of what is no number."""
    shape = (*leading, *draw(st.sampled_from([(), (0,), (1,), (3,), (2, 4)])))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    drawn = rng.normal(size=shape) * 100.0
    array = np.asarray(drawn).astype(draw(st.sampled_from(DTYPES)))
    if array.size and array.dtype.kind == "f":
        array.flat[0] = np.nan
    return array


@given(split=splits(), data=st.data())
def test_environments_are_put_together_as_one_process_has_them(split, data) -> None:
    num_envs = split[0]
    whole = data.draw(arrays(num_envs))
    for together in by_all(split, lambda shards: shards.together(whole[shards.envs])):
        assert_same_bits(together, whole)


@given(split=splits(), steps=st.integers(0, 5), data=st.data())
def test_several_arrays_are_put_together_along_another_axis(split, steps, data) -> None:
    """Also those of a rollout that has just been cleared, which has no step."""
    num_envs = split[0]
    whole = [data.draw(arrays(steps, num_envs)) for _ in range(data.draw(st.integers(1, 4)))]

    def program(shards: Shards) -> object:
        own = [np.ascontiguousarray(array[:, shards.envs]) for array in whole]
        return shards.all_together(own, axis=1)

    for every in by_all(split, program):
        for together, array in zip(every, whole, strict=True):
            assert_same_bits(together, array)


@given(split=splits(), data=st.data())
def test_rows_follow_one_another_however_many_a_shard_has(split, data) -> None:
    count = min(split[:2])
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    width = data.draw(st.integers(0, 3))
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(length, width)).astype(np.float32) for length in lengths]

    def program(shards: Shards) -> object:
        return shards.rows_together([rows[shard] for shard in shards.own], np.array(lengths))

    for together in by_all(split, program):
        assert_same_bits(together, np.concatenate(rows))


@given(split=splits(), data=st.data())
def test_what_belongs_to_shards_is_put_together_in_their_order(split, data) -> None:
    whole = data.draw(arrays(min(split[:2])))
    for together in by_all(split, lambda shards: shards.of_shards(whole[shards.own])):
        assert_same_bits(together, whole)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_total_is_added_in_the_order_of_the_shards(count) -> None:
    """By hand: beside 2^24 a 32-bit number has no room for 1, for 2 it has.

    In order nothing is left. Two processes that added their own parts first would be left with 1,
    and the smallest first with 2.
    """
    large = np.float32(2**24)
    gradients = np.array([[large, 0.5], [1.0, 0.25], [1.0, 0.125], [-large, 1.0]], np.float32)
    for total in by_all((4, 4, count), lambda shards: shards.total(gradients[shards.own])):
        assert total.tolist() == [0.0, 1.875]
        assert total.dtype == np.float32


@given(split=splits(), seed=st.integers(0, 1000))
def test_a_total_has_the_same_bits_for_any_number_of_processes(split, seed) -> None:
    rng = np.random.default_rng(seed)
    size = (min(split[:2]), 5)
    gradients = (rng.normal(size=size) * 10.0 ** rng.integers(-6, 6, size)).astype(np.float32)
    num_envs, wanted, _ = split
    alone = Shards(num_envs, wanted).total(gradients)
    for total in by_all(split, lambda shards: shards.total(gradients[shards.own])):
        assert_same_bits(total, alone)


def test_a_total_leaves_what_was_added_as_it_was() -> None:
    gradients = np.ones((3, 2), np.float32)
    Shards(3, 3).total(gradients)
    assert gradients.tolist() == [[1.0, 1.0]] * 3


def test_one_process_copies_nothing() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert Shards(2).together(array) is array


def test_an_array_of_another_order_of_memory_is_a_mistake() -> None:
    """Its sums would differ from those of what arrives."""
    with pytest.raises(AssertionError, match="memory has another order"):
        Shards(3).together(np.zeros((2, 3)).T)


def test_the_threads_of_these_tests_notice_who_has_ended() -> None:
    def program(processes: Processes) -> None:
        for _ in range(1 + processes.rank):
            processes.gather(np.zeros(1))

    with pytest.raises(ProcessLost):
        in_threads(3, program)
