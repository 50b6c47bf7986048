"""One of the processes of ``test_process_group.py``. Run as a script: PORT RANK COUNT.

It exchanges, prints as JSON what it has been given, and then the last one ends without a word,
while the others go on: what they print then is what they are told of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys

import numpy as np
from torch.distributed import TCPStore

from ppo_scheduler.parallel.process_group import ProcessGroup, ProcessLost


def exchanges(group: ProcessGroup) -> dict[str, object]:
    """Return what was exchanged, by what it shows."""
    rank, count = group.rank, group.count
    lengths = [3 * other for other in range(count)]
    whole = np.arange(lengths[rank], dtype=np.int16) - 100 * rank
    pairs = np.full((rank + 1, 2), 0.1 * (rank + 1))
    received = []
    for said in (b"\x00\xff", bytes(1_000_000)):
        if rank == 0:
            group.send(said)
        received.append(said if rank == 0 else group.receive())
    return {
        "known lengths": [part.tolist() for part in group.gather(whole, lengths)],
        "unknown lengths": [part.tolist() for part in group.gather(pairs)],
        "no width": [list(part.shape) for part in group.gather(np.zeros((rank, 0)))],
        "truths": [part.tolist() for part in group.gather(np.array([rank == 0]))],
        "bits": [part.tobytes().hex() for part in group.gather(np.array([-0.0, np.nan]))],
        "types": sorted({part.dtype.name for part in group.gather(whole, lengths)}),
        "received": [hashlib.sha256(data).hexdigest() for data in received],
    }


def main() -> None:
    port, rank, count = (int(argument) for argument in sys.argv[1:])
    group = ProcessGroup(TCPStore("127.0.0.1", port), rank, count)
    print(json.dumps(exchanges(group)), flush=True)
    if rank == count - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        while True:
            group.gather(np.zeros(1))
    except ProcessLost as lost:
        print(json.dumps(str(lost)), flush=True)
    finally:
        group.close()


if __name__ == "__main__":
    main()
