"""No knob without effect: every config key has a test that shows what it changes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ppo_scheduler.config.learner_sections import CurriculumStage
from vidur_ext.config.fields import leaf_fields
from vidur_ext.config.training_config import TrainingConfig

TESTS = Path(__file__).resolve().parents[1]
STAGE = "curriculum_learning.stages[]."

CONTROL = "ppo_scheduler/control"
PPO = "ppo_scheduler/ppo"
TRAINING = "vidur_ext/training"
RUNS = "vidur_ext/runs"
VALIDATION = f"{TRAINING}/test_validation_while_training.py"
CONTINUED = f"{TRAINING}/test_what_is_continued.py"
ROUTING = "vidur_ext/routing"
WORKLOAD = "vidur_ext/workload"
EVALUATION = "vidur_ext/evaluation"
CLONING = "vidur_ext/warmstart/test_cloning.py"
CLUSTER = "vidur_ext/vidur/test_cluster_keys.py"

SHOWN_BY: dict[str, tuple[str, ...]] = {
    f"{PPO}/test_learner.py::test_same_seed_same_weights_and_another_seed_others": (
        "training.seed",
    ),
    f"{TRAINING}/test_exact_resume.py::test_a_finished_training_can_be_extended": (
        "training.total_requests",
    ),
    f"{TRAINING}/test_exact_resume.py::test_episodes_end_where_the_config_says": (
        "training.episode_requests",
    ),
    f"{ROUTING}/test_router_view.py::test_an_oracle_sees_output_lengths": (
        "observation.output_length",
    ),
    f"{ROUTING}/test_router_view.py::test_queue_slots_describe_waiting_requests_in_order": (
        "observation.queue_slots",
    ),
    f"{ROUTING}/test_router_view.py::test_columns_match_the_schema": ("observation.history",),
    f"{ROUTING}/test_router_view.py::test_history_alpha_changes_the_history_only": (
        "observation.history_alpha",
    ),
    f"{PPO}/test_learner.py::test_clipped_observations_stay_within_the_clip": ("observation.clip",),
    "ppo_scheduler/policy/test_actor_critic.py::test_every_architecture_key_changes_the_outputs": (
        "actor_critic_architecture.hidden_size",
        "actor_critic_architecture.encoder_layers",
        "actor_critic_architecture.attention_layers",
        "actor_critic_architecture.attention_heads",
        "actor_critic_architecture.activation",
        "actor_critic_architecture.orthogonal_init",
    ),
    f"{PPO}/test_learner.py::test_every_key_of_the_update_changes_the_weights": (
        "ppo_config.rollout_len",
        "ppo_config.epochs",
        "ppo_config.minibatch_size",
        "ppo_config.learning_rate",
        "ppo_config.weight_decay",
        "ppo_config.adam_eps",
        "ppo_config.gamma",
        "ppo_config.gae_lambda",
        "ppo_config.clip_ratio",
        "ppo_config.value_clip",
        "ppo_config.value_coef",
        "ppo_config.normalize_advantages",
        "ppo_config.max_grad_norm",
        "ppo_config.critic_warmup_updates",
        "ppo_config.entropy_coef_initial",
    ),
    f"{PPO}/test_learner.py::test_target_kl_stops_an_update_early": ("ppo_config.target_kl",),
    f"{PPO}/test_schedules.py::test_entropy_coef_final_holds_from_the_end_of_the_decay": (
        "ppo_config.entropy_coef_final",
    ),
    f"{PPO}/test_schedules.py::test_entropy_decay_steps_is_the_length_of_the_decay": (
        "ppo_config.entropy_decay_steps",
    ),
    f"{PPO}/test_schedules.py::test_entropy_warmup_coef_is_added_at_step_0": (
        "ppo_config.entropy_warmup_coef",
    ),
    f"{PPO}/test_schedules.py::test_entropy_warmup_steps_is_when_the_extra_is_gone": (
        "ppo_config.entropy_warmup_steps",
    ),
    f"{PPO}/test_learner.py::test_action_balance_evens_out_the_mean_probabilities": (
        "ppo_config.action_balance_coef",
    ),
    f"{PPO}/test_learner.py::test_not_finite_gradients_are_skipped_and_then_fail": (
        "ppo_config.max_nonfinite_steps",
    ),
    f"{ROUTING}/test_reward_modes.py::test_latency_is_minus_the_time_integral_of_requests": (
        "reward_config.mode",
    ),
    f"{PPO}/test_learner.py::test_unnormalised_rewards_are_stored_as_they_are": (
        "reward_config.normalize",
    ),
    f"{PPO}/test_learner.py::test_reward_clip_bounds_the_scaled_rewards": ("reward_config.clip",),
    f"{ROUTING}/test_reward_modes.py::test_slo_objectives_decide_what_is_in_time": (
        "reward_config.slo_ttft_s",
        "reward_config.slo_tbt_s",
    ),
    f"{ROUTING}/test_reward_modes.py::test_every_weight_of_the_score_counts": (
        "reward_config.throughput_weight",
        "reward_config.latency_weight",
        "reward_config.latency_threshold_s",
        "reward_config.threshold_penalty",
    ),
    f"{ROUTING}/test_reward_modes.py::test_imbalance_costs": ("reward_config.imbalance_weight",),
    f"{ROUTING}/test_reward_modes.py::test_hybrid_pays_improvement_against_the_moving_averages": (
        "reward_config.ema_alpha",
    ),
    f"{PPO}/test_schedules.py::test_initial_coef_weighs_the_reference_at_step_0": (
        "kl_regularization.initial_coef",
    ),
    f"{PPO}/test_schedules.py::test_final_coef_stays_after_the_decay": (
        "kl_regularization.final_coef",
    ),
    f"{PPO}/test_schedules.py::test_decay_steps_is_the_length_of_the_reference_decay": (
        "kl_regularization.decay_steps",
    ),
    f"{PPO}/test_learner.py::test_collection_feeds_statistics_and_learns_nothing": (
        "statistics_stabilization.collect_steps",
    ),
    f"{CONTROL}/test_stabilization_of_statistics.py::test_keep_updating_collects_for_ever": (
        "statistics_stabilization.keep_updating",
    ),
    f"{CONTROL}/test_temperature_control.py::test_enabled_false_keeps_the_base_for_ever": (
        "temperature_control.enabled",
    ),
    f"{CONTROL}/test_temperature_control.py::test_base_temperature_holds_without_pressure": (
        "temperature_control.base_temperature",
    ),
    f"{CONTROL}/test_temperature_control.py::"
    "test_min_temperature_is_the_floor_under_any_pressure": (
        "temperature_control.min_temperature",
    ),
    f"{CONTROL}/test_temperature_control.py::"
    "test_max_temperature_is_the_ceiling_and_twice_it_that_of_pulses": (
        "temperature_control.max_temperature",
    ),
    f"{CONTROL}/test_temperature_control.py::test_target_qps_is_where_rate_pressure_is_zero": (
        "temperature_control.target_qps",
    ),
    f"{CONTROL}/test_temperature_control.py::"
    "test_target_latency_s_is_where_latency_pressure_begins": (
        "temperature_control.target_latency_s",
    ),
    f"{CONTROL}/test_temperature_control.py::test_qps_sensitivity_scales_the_drop": (
        "temperature_control.qps_sensitivity",
    ),
    f"{CONTROL}/test_temperature_control.py::test_latency_sensitivity_scales_the_drop": (
        "temperature_control.latency_sensitivity",
    ),
    f"{CONTROL}/test_temperature_control.py::"
    "test_balance_weight_is_the_rise_at_complete_imbalance": (
        "temperature_control.balance_weight",
    ),
    f"{CONTROL}/test_temperature_control.py::test_ema_alpha_sets_how_fast_pressure_is_felt": (
        "temperature_control.ema_alpha",
    ),
    f"{CONTROL}/test_temperature_control.py::"
    "test_pulse_magnitude_is_the_height_relative_to_the_base": (
        "temperature_control.pulse_magnitude",
    ),
    f"{CONTROL}/test_temperature_control.py::test_pulse_steps_is_the_length_of_a_pulse": (
        "temperature_control.pulse_steps",
    ),
    f"{CONTROL}/test_temperature_control.py::test_stagnation_window_sets_when_a_pulse_can_come": (
        "temperature_control.stagnation_window",
    ),
    f"{CONTROL}/test_temperature_control.py::"
    "test_stagnation_threshold_is_the_rise_that_counts_as_progress": (
        "temperature_control.stagnation_threshold",
    ),
    f"{CONTROL}/test_curriculum_stages.py::test_enabled_false_applies_no_stage": (
        "curriculum_learning.enabled",
    ),
    f"{CONTROL}/test_curriculum_stages.py::test_stages_follow_each_other_and_end": (
        "curriculum_learning.stages",
    ),
    f"{CONTROL}/test_curriculum_stages.py::"
    "test_until_requests_is_the_first_request_of_the_next_stage": (f"{STAGE}until_requests",),
    f"{CONTROL}/test_curriculum_stages.py::test_qps_scale_is_passed_on": (f"{STAGE}qps_scale",),
    f"{ROUTING}/test_reward_modes.py::test_curriculum_scales_threshold_and_penalty": (
        f"{STAGE}latency_threshold_scale",
        f"{STAGE}penalty_scale",
    ),
    f"{PPO}/test_schedules.py::test_lr_schedule_shapes_the_way_down": (
        "advanced_optimization.lr_schedule",
    ),
    f"{PPO}/test_schedules.py::test_lr_final_fraction_is_reached_at_the_end_and_kept": (
        "advanced_optimization.lr_final_fraction",
    ),
    f"{PPO}/test_schedules.py::test_lr_warmup_steps_is_the_length_of_the_rise_from_zero": (
        "advanced_optimization.lr_warmup_steps",
    ),
    f"{PPO}/test_gradient_accumulation.py::"
    "test_accumulation_steps_averages_minibatches_into_one_step": (
        "advanced_optimization.accumulation_steps",
    ),
    f"{PPO}/test_adaptive_minibatch.py::"
    "test_adaptive_minibatch_doubles_after_a_stop_and_halves_after_a_calm_update": (
        "advanced_optimization.adaptive_minibatch",
    ),
    f"{PPO}/test_adaptive_minibatch.py::test_min_minibatch_size_is_the_lower_bound": (
        "advanced_optimization.min_minibatch_size",
    ),
    f"{PPO}/test_adaptive_minibatch.py::test_max_minibatch_size_is_the_upper_bound": (
        "advanced_optimization.max_minibatch_size",
    ),
    f"{CONTROL}/test_collapse_guard.py::test_enabled_false_only_watches": (
        "collapse_guard.enabled",
    ),
    f"{CONTROL}/test_collapse_guard.py::test_window_must_be_full_before_anything_is_done": (
        "collapse_guard.window",
    ),
    f"{CONTROL}/test_collapse_guard.py::test_max_share_is_what_is_still_allowed": (
        "collapse_guard.max_share",
    ),
    f"{CONTROL}/test_collapse_guard.py::test_entropy_boost_is_a_lower_bound_not_a_replacement": (
        "collapse_guard.entropy_boost",
    ),
    f"{CONTROL}/test_collapse_guard.py::test_temperature_boost_is_the_factor": (
        "collapse_guard.temperature_boost",
    ),
    f"{CONTROL}/test_collapse_guard.py::"
    "test_intervention_steps_is_how_many_decisions_are_boosted": (
        "collapse_guard.intervention_steps",
    ),
    f"{TRAINING}/test_exact_resume.py::test_switched_off_nothing_is_saved": (
        "checkpointing.enable_checkpoints",
        "checkpointing.checkpoint_dir",
    ),
    f"{TRAINING}/test_exact_resume.py::test_checkpoint_interval_counts_ppo_steps": (
        "checkpointing.checkpoint_interval",
        "checkpointing.max_checkpoints",
    ),
    f"{PPO}/test_learner.py::test_without_optimizer_state_adamw_starts_afresh": (
        "checkpointing.save_optimizer_state",
    ),
    f"{TRAINING}/test_exact_resume.py::test_without_increments_only_the_newest_is_kept": (
        "checkpointing.incremental_checkpoints",
    ),
    "vidur_ext/config/test_path_variables.py::test_variables_stand_for_their_values": (
        "training.exp_name",
    ),
    f"{TRAINING}/test_when_it_saves.py::test_interval_s_saves_by_the_clock": (
        "checkpointing.checkpoint_interval_s",
    ),
    f"{TRAINING}/test_when_it_saves.py::test_on_start_step_0_is_saved": (
        "checkpointing.checkpoint_on_start",
    ),
    f"{TRAINING}/test_when_it_saves.py::test_save_async_changes_when_it_is_written_not_what": (
        "checkpointing.save_async",
    ),
    f"{TRAINING}/test_when_it_saves.py::test_keep_every_is_permanent": (
        "checkpointing.keep_every",
    ),
    f"{VALIDATION}::test_top_k_val_keeps_the_best_and_the_newest": (
        "checkpointing.checkpoint_strategy",
    ),
    f"{VALIDATION}::test_every_validation_is_saved_with_its_score": (
        "checkpointing.validation_freq",
    ),
    f"{VALIDATION}::test_validation_requests_and_seeds_are_the_workloads": (
        "checkpointing.validation_seeds",
        "checkpointing.validation_requests",
    ),
    f"{CONTINUED}::test_resume_from_checkpoint_names_a_path_or_latest": (
        "checkpointing.resume_from_checkpoint",
    ),
    f"{CONTINUED}::test_resume_step_names_a_checkpoint_of_the_folder": (
        "checkpointing.resume_step",
    ),
    f"{CONTINUED}::test_a_fork_is_a_new_run_and_leaves_the_other_as_it_was": (
        "checkpointing.fork_from_checkpoint",
    ),
    f"{CONTINUED}::test_fresh_moves_the_old_lineage_aside_and_says_so": (
        "checkpointing.on_incompatible",
    ),
    f"{TRAINING}/test_instruments.py::test_wandb_continues_its_run_unless_the_training_is_forked": (
        "monitoring.wandb",
    ),
    f"{TRAINING}/test_instruments.py::test_wandb_project_is_what_the_run_belongs_to": (
        "monitoring.wandb_project",
    ),
    f"{TRAINING}/test_instruments.py::test_tensorboard_and_csv_are_written_where_asked": (
        "monitoring.tensorboard",
        "monitoring.csv",
    ),
    f"{TRAINING}/test_instruments.py::test_progress_bar_is_drawn_where_asked": (
        "monitoring.progress_bar",
    ),
    f"{TRAINING}/test_instruments.py::test_log_level_is_what_the_log_holds": (
        "monitoring.log_level",
    ),
    f"{TRAINING}/test_instruments.py::test_tail_window_is_what_percentiles_look_back_on": (
        "monitoring.tail_window",
    ),
    f"{TRAINING}/test_instruments.py::test_tail_alert_s_is_where_the_alert_begins": (
        "monitoring.tail_alert_s",
    ),
    f"{CLUSTER}::test_every_cluster_key_changes_the_simulation": (
        "cluster.num_replicas",
        "cluster.model_name",
        "cluster.device",
        "cluster.devices",
        "cluster.tensor_parallel_size",
        "cluster.num_pipeline_stages",
        "cluster.replica_scheduler",
        "cluster.batch_size_cap",
        "cluster.chunk_size",
        "cluster.max_tokens_in_batch",
        "cluster.block_size",
        "cluster.num_blocks",
        "cluster.watermark_blocks_fraction",
    ),
    f"{CLUSTER}::test_network_device_changes_what_collectives_cost": ("cluster.network_device",),
    f"{CLUSTER}::test_memory_margin_leaves_fewer_blocks": ("cluster.memory_margin_fraction",),
    "vidur_ext/config/test_simulator_flags.py::"
    "test_a_profile_folder_reaches_the_predictor_that_reads_it": (
        "simulation.predictor",
        "simulation.profile_dir",
    ),
    "vidur_ext/vidur/test_workload_request_generator.py::"
    "test_every_synthetic_flag_changes_the_stream": (
        "workload.qps",
        "workload.arrival",
        "workload.burstiness_cv",
        "workload.code_fraction",
        "workload.max_tokens",
    ),
    "vidur_ext/vidur/test_workload_request_generator.py::"
    "test_the_rate_scale_multiplies_the_rate_of_both_sources": (
        "workload.source",
        "workload.rate_scale",
    ),
    "vidur_ext/vidur/test_workload_request_generator.py::"
    "test_the_limit_and_the_format_reach_the_reader": ("workload.trace_format",),
    f"{WORKLOAD}/test_workloads_of_a_run.py::"
    "test_a_trace_is_judged_on_requests_that_nobody_trained_on": ("workload.trace_file",),
    f"{WORKLOAD}/test_workloads_of_a_run.py::test_the_holdout_fraction_moves_the_border": (
        "workload.holdout_fraction",
    ),
    f"{CLONING}::test_epochs_and_patience_end_the_cloning": (
        "warmstart.epochs",
        "warmstart.patience",
    ),
    f"{CLONING}::test_every_key_of_the_cloning_changes_the_result": (
        "warmstart.batch_size",
        "warmstart.learning_rate",
        "warmstart.holdout_fraction",
    ),
    f"{RUNS}/test_pipeline.py::test_output_root_holds_the_run": ("training.output_root",),
    f"{RUNS}/test_pipeline.py::test_torch_threads_are_set": ("training.torch_threads",),
    f"{RUNS}/test_pipeline.py::test_without_warmstart_there_are_no_demonstrations": (
        "warmstart.enabled",
    ),
    f"{RUNS}/test_pipeline.py::test_teachers_levels_and_requests_shape_the_demonstrations": (
        "warmstart.teachers",
        "warmstart.load_levels",
        "warmstart.demo_requests",
    ),
    f"{TRAINING}/test_many_environments.py::test_another_world_goes_on_with_the_next_request": (
        "simulation.engine",
    ),
    f"{TRAINING}/test_many_environments.py::test_every_environment_acts_and_learns": (
        "parallel_training.num_envs",
    ),
    f"{RUNS}/test_pipeline.py::test_number_of_workers_changes_nothing_but_time": (
        "parallel_training.num_workers",
    ),
    f"{RUNS}/test_pipeline.py::test_evaluation_can_be_left_out": ("evaluation.enabled",),
    f"{RUNS}/test_pipeline.py::test_every_key_of_the_comparison_changes_it": (
        "evaluation.schedulers",
        "evaluation.baseline",
        "evaluation.num_seeds",
        "evaluation.requests",
        "evaluation.warmup_fraction",
        "evaluation.slo_ttft_s",
        "evaluation.slo_tbt_s",
        "evaluation.bootstrap_samples",
    ),
}
"""Every key, under the test ("file::function" below tests/) that shows its effect."""


def every_key() -> list[str]:
    keys = [*leaf_fields(TrainingConfig), *leaf_fields(CurriculumStage, STAGE)]
    return [path for path, _ in keys]


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_key_has_a_test_of_its_effect() -> None:
    shown = {key for keys in SHOWN_BY.values() for key in keys}
    missing = [key for key in every_key() if key not in shown]
    assert not missing, f"no test shows what these keys change: {', '.join(missing)}"


def test_only_keys_that_exist_are_listed_and_each_once() -> None:
    listed = [key for keys in SHOWN_BY.values() for key in keys]
    assert sorted(listed) == sorted(set(listed) & set(every_key()))


@pytest.mark.parametrize("node", SHOWN_BY)
def test_the_named_test_exists(node) -> None:
    file, _, function = node.partition("::")
    assert function in functions_in(TESTS / file)
