"""The processes that train together.

The first one owns the run: it asks the operator, saves, writes and compares. The others, its
companions, do nothing but their shards' part of the training. It starts them itself
(``parallel_training.num_processes``), or a launcher has started them all: see ``launched.py``. They
find each other in a store of torch.distributed; what they read beside it are the files that a
config names.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import sleep
from typing import Any

from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.parallel.process_group import ProcessGroup, ProcessLost
from ppo_scheduler.parallel.shards import OneProcess, Processes
from vidur_ext.config.training_config import TrainingConfig, unsplittable
from vidur_ext.exits import exit_status
from vidur_ext.launched import (
    END,
    ORDER,
    PATIENCE,
    TRAIN,
    launched_count,
    launched_rank,
    launched_store,
    store_at,
)
from vidur_ext.processes import compute_with, end_with_parent, ending, start_child
from vidur_ext.training.beginning import Beginning, training_stream
from vidur_ext.training.instruments import unseen_instruments
from vidur_ext.training.pulse import beating, watching

_POLL_S = 0.05
_LAST_WORDS_S = 5.0
"""How long one waits to hear how a companion that is lost has ended."""

_WAY_OUT = "What was saved is intact: go on with --resume latest"

Companions = Sequence["subprocess.Popen[bytes]"]


@contextmanager
def gathered(beginning: Beginning) -> Iterator[Processes]:
    """Gather the processes that train, and tell the companions how the training begins.

    Companions that were started here end with the block.

    Raises:
        ProcessLost: one of them has ended, or does not answer any more.
    """
    wanted, launched = beginning.config.parallel_training.num_processes, launched_count()
    if launched > 1:
        with _launched_group(launched, beginning) as group:
            yield group
    elif wanted > 1:
        with _own_group(wanted, beginning) as group:
            yield group
    else:
        yield OneProcess()


@contextmanager
def _launched_group(count: int, beginning: Beginning) -> Iterator[ProcessGroup]:
    """Give the group that a launcher has started. It ends whatever is left of it."""

    def end(rank: int | None = None) -> None:
        who = "the store of the launcher" if rank is None else f"process {rank} of {count}"
        print(f"error: {who} does not answer any more. {_WAY_OUT}", file=sys.stderr, flush=True)
        os._exit(2)  # nobody can interrupt a process that waits for another machine

    store = launched_store()
    store.wait([_ready(rank) for rank in range(1, count)], PATIENCE)
    with (
        watching(store.clone(), range(1, count), end, end),
        _told(store, count, beginning) as group,
    ):
        yield group


@contextmanager
def _own_group(count: int, beginning: Beginning) -> Iterator[ProcessGroup]:
    """Give the group of this process and the companions that it starts."""
    silent: set[int] = set()
    with _started(count) as (store, companions), _naming_who_ended(companions, silent):

        def end(rank: int) -> None:
            companion = companions[rank - 1]
            if companion.poll() is None:
                silent.add(rank)
                companion.kill()

        _wait_for(companions, store)
        others = range(1, count)
        with (
            watching(store.clone(), others, end, lambda: None),
            _told(store, count, beginning) as group,
        ):
            yield group


def follow() -> None:
    """Take part in what the first process trains; end with it if it does not train.

    How that went, the first process says.
    """
    rank, count, store = launched_rank(), launched_count(), launched_store()
    with beating(store.clone(), rank, on_lost_store=lambda: os._exit(1)):
        store.set(_ready(rank), "")
        store.wait([ORDER], PATIENCE)
        if store.get(ORDER) == END:
            return
        logging.getLogger("ppo").setLevel(logging.CRITICAL + 1)
        with suppress(Interrupted, ProcessLost), _connected(store, rank, count) as group:
            _take_part(Beginning.from_bytes(group.receive()), group)


def _take_part(beginning: Beginning, processes: Processes) -> None:
    """Train as the first process does, and write nothing."""
    config = beginning.config
    compute_with(config.training.torch_threads)
    stream = training_stream(config, beginning.requests)
    instruments = unseen_instruments(config, config.cluster.num_replicas, processes)
    session = beginning.session(stream, None, instruments, None, processes)
    if config.checkpointing.enable_checkpoints:
        session.state_dict()  # the first process looks whether there is space for it
    beginning.go_on(session)
    session.run()


def check_launched(config: TrainingConfig) -> None:
    """Check that the training can do with as many processes as a launcher has started.

    Raises:
        UserError: it cannot.
    """
    count, parallel = launched_count(), config.parallel_training
    if count == 1:
        return
    if parallel.num_processes not in (1, count):
        raise UserError(
            f"parallel_training.num_processes={parallel.num_processes}, but the launcher has "
            f"started {count} processes: leave num_processes out"
        )
    problem = unsplittable(config, count)
    if problem is not None:
        raise UserError(f"the launcher has started {count} processes: {problem}")


@contextmanager
def _connected(store: Any, rank: int, count: int) -> Iterator[ProcessGroup]:
    """Give the group of processes that meet in a store."""
    group = ProcessGroup(store, rank, count)
    try:
        yield group
    finally:
        group.close()


@contextmanager
def _told(store: Any, count: int, beginning: Beginning) -> Iterator[ProcessGroup]:
    """Give the group whose companions have been told how the training begins."""
    store.set(ORDER, TRAIN)
    with _connected(store, 0, count) as group:
        group.send(beginning.to_bytes())
        yield group


@contextmanager
def _started(count: int) -> Iterator[tuple[Any, Companions]]:
    """Start the companions of this process, ``count`` together; they end with the block."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = store_at("127.0.0.1", 0, is_master=True)
    place = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.underlying_store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    companions: list[subprocess.Popen[bytes]] = []
    try:
        with os.fdopen(os.dup(2), "wb") as messages:
            for rank in range(1, count):
                variables = {**place, "RANK": str(rank)}
                companions.append(start_child(__name__, [], messages, variables=variables))
        yield store, companions
        for companion in companions:
            companion.wait()
    finally:
        for companion in companions:
            companion.kill()
            companion.wait()


def _wait_for(companions: Companions, store: Any) -> None:
    """Return when all companions are ready.

    Raises:
        ProcessLost: one has ended before.
    """
    ready = [_ready(rank) for rank, _ in enumerate(companions, 1)]
    while not store.check(ready):
        if any(companion.poll() is not None for companion in companions):
            raise ProcessLost("a companion was not ready")
        sleep(_POLL_S)


def _ready(rank: int) -> str:
    return f"ready_{rank}"


@contextmanager
def _naming_who_ended(companions: Companions, silent: set[int]) -> Iterator[None]:
    """Say of a lost companion how it ended, as soon as that is known.

    Args:
        silent: the numbers of those that were ended because they did not answer any more.
    """
    try:
        yield
    except ProcessLost as lost:
        for _ in range(round(_LAST_WORDS_S / _POLL_S)):
            for rank, companion in enumerate(companions, 1):
                if companion.poll() is not None:
                    how = "did not answer" if rank in silent else ending(companion.returncode)
                    raise ProcessLost(
                        f"process {rank} of the {1 + len(companions)} that train together {how}. "
                        f"{_WAY_OUT}"
                    ) from lost
            sleep(_POLL_S)
        raise


def main() -> None:
    """Entry point of a companion that the first process starts."""

    def program() -> None:
        end_with_parent()
        follow()

    sys.exit(exit_status(program))


if __name__ == "__main__":
    main()
