"""Validation judges the policy on workloads of its own and leaves the training as it is."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.policy.routing_policy import load_policy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.runner import runs_on_engine
from vidur_ext.routing.features import observation_schema
from vidur_ext.training.validation import Validation
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import validation_table

VALIDATED = {"validation_freq": 2, "validation_seeds": 1, "max_checkpoints": None}


@pytest.fixture
def validation(make_config):
    """Build the validation of a small training's config."""

    def build(saving: dict[str, object] | None = None, **groups: dict[str, object]) -> Validation:
        return Validation(make_config(checkpointing={**VALIDATED, **(saving or {})}, **groups))

    return build


def objective_of(validation, trained) -> float:
    """Score the policy that a training ended with."""
    config = TrainingConfig()
    policy = load_policy(trained.run / "policy.pt", observation_schema(config.observation))
    return validation.score(policy, 0, 0).objective_s(config.lookahead.ttft_weight)


def scores(trained) -> dict[int, float]:
    return {
        info.manifest.ppo_step: info.manifest.val_score
        for info in trained.infos
        if info.manifest.val_score is not None
    }


@pytest.mark.shows("checkpointing.validation_freq")
def test_every_validation_is_saved_with_its_score(make_config, train):
    trained = train(make_config(checkpointing=VALIDATED))
    assert trained.reasons == ["validation", "validation", "validation", "end"]
    rows = [row for row in trained.rows if row["Validation/Objective"]]
    objective, e2e, ttft = (
        [float(row[f"Validation/{name}"]) for row in rows]
        for name in ("Objective", "MeanLatency", "MeanTTFT")
    )
    weight = TrainingConfig().lookahead.ttft_weight
    assert objective == pytest.approx([e + weight * t for e, t in zip(e2e, ttft, strict=True)])
    assert [-score for score in scores(trained).values()] == objective
    assert all(score < 0 for score in scores(trained).values())


def test_the_best_heuristic_is_drawn_beside_the_policy(make_config, train, validation):
    config = make_config(checkpointing=VALIDATED, monitoring={"log_level": "info"})
    trained = train(config)
    rows = [row for row in trained.rows if row["Validation/Objective"]]
    [level] = {row["Validation/BestHeuristic"] for row in rows}
    name, score = validation().best_heuristic()
    weight = config.lookahead.ttft_weight
    best = score.objective_s(weight)
    assert float(level) == pytest.approx(best)
    assert f"to beat on the validation workloads: {name}, objective {best:.3f} s" in trained.log
    cluster, workloads = engine_cluster(config), {0: validation_table(config, 0)}
    for other in ("always_first", "least_outstanding", name):
        [run] = runs_on_engine(config, cluster, other, None, workloads)
        e2e, ttft = (
            np.mean(times - run.table.arrived_at)
            for times in (run.completed_at, run.prefill_completed_at)
        )
        assert e2e + weight * ttft >= best * (1 - 1e-9)
        assert other != name or e2e + weight * ttft == pytest.approx(best)


def test_what_there_is_to_beat_is_written_beside_the_scores(make_config, train, validation):
    trained = train(make_config(checkpointing=VALIDATED))
    weight = trained.validation["ttft_weight"]
    name, best = validation().best_heuristic()
    planner = validation().look_ahead()
    assert trained.validation["rivals"] == [
        {
            "name": who,
            "e2e_s": score.e2e_s,
            "ttft_s": score.ttft_s,
            "objective_s": score.e2e_s + weight * score.ttft_s,
        }
        for who, score in ((name, best), ("lookahead", planner))
    ]
    assert planner != best


def test_on_vidur_nothing_is_waited_for(validation):
    on_vidur = validation(simulation={"engine": "vidur"})
    assert on_vidur.best_heuristic() is None
    assert on_vidur.look_ahead() is None


def test_with_delayed_signals_nothing_plans(validation):
    late = validation(
        observation={"signal_delay_s": 0.5}, evaluation={"schedulers": ["least_outstanding"]}
    )
    assert late.best_heuristic() is not None
    assert late.look_ahead() is None


def test_a_validation_stands_where_its_update_stands(make_config, train):
    """With B environments the decisions at hand, which the policy has not seen, are B."""
    four = {"parallel_training": {"num_envs": 4}, "training": {"episode_requests": 25}}
    rows = train(make_config(**four, checkpointing={**VALIDATED, "validation_freq": 1})).rows
    updates, validations = (
        [row["global_step"] for row in rows if row[name]]
        for name in ("Training/Entropy", "Validation/Objective")
    )
    assert validations == updates
    assert len(updates) == 7


