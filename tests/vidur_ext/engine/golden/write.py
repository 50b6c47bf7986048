"""Write the golden traces anew from Vidur: ``python tests/vidur_ext/engine/golden/write.py``.

Do so when the predictor's constants change, and say in the commit why the traces did.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur.simulation import simulation_of
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

CLUSTERS = {
    "sarathi_preempting": ("least_tokens", {"replica_scheduler": "sarathi", "num_blocks": 50}),
    "vllm_preempting": (
        "power_of_two",
        {"replica_scheduler": "vllm", "num_blocks": 50, "max_tokens_in_batch": 2048},
    ),
    "orca_full": ("lor", {"replica_scheduler": "orca", "num_blocks": 300}),
    "vllm_v1_sharing": (
        "least_outstanding",
        {"replica_scheduler": "vllm_v1", "num_blocks": 70, "watermark_blocks_fraction": 0.0},
    ),
}
REQUESTS = 40


def _texts(rng: np.random.Generator) -> tuple[list[list[tuple[int, int]]], list[int]]:
    """Draw prompts, most of which begin with one of two texts; see ``Prompts.of``."""
    rows = []
    for request in range(REQUESTS):
        common = [(int(rng.integers(2)), int(rng.integers(20, 200)))] if rng.random() < 0.8 else []
        rows.append([*common, (10 + request, int(rng.integers(1, 150)))])
    return rows, [1000 + request for request in range(REQUESTS)]


def main() -> None:
    """Write one file per cluster beside this one."""
    for number, (name, (rule, cluster)) in enumerate(CLUSTERS.items()):
        rng = np.random.default_rng(number)
        gaps = rng.exponential(0.02, REQUESTS) * (rng.random(REQUESTS) > 0.2)
        prompts, outputs = rng.integers(1, 300, REQUESTS), rng.integers(1, 300, REQUESTS)
        texts = _texts(rng) if cluster["replica_scheduler"] == "vllm_v1" else None
        if texts is not None:
            prompts = Prompts.of(*texts).lengths
        table = RequestTable(
            np.cumsum(gaps), prompts, outputs, None if texts is None else Prompts.of(*texts)
        )
        groups = {"cluster": {"num_replicas": 2, **cluster}, "workload": {"max_tokens": 2048}}
        simulation = simulation_of(TrainingConfig.model_validate(groups), rule, table)
        simulation.run()
        document = {
            "rule": rule,
            **groups,
            "arrived_at": table.arrived_at.tolist(),
            "prefill_tokens": table.prefill_tokens.tolist(),
            "decode_tokens": table.decode_tokens.tolist(),
            "texts": texts,
            "found_tokens": simulation.found_tokens.tolist(),
            "replica": simulation.routing.tolist(),
            "restarts": [r.num_restarts for r in simulation.requests],
            "times": [
                [r.scheduled_at, r.prefill_completed_at, r.completed_at]
                for r in simulation.requests
            ],
        }
        text = json.dumps(document, separators=(",", ":"))
        Path(__file__).with_name(f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
