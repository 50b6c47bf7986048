"""Where the numbers stand that describe one decision, for compiled code.

R replicas; the first K waiting requests of each are listed.
"""

from __future__ import annotations

from vidur_ext.env.snapshot import ROWS

# Rows of the cluster's table [len(ROWS), R]; see ``snapshot.ROWS``.
(
    WAITING,
    RUNNING,
    DECODING,
    PENDING_PREFILL,
    CONTEXT,
    GENERATED,
    KV_USED,
    KV_TOTAL,
    RESTARTS,
    OLDEST_WAIT,
    MEAN_WAIT,
    BATCH_CAPACITY,
    REMAINING_OUTPUT,
) = range(len(ROWS))

# Columns of a waiting request in the queues [R, K, 3].
AGE, PROMPT, PROCESSED = range(3)
NUM_QUEUE_COLUMNS = 3

# Entries of the interval since the last decision; see ``snapshot.Interval``.
(
    DURATION,
    REQUEST_SECONDS,
    UNANSWERED_SECONDS,
    COMPLETIONS,
    IN_TIME,
    E2E_SUM,
    TTFT_SUM,
) = range(7)
"""COMPLETIONS: requests; IN_TIME: those of them within both objectives; the sums are theirs [s]."""
NUM_INTERVAL_ENTRIES = 7

# Entries of the arriving request.
REQUEST_PROMPT, REQUEST_OUTPUT = range(2)
NUM_REQUEST_ENTRIES = 2
