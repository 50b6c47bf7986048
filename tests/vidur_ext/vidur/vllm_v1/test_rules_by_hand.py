"""Steps of small replicas, worked out by hand: blocks of 4 tokens, segments as letters' numbers."""

from __future__ import annotations

A, B, C, D = 1, 2, 3, 4
"""Segments."""


def answer(request):
    return 1000 + request


def test_prompts_share_one_budget_of_tokens(replica):
    one = replica([([(A, 10)], 3), ([(B, 6)], 2)], budget=8)
    one.arrive(0, 1)
    assert one.step() == [(0, 8)]
    assert one.step() == [(0, 2), (1, 6)]
    assert one.step() == [(0, 1), (1, 1)]
    assert one.step() == [(0, 1)], "the second is complete: its last token is not computed"
    assert not one.scheduler.running


def test_those_who_run_come_before_those_who_wait(replica):
    one = replica([([(A, 10)], 3), ([(B, 6)], 2)], budget=4)
    one.arrive(0)
    assert [one.step(), one.step()] == [[(0, 4)], [(0, 4)]]
    one.arrive(1)
    assert one.step() == [(0, 2), (1, 2)]
    assert one.step() == [(0, 1), (1, 3)]


def test_no_more_requests_run_than_allowed(replica):
    one = replica([([(A, 2)], 2), ([(B, 2)], 2), ([(C, 2)], 2)], max_num_seqs=2)
    one.arrive(0, 1, 2)
    assert [one.step() for _ in range(4)] == [
        [(0, 2), (1, 2)],
        [(0, 1), (1, 1)],
        [(2, 2)],
        [(2, 1)],
    ]


def test_full_blocks_of_a_prompt_are_found_by_the_next(replica):
    one = replica([([(A, 10)], 1), ([(A, 10), (B, 3)], 1)])
    one.arrive(0)
    assert one.step() == [(0, 10)]
    one.arrive(1)
    assert one.step() == [(1, 5)], "two blocks of four are found, the third was not full"


def test_a_segment_that_is_cut_shorter_shares_what_is_left(replica):
    one = replica([([(A, 20)], 1), ([(A, 13), (B, 8)], 1)])
    one.arrive(0)
    one.step()
    one.arrive(1)
    assert one.step() == [(1, 9)]


def test_a_prompt_that_is_all_there_has_its_last_block_computed_again(replica):
    one = replica([([(A, 12)], 1), ([(A, 12)], 1), ([(A, 13)], 1)])
    one.arrive(0)
    one.step()
    one.arrive(1)
    assert one.step() == [(1, 4)]
    one.arrive(2)
    assert one.step() == [(2, 1)]


def test_answers_are_found_too_but_for_their_last_token(replica):
    # The answer's fifth token is never computed, so the third block has three tokens with KV.
    rows = [([(A, 7)], 5), ([(A, 7), (answer(0), 5), (B, 1)], 1), ([(A, 7)], 6)]
    one = replica([*rows, ([(A, 7), (answer(2), 6), (B, 1)], 1)])
    for number in range(4):
        one.arrive(number)
        one.run()
    assert one.hits == [(0, 0), (1, 8), (2, 4), (3, 12)]


def test_equal_prompts_of_one_step_share_what_the_first_will_have_computed(replica):
    one = replica([([(A, 9)], 1), ([(A, 9)], 1)])
    one.arrive(0, 1)
    assert one.step() == [(0, 9), (1, 1)]


def test_a_preempted_request_finds_what_is_left_of_it(replica):
    # Five blocks. Both prompts take two, and the first answer the fifth. The second request needs a
    # third block and gives up its two, which are not enough to admit it again. The first answer
    # needs one more for its sixth token: it takes the end of the second prompt, and all is free.
    one = replica([([(A, 8)], 6), ([(B, 8)], 4)], num_blocks=6)
    one.arrive(0, 1)
    assert one.step() == [(0, 8), (1, 8)]
    assert one.step() == [(0, 1)]
    assert one.preempted == [1]
    assert [one.step() for _ in range(4)] == [[(0, 1)]] * 4
    assert one.step() == [(1, 5)], "four tokens of the prompt are found, and one was answered"
    assert one.hits == [(0, 0), (1, 0), (1, 4)]


