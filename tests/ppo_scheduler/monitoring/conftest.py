"""A disk that refuses for a while."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import pytest


@pytest.fixture
def files_end_at():
    """Let the disk refuse what is behind so many bytes of a file, inside a block."""

    @contextmanager
    def limited(size: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
