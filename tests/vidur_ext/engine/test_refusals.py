"""What the compiled engine cannot do it says, by name, and in Vidur's words where it has some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur.simulation import VidurSimulation
from vidur_ext.workload.request_table import RequestTable
from vidur_ext.workload.sessions import Sessions

TABLES = "--analytic_execution_time_predictor_config_prediction_max_"


@pytest.fixture
def case_of(make_case):
    def build(prompts, outputs, **cluster):
        count = len(prompts)
        table = RequestTable(np.zeros(count), np.array(prompts), np.array(outputs))
        return make_case({"num_replicas": 1, **cluster}, "round_robin", 1000, 0, table)

    return build


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ({"cluster": {"num_pipeline_stages": 2}}, "cluster.num_pipeline_stages=1 only, not 2"),
        ({"cluster": {"replica_scheduler": "mnemosyne_fcfs"}}, "mnemosyne_fcfs"),
        (
            {"simulation": {"predictor": "local_random_forrest", "profile_dir": "profiles"}},
            "not 'local_random_forrest'",
        ),
    ],
)
def test_a_cluster_that_only_vidur_simulates_is_refused_by_name(groups, named):
    with pytest.raises(ValidationError, match=named):
        TrainingConfig.model_validate(groups)


@pytest.mark.parametrize(
    ("prompts", "outputs", "cluster", "limits"),
    [
        # A prompt's cache, a chunk, a decoding context, the batch, and the decoding requests.
        ([700], [5], {"chunk_size": 512}, ("tokens_per_request", "512")),
        ([600], [5], {"chunk_size": 1024}, ("prefill_chunk_size", "512")),
        ([500], [100], {}, ("tokens_per_request", "512")),
        ([1] * 60, [200] * 60, {}, ("batch_size", "16")),
        ([1, 1, 30] * 20, [50, 50, 1] * 20, {"replica_scheduler": "orca"},
         ("prefill_chunk_size", "32")),
    ],
)  # fmt: skip
def test_a_batch_beyond_the_tables_is_refused_as_vidur_refuses_it(
    case_of, vidur_config, prompts, outputs, cluster, limits, compiled
):
    case = case_of(prompts, outputs, **cluster)
    flags = (f"{TABLES}{limits[0]}", limits[1])
    if limits[0] != "prefill_chunk_size":
        flags += (f"{TABLES}prefill_chunk_size", "2048")
    config = vidur_config(case, *flags)
    with pytest.raises(UserError) as by_vidur:
        VidurSimulation(config, case.table).run()
    with pytest.raises(UserError) as by_engine:
        compiled(config, case.table).run()
    assert str(by_engine.value) == str(by_vidur.value)


@pytest.mark.parametrize(
    ("cluster", "named"),
    [
        ({"replica_scheduler": "sarathi", "num_blocks": 10}, "num_blocks"),
        ({"replica_scheduler": "vllm", "max_tokens_in_batch": 300}, "max_tokens_in_batch"),
        ({"replica_scheduler": "orca", "num_blocks": 10}, "num_blocks"),
    ],
)
def test_a_request_that_never_fits_is_named(case_of, vidur_config, cluster, named, compiled):
    case = case_of([20, 500, 20], [5, 5, 5], **cluster)
    config = vidur_config(case)
    with pytest.raises(AssertionError, match="pending requests"):
        VidurSimulation(config, case.table).run()
    with pytest.raises(UserError, match=f"can never be served(.|\n)*{named}"):
        compiled(config, case.table).run()


@pytest.mark.parametrize("choices", [[0, 1], [0, 0, 2], [0, -2, 1], [0.0, 1.0, 0.0]])
def test_choices_that_are_not_replicas_are_refused(case_of, vidur_config, choices, compiled):
    case = case_of([20, 20, 20], [5, 5, 5], num_replicas=2)
    with pytest.raises(UserError, match="choice"):
        compiled(vidur_config(case), case.table, choices=np.array(choices))


WAITING = Sessions(np.zeros(2, int), np.arange(2), np.array([-1, 0]), np.array([0.0, 1.0]))


def test_vidur_cannot_send_signals_late_to_requests_that_wait(case_of, vidur_config):
    case = case_of([20, 500], [5, 5])
    table = replace(case.table, sessions=WAITING)
    config = vidur_config(case.seen_late(0.5).routed_by("least_outstanding"))
    with pytest.raises(UserError, match=r"wait for the answers before them.*signal_delay_s and"):
        VidurSimulation(config, table)