def test_who_is_preempted_goes_before_those_who_wait(replica):
    one = replica([([(A, 8)], 6), ([(B, 8)], 4), ([(C, 4)], 1)], num_blocks=6, max_num_seqs=2)
    one.arrive(0, 1, 2)
    one.step()
    one.step()
    assert list(one.scheduler.waiting) == [one.requests[1], one.requests[2]]


def test_the_last_to_be_admitted_is_preempted_first(replica):
    one = replica([([(A, 4)], 9), ([(B, 4)], 9), ([(C, 4)], 9)], num_blocks=6)
    one.arrive(0, 1, 2)
    one.step()
    assert one.step() == [(0, 1), (1, 1)]
    assert one.preempted == [2]


def test_nobody_is_admitted_in_a_step_that_preempts(replica):
    one = replica([([(A, 8)], 6), ([(B, 8)], 4), ([(C, 1)], 1)], num_blocks=6)
    one.arrive(0, 1)
    one.step()
    one.arrive(2)
    assert one.step() == [(0, 1)], "a block is left that the third would fit in"


def test_a_prompt_is_admitted_when_all_of_it_fits(replica):
    rows = [([(A, 8)], 3), ([(B, 16)], 1)]
    one = replica(rows, num_blocks=6, budget=16)
    one.arrive(0, 1)
    assert one.step() == [(0, 8)], "three blocks are left: two would do for this step, not for all"
    other = replica(rows, num_blocks=6, budget=16, reserve_full_prompt=False)
    other.arrive(0, 1)
    assert other.step() == [(0, 8), (1, 8)]


def test_unused_blocks_that_are_found_count_as_needed(replica):
    # Five blocks. The first leaves two with text, and the second takes one of the other three.
    # The third finds two and needs two more: four of the four that nobody uses.
    one = replica([([(A, 8)], 1), ([(B, 4)], 3), ([(A, 8), (C, 8)], 1)], num_blocks=6)
    one.arrive(0)
    one.step()
    one.arrive(1, 2)
    assert one.step() == [(1, 4), (2, 8)]
    tight = replica([([(A, 8)], 1), ([(B, 8)], 3), ([(A, 8), (C, 8)], 1)], num_blocks=6)
    tight.arrive(0)
    tight.step()
    tight.arrive(1, 2)
    assert tight.step() == [(1, 8)]


def test_a_watermark_is_kept_free_unless_nobody_runs(replica):
    one = replica([([(A, 8)], 3), ([(B, 8)], 1)], num_blocks=8, watermark=0.5)
    one.arrive(0, 1)
    assert one.step() == [(0, 8)], "two of five blocks would leave three of the four to be spared"
    alone = replica([([(A, 28)], 1)], num_blocks=8, watermark=0.5)
    alone.arrive(0)
    assert alone.step() == [(0, 28)]


def test_a_prompt_that_does_not_fit_lets_none_pass(replica):
    one = replica([([(A, 40)], 1), ([(B, 4)], 1)], num_blocks=6)
    one.arrive(0, 1)
    assert one.step() == []
    assert list(one.scheduler.waiting) == one.requests


def test_nothing_is_found_without_caching(replica):
    one = replica([([(A, 12)], 1), ([(A, 12)], 1)], prefix_caching=False)
    one.arrive(0)
    one.step()
    one.arrive(1)
    assert one.step() == [(1, 12)]


def test_a_beginning_outlives_its_end(replica):
    # Seven blocks: the first leaves four with text and three without; the second takes five, so
    # two of the text go, from its end.
    one = replica([([(A, 16)], 1), ([(B, 20)], 1), ([(A, 17)], 1)], num_blocks=8)
    for number in range(3):
        one.arrive(number)
        one.run()
    assert one.hits == [(0, 0), (1, 0), (2, 8)]
