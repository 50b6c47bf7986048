"""Which block is handed out next, and which text is still found."""

from __future__ import annotations

from vidur_ext.vidur.vllm_v1.block_pool import BlockPool


def pool_with_text(blocks, texts):
    """Return a pool whose first blocks hold texts and are in use."""
    pool = BlockPool(blocks)
    held = pool.take(len(texts))
    for block, text in zip(held, texts, strict=True):
        pool.register(block, text)
    return pool, held


def test_one_block_is_never_handed_out():
    pool = BlockPool(4)
    assert pool.unused == 3
    assert pool.take(3) == [1, 2, 3]
    assert pool.unused == 0


def test_the_end_of_a_text_is_evicted_before_its_beginning():
    pool, held = pool_with_text(4, [70, 71, 72])
    pool.give_back(held)
    assert pool.find([70, 71, 72]) == [1, 2, 3]
    assert pool.take(1) == [3]
    assert pool.find([70, 71, 72]) == [1, 2]
    assert pool.take(1) == [2]
    assert pool.find([70, 71, 72]) == [1]


def test_blocks_without_text_are_handed_out_before_all_others():
    pool, held = pool_with_text(6, [70, 71])
    useless = pool.take(2)
    assert useless == [3, 4]
    pool.give_back(held)
    pool.give_back(useless)
    assert pool.take(3) == [4, 3, 5]
    assert pool.find([70, 71]) == [1, 2]


def test_what_is_used_last_is_evicted_last():
    pool, held = pool_with_text(3, [70, 80])
    pool.give_back(held[:1])
    pool.give_back(held[1:])
    pool.share(pool.find([70]))
    pool.give_back(held[:1])
    assert pool.take(1) == [2]
    assert pool.find([70]) == [1]


def test_a_shared_block_stays_until_its_last_user_has_gone():
    pool, [block] = pool_with_text(2, [70])
    pool.share([block])
    assert pool.count_unused([block]) == 0
    pool.give_back([block])
    assert pool.unused == 0
    pool.give_back([block])
    assert pool.unused == 1
    assert pool.count_unused([block]) == 1


def test_a_block_that_is_shared_again_cannot_be_evicted():
    pool, held = pool_with_text(3, [70])
    pool.give_back(held)
    pool.share(held)
    assert pool.take(1) == [2]
    assert pool.unused == 0
    assert pool.find([70]) == [1]


def test_blocks_of_the_same_text_are_not_merged():
    pool, held = pool_with_text(3, [70, 70])
    assert pool.find([70]) == [1], "the first registered"
    pool.give_back(held[:1])
    assert pool.take(1) == [1]
    assert pool.find([70]) == [2], "the other still holds it"
    pool.give_back(held[1:])
    assert pool.take(1) == [2]
    assert pool.find([70]) == []


def test_a_text_is_found_up_to_its_first_missing_block():
    pool, _ = pool_with_text(4, [70, 72])
    assert pool.find([70, 71, 72]) == [1]


def test_without_text_comes_first_then_what_was_never_used_then_the_longest_unused():
    pool = BlockPool(7)
    first, second, third = pool.take(3)
    pool.register(first, 11)
    pool.give_back([first])
    pool.register(second, 12)
    pool.give_back([second, third])
    assert pool.unused == 6
    assert pool.take(6) == [third, 4, 5, 6, first, second]


def test_a_pool_takes_no_memory_for_blocks_that_are_never_used():
    pool = BlockPool(10**12)
    assert pool.take(2) == [1, 2]
    assert pool.unused == 10**12 - 3
