"""The comparison with recorded decisions of vLLM tells where ours differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vllm_parity import GOLDEN, first_difference, read_cases

from ppo_scheduler.errors import UserError

PROGRAM = Path(__file__).parents[2] / "benchmarks/vllm_parity.py"


@pytest.fixture
def case():
    return read_cases(GOLDEN)[0]


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        ("steps", lambda steps: steps[3].append([9, 1]), "step 3: ours"),
        ("steps", lambda steps: steps.append([[0, 1]]), "ours schedules None, vLLM [[0, 1]]"),
        ("cached", lambda cached: cached.__setitem__(0, 16), "cached[0]: ours 0, vLLM 16"),
        ("preempted", lambda found: found.append([1, 2]), "preempted[0]: ours None, vLLM [1, 2]"),
        ("resumed", lambda found: found.append([1, 2, 0]), "resumed[0]: ours None"),
        ("finished", lambda ends: ends.__setitem__(1, None), "finished[1]: ours"),
    ],
)
def test_the_first_difference_is_named(case, key, change, expected):
    change(case[key])
    assert expected in first_difference(case)


def test_equal_cases_end_well_and_different_ones_do_not(case, tmp_path, run_python):
    wrong = {**case, "cached": [16] * len(case["cached"])}
    lines = [json.dumps(case), json.dumps(wrong)]
    file, figures = tmp_path / "cases.jsonl", tmp_path / "figures.json"
    for count, status in ((1, 0), (2, 1)):
        file.write_text("\n".join(lines[:count]), encoding="utf-8")
        ended = run_python(PROGRAM, "--cases", file, "--json", figures)
        assert ended.returncode == status, ended.stderr
        assert ("case 1 (chat), cached[0]: ours 0, vLLM 16" in ended.stdout) == (count == 2)
        found = json.loads(figures.read_text(encoding="utf-8"))
        assert (found["cases_equal"], found["cases"]) == (1, count)


@pytest.mark.parametrize("line", ["[]", "{", '{"config": {}}', '{"config": {"blocks": 3}}'])
def test_a_line_that_is_no_case_is_named(tmp_path, line):
    file = tmp_path / "cases.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(UserError, match=r"cases\.jsonl:1: .*record it again"):
        read_cases(file)


def test_a_case_without_decisions_is_named(case, tmp_path):
    file = tmp_path / "cases.jsonl"
    del case["resumed"]
    file.write_text(json.dumps(case), encoding="utf-8")
    with pytest.raises(UserError, match="has no resumed"):
        read_cases(file)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.jsonl: cannot be read"):
        read_cases(tmp_path / "absent.jsonl")
