"""Texts as lines: requests are on common ones exactly as far as their texts are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidur_ext.engine.layout import Line
from vidur_ext.engine.texts import TextTree, common_texts, texts_of
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.block_identities import block_runs
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

BLOCK = 4


def way(texts, request, blocks):
    """Return (line, position) of each of a text's first ``blocks`` blocks."""
    places: list[tuple[int, int]] = []
    line, end = int(texts.leaves[request]), blocks
    while line >= 0:
        base = int(texts.lines[line, Line.BASE])
        places = [(line, place) for place in range(base, end)] + places
        line, end = int(texts.lines[line, Line.PARENT]), base
    return places


def texts_and_runs(rows, outputs):
    prompts = Prompts.of(rows, [1000 + row for row in range(len(rows))])
    runs = block_runs(prompts, np.array(outputs), BLOCK)
    return common_texts(runs), runs


def test_a_session_goes_along_one_line_and_others_leave_it_where_they_part():
    first = [(1, 8), (2, 8)]
    second = [*first, (1000, 8), (3, 8)]
    other = [(1, 8), (4, 8)]
    texts, _ = texts_and_runs([first, second, other, other], [8, 8, 8, 8])
    assert texts.leaves.tolist() == [0, 0, 2, 3]
    assert texts.lines[0].tolist() == [-1, 0]
    assert texts.lines[2].tolist() == [0, 2], "behind the two blocks of segment 1"
    assert texts.lines[3].tolist() == [2, 4], "the same prompt, and an answer of its own"


def test_a_text_that_ends_on_another_ones_line_has_none():
    texts, _ = texts_and_runs([[(1, 40)], [(1, 20)]], [1, 1])
    assert texts.leaves.tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_at_one_place_exactly_where_they_have_one_identity(seed):
    rng = np.random.default_rng(seed)
    rows: list[list[tuple[int, int]]] = []
    for request in range(30):
        text = []
        if rows and rng.random() < 0.7:
            parent = int(rng.integers(request))
            text = [*rows[parent], (1000 + parent, int(rng.integers(1, 20)))]
        rows.append([*text, (int(rng.integers(4)), int(rng.integers(1, 20)))])
    texts, runs = texts_and_runs(rows, rng.integers(1, 30, len(rows)))
    place_of: dict[int, tuple[int, int]] = {}
    for request in range(len(rows)):
        identities = runs.of_request(request).tolist()
        for identity, place in zip(identities, way(texts, request, len(identities)), strict=True):
            assert place_of.setdefault(identity, place) == place
    assert len(set(place_of.values())) == len(place_of)


def test_texts_that_are_added_as_they_arrive_are_those_of_the_whole_table():
    rows = [[(1, 8), (2, 8)], [(1, 8), (3, 4)], [(1, 8), (2, 8), (1000, 8), (4, 9)]]
    texts, runs = texts_and_runs(rows, [8, 8, 8])
    tree = TextTree()
    for request in range(3):
        part = slice(runs.first[request], runs.first[request + 1])
        place = tree.add(request, runs.identity[part].tolist(), runs.blocks[part].tolist())
        assert place.leaf == texts.leaves[request]
        assert [place.parent, place.base] == texts.lines[request].tolist()


def test_where_nothing_is_kept_texts_have_nothing_in_common(make_config):
    same = Prompts.of([[(1, 64)], [(1, 64)]], [1000, 1001])
    table = replace(RequestTable.from_rows([(0.0, 64, 40), (1.0, 64, 40)]), prompts=same)
    caching, plain = (
        engine_cluster(
            make_config(cluster={"replica_scheduler": "vllm_v1", "prefix_caching": kept})
        ).settings
        for kept in (True, False)
    )
    assert texts_of(table, caching).lines[1].tolist() == [0, 4]
    assert texts_of(table, plain).lines[1].tolist() == [-1, 0]
