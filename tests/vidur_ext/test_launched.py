"""Of the processes that a launcher has started the first runs the program, the others follow."""

from __future__ import annotations

import pytest

from vidur_ext.launched import (
    END,
    ORDER,
    launched_count,
    launched_rank,
    launched_store,
    run_first,
    store_at,
)


@pytest.fixture
def launch(monkeypatch):
    """Say what a launcher says to a process."""

    def say(rank: int, count: int, port: int | None = None) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(count))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port or 1))
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")

    return say


def run() -> list[str]:
    """Return what a process does."""
    done = []
    run_first(lambda: done.append("program"), lambda: done.append("follow"))
    return done


def test_without_a_launcher_the_program_runs(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (launched_rank(), launched_count()) == (0, 1)
    assert run() == ["program"]


def test_a_launcher_of_one_process_is_none(launch):
    """A batch system may leave a rank in the environment of what it starts."""
    launch(3, 1)
    assert launched_rank() == 0
    assert run() == ["program"]


def test_all_but_the_first_follow(launch):
    launch(1, 2)
    assert run() == ["follow"]


@pytest.mark.parametrize("fails", [False, True])
def test_who_waits_is_told_when_the_program_has_ended(launch, fails):
    def program() -> None:
        if fails:
            raise RuntimeError("it failed")

    store = store_at("127.0.0.1", 0, is_master=True)
    launch(0, 2, store.underlying_store.port)
    if fails:
        with pytest.raises(RuntimeError, match="it failed"):
            run_first(program, lambda: None)
    else:
        run_first(program, lambda: None)
    assert store.get(ORDER) == END


def test_a_program_that_torchrun_starts_again_does_not_hear_its_earlier_life(launch, monkeypatch):
    store = store_at("127.0.0.1", 0, is_master=True)
    launch(1, 2, store.underlying_store.port)
    store.set(ORDER, END)
    assert launched_store().check([ORDER])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not launched_store().check([ORDER])