def test_the_score_is_that_of_the_policy_at_the_time(make_config, train, validation):
    config = make_config(checkpointing={**VALIDATED, "validation_freq": 3})
    trained = train(config)
    step, score = list(scores(trained).items())[-1]
    chunk = make_config(
        checkpointing={
            "checkpoint_dir": config.checkpointing.checkpoint_dir + "_chunk",
            "validation_freq": None,
        }
    )
    stopped = train(chunk, "chunk", stop_at_requests=step)
    assert objective_of(validation(), stopped) == -score


def test_training_is_not_disturbed(make_config, train):
    plain = train(make_config(checkpointing={"validation_freq": None}), "plain")
    config = make_config(
        checkpointing={**VALIDATED, "checkpoint_dir": str(plain.run.parent / "validated")}
    )
    assert train(config, "validated").has_weights_of(plain, which=("last",))


def test_a_resume_repeats_no_validation_and_misses_none(make_config, train):
    straight = train(make_config(checkpointing=VALIDATED))
    first = min(scores(straight))
    for step in (first - 1, first):
        config = make_config(
            checkpointing={
                **VALIDATED,
                "checkpoint_dir": str(straight.run.parent / f"stopped_at_{step}"),
            }
        )
        train(config, f"run_{step}", stop_at_requests=step)
        resumed = train(config, f"run_{step}", load_checkpoint="latest")
        assert resumed.rows == straight.rows
        assert resumed.validation == straight.validation
        assert list(scores(resumed).items())[-2:] == list(scores(straight).items())[-2:]


@pytest.mark.shows("checkpointing.checkpoint_strategy")
def test_top_k_val_keeps_the_best_and_the_newest(make_config, train):
    keys = {**VALIDATED, "validation_freq": 1, "checkpoint_interval": 100}
    everything = train(make_config(checkpointing=keys))
    best = sorted(scores(everything).items(), key=lambda item: (item[1], item[0]))[-2:]
    config = make_config(
        checkpointing={
            **keys,
            "checkpoint_strategy": "top_k_val",
            "max_checkpoints": 2,
            "checkpoint_dir": str(everything.run.parent / "best"),
        }
    )
    assert train(config, "best").steps == sorted({step for step, _ in best} | {240})


@pytest.mark.parametrize(("seeds", "tolerance"), [(1, 1e-9), (3, 0.02)])
def test_both_engines_give_the_same_score(seeds, tolerance, make_config, train, validation):
    """Several workloads are decided for at once, which may turn near-ties."""
    trained = train(make_config())
    on_vidur, compiled = (
        objective_of(
            validation({"validation_seeds": seeds}, simulation={"engine": engine}), trained
        )
        for engine in ("vidur", "compiled")
    )
    assert compiled == pytest.approx(on_vidur, rel=tolerance)


@pytest.mark.shows("checkpointing.validation_seeds", "checkpointing.validation_requests")
def test_validation_requests_and_seeds_are_the_workloads(make_config, train, validation):
    trained = train(make_config())
    one, more, longer = (
        objective_of(validation(saving), trained)
        for saving in ({}, {"validation_seeds": 3}, {"validation_requests": 64})
    )
    assert len({one, more, longer}) == 3
    assert objective_of(validation(), trained) == one


def test_of_a_trace_a_quarter_at_the_end_of_the_training_part_is_taken_at_most(
    tmp_path, validation
):
    """160 of 200 requests are to train on: 2 workloads have 40, and 30 each would be too many."""
    rows = [f"2023-11-16 18:00:{i // 10:02d}.{i % 10}000000,{100 + i},10" for i in range(200)]
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    workload = {"source": "trace", "trace_file": str(trace), "holdout_fraction": 0.2}
    for asked, given in ((30, 20), (16, 16)):
        keys = {"validation_seeds": 2, "validation_requests": asked}
        tables = validation(keys, workload=workload)._workloads.values()
        assert [len(table) for table in tables] == [given, given]
        first = [int(table.prefill_tokens[0]) - 100 for table in tables]
        assert first == [160 - given, 160 - 2 * given]
    message = "160 requests, too few for checkpointing.validation_seeds=3 workloads of 16"
    with pytest.raises(UserError, match=message):
        validation({"validation_seeds": 3}, workload=workload)
