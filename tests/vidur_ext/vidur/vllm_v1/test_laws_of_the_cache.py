"""What holds of every replica, whatever it is asked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest


def draw(rng, replica, *, num_blocks=None):
    """Return a replica with random limits, and the step at which each request arrives."""
    rows, arrivals, step = [], [], 0
    for number in range(int(rng.integers(5, 30))):
        step += int(rng.integers(0, 6))
        user = (100 + number, int(rng.integers(1, 30)))
        if rows and rng.random() < 0.6:
            parent = int(rng.integers(len(rows)))
            prompt, output = rows[parent]
            prompt = [*prompt, (1000 + parent, int(rng.integers(1, output + 1))), user]
        else:
            prompt = [(int(rng.integers(1, 4)), int(rng.integers(1, 30))), user]
        if sum(n for _, n in prompt) > 100:
            prompt = [user]
        rows.append((prompt, int(rng.integers(1, 30))))
        arrivals.append(step)
    block_size = int(rng.choice([1, 3, 8]))
    longest = max(sum(n for _, n in prompt) + output for prompt, output in rows)
    fitting = -(-longest // block_size) + 1
    one = replica(
        rows,
        num_blocks=num_blocks or int(rng.integers(fitting, 3 * fitting)),
        block_size=block_size,
        max_num_seqs=int(rng.integers(1, 9)),
        budget=int(rng.integers(8, 80)),
    )
    return one, rows, arrivals


def play(one, arrivals, look):
    """Run to the end; ``look(step)`` is called between the schedule of a step and its update."""
    now = arrived = 0
    while arrived < len(arrivals) or one.scheduler.waiting or one.scheduler.running:
        while arrived < len(arrivals) and arrivals[arrived] <= now:
            one.arrive(arrived)
            arrived += 1
        step = one.scheduler.schedule()
        one.steps.append(step)
        look(step)
        one.scheduler.update(step)
        now += 1
        assert now < 5000


def tokens_of(row, number):
    """Return the tokens of a prompt and its answer, each known by its place in its segment."""
    prompt, output = row
    return [(name, i) for name, n in [*prompt, (1000 + number, output)] for i in range(n)]


@pytest.mark.parametrize("seed", range(40))
def test_blocks_are_neither_lost_nor_made(seed, replica):
    one, _, arrivals = draw(np.random.default_rng(seed), replica)
    pool, size = one.scheduler.pool, one.scheduler._limits.block_size

    def look(step):
        held = [set(request.blocks) for request in one.scheduler.running]
        assert pool.unused + len(set().union(*held)) == one.scheduler._limits.num_blocks - 1
        assert not any(0 in blocks for blocks in held)
        for request, blocks in zip(one.scheduler.running, held, strict=True):
            assert len(request.blocks) == len(blocks) == -(-request.computed_tokens // size)
        assert not any(request.blocks for request in one.scheduler.waiting)

    play(one, arrivals, look)
    assert pool.unused == one.scheduler._limits.num_blocks - 1


@pytest.mark.parametrize("seed", range(40))
def test_what_is_found_is_the_text_that_was_asked_for(seed, replica):
    """Each block's tokens are followed from outside: a hit on an evicted block would be another."""
    one, rows, arrivals = draw(np.random.default_rng(seed), replica)
    size = one.scheduler._limits.block_size
    texts = [tokens_of(row, number) for number, row in enumerate(rows)]
    content: dict[int, list] = {}
    hits = 0

    def look(step):
        nonlocal hits
        found = {one.requests.index(r): n for r, n in step.admitted}
        for request, tokens in step.scheduled:
            number = one.requests.index(request)
            before = request.computed_tokens - tokens
            for place in range(found.get(number, 0) // size):
                expected = texts[number][: (place + 1) * size]
                assert content[request.blocks[place]] == expected
                hits += 1
            for place in range(before // size, len(request.blocks)):
                content[request.blocks[place]] = texts[number][
                    : min((place + 1) * size, request.computed_tokens)
                ]

    play(one, arrivals, look)
    assert hits or size > 3


@pytest.mark.parametrize("seed", range(40))
def test_every_token_is_found_or_computed_once_between_preemptions(seed, replica):
    one, rows, arrivals = draw(np.random.default_rng(seed), replica)
    covered: Counter = Counter()
    answered: Counter = Counter()

    def look(step):
        for request in step.preempted:
            covered[one.requests.index(request)] = 0
        for request, found in step.admitted:
            assert found < request.known_tokens
            covered[one.requests.index(request)] += found
        for request, tokens in step.scheduled:
            number = one.requests.index(request)
            covered[number] += tokens
            assert covered[number] == request.computed_tokens <= request.known_tokens
            answered[number] += request.computed_tokens == request.known_tokens
        assert sum(tokens for _, tokens in step.scheduled) <= (
            one.scheduler._limits.max_num_batched_tokens
        )

    play(one, arrivals, look)
    for number, (prompt, output) in enumerate(rows):
        # The last token of the answer is known, and nothing is computed from it.
        assert covered[number] == sum(n for _, n in prompt) + output - 1
        assert answered[number] == output


@pytest.mark.parametrize("seed", range(20))
def test_an_endless_cache_finds_all_that_was_ever_computed(seed, replica):
    one, rows, _ = draw(np.random.default_rng(seed), replica, num_blocks=20_000)
    size = one.scheduler._limits.block_size
    known: set = set()
    for number, row in enumerate(rows):
        one.arrive(number)
        one.run()
        text = tokens_of(row, number)
        prompt = len(text) - row[1]
        ideal = 0
        while ideal + size <= prompt - 1 and tuple(text[: ideal + size]) in known:
            ideal += size
        assert one.hits[-1] == (number, ideal)
        computed = (len(text) - 1) // size * size
        known.update(tuple(text[:end]) for end in range(size, computed + 1, size))
    assert not one.preempted
