"""Real processes exchange arrays and bytes, and learn that another one has ended."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.distributed import PrefixStore, TCPStore

from ppo_scheduler.parallel import process_group
from ppo_scheduler.parallel.process_group import ProcessGroup, ProcessLost

MEMBER = Path(__file__).with_name("member_of_group.py")
LIMIT_S = 30.0
"""Until all must know that one of them has ended."""


@dataclass(frozen=True)
class Member:
    """What a process has printed and how it has ended."""

    exchanged: dict[str, Any]
    told: Sequence[str]
    status: int


def members(count: int) -> list[Member]:
    """Let so many processes exchange, the last one end without a word, and all end."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with started(store, range(count), count) as processes:
        printed = [process.communicate(timeout=LIMIT_S)[0] for process in processes]
    said = [[json.loads(line) for line in text.splitlines()] for text in printed]
    return [
        Member(exchanged, told, process.returncode)
        for (exchanged, *told), process in zip(said, processes, strict=True)
    ]


@contextmanager
def started(
    store: TCPStore, ranks: Sequence[int], count: int
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start processes of these numbers, which end with the block."""
    here = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(MEMBER), str(store.port), str(rank), str(count)],
            stdout=subprocess.PIPE,
            env=here,
        )
        for rank in ranks
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def two() -> list[Member]:
    return members(2)


def check(group: list[Member]) -> None:
    """Check what was exchanged by processes of which number i has i times three numbers."""
    ranks = range(len(group))
    expected = {
        "known lengths": [[n - 100 * rank for n in range(3 * rank)] for rank in ranks],
        "unknown lengths": [[[0.1 * (rank + 1)] * 2] * (rank + 1) for rank in ranks],
        "no width": [[rank, 0] for rank in ranks],
        "truths": [[rank == 0] for rank in ranks],
        "bits": [np.array([-0.0, np.nan]).tobytes().hex()] * len(group),
        "types": ["int16"],
        "received": [hashlib.sha256(data).hexdigest() for data in (b"\x00\xff", bytes(1_000_000))],
    }
    for member in group:
        assert member.exchanged == expected


def test_arrays_of_any_length_and_bytes_arrive_as_they_were_given(two) -> None:
    check(two)


def test_who_goes_on_is_told_that_another_has_ended_and_what_to_do(two) -> None:
    left, killed = two
    assert (killed.status, killed.told) == (-signal.SIGKILL, [])
    [message] = left.told
    assert message.startswith("another process of this training has ended or cannot be reached (")
    assert message.endswith("What was saved is intact: start again with --resume latest")
    assert "\n" not in message
    assert left.status == 0


def test_a_group_that_could_not_connect_hinders_no_later_one(monkeypatch) -> None:
    """As where a companion was lost at once, and a new one is started."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with monkeypatch.context() as impatient:
        impatient.setattr(process_group, "_CONNECTING", timedelta(seconds=0.1))
        with pytest.raises(ProcessLost, match="cannot be reached"):
            ProcessGroup(PrefixStore("first", store), 0, 2)
    exchanges = runpy.run_path(str(MEMBER))["exchanges"]
    with started(store, [1], 2) as [other]:
        group = ProcessGroup(store, 0, 2)
        exchanged = exchanges(group)
        assert json.loads(other.communicate(timeout=LIMIT_S)[0]) == exchanged
        group.close()


@pytest.mark.slow
def test_five_processes_do_the_same() -> None:
    group = members(5)
    check(group)
    for member in group[:-1]:
        [message] = member.told
        assert "another process of this training has ended" in message
    assert group[-1].status == -signal.SIGKILL
