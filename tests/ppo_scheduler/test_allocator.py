"""Freed memory is used again instead of being fetched from the kernel anew."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
import numpy as np
from ppo_scheduler.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults_of(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        [np.ones(2**20) for _ in range(3)]  # 8 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults_of(2)
print(faults_of(50))
"""


def page_faults(how: str) -> int:
    """Return how often pages were fetched from the kernel in fifty rounds of the same work."""
    return int(subprocess.check_output([sys.executable, "-c", PROGRAM, how], text=True))


def test_arrays_of_megabytes_are_made_of_memory_that_was_freed() -> None:
    assert page_faults("keep") < 50
    assert page_faults("usual") > 5000
