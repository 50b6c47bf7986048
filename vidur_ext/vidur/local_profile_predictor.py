"""Vidur's own predictors, trained from a local folder of profiles instead of its hub.

Types ``local_random_forrest`` and ``local_linear_regression`` (Vidur's spelling). Nothing is
pickled: fitted models are dropped once their tables are made, and the tables are cached as one
``.npz`` under ``cache_dir``, named by a digest of the profiles and of every setting that matters.
"""

import hashlib
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
from vidur.config import (
    LinearRegressionExecutionTimePredictorConfig,
    RandomForrestExecutionTimePredictorConfig,
)
from vidur.execution_time_predictor.linear_regression_execution_time_predictor import (
    LinearRegressionExecutionTimePredictor,
)
from vidur.execution_time_predictor.random_forrest_execution_time_predictor import (
    RandomForrestExecutionTimePredictor,
)

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import write_file
from vidur_ext.execution_time.tables import TableLimits
from vidur_ext.vidur.analytic_predictor import token_lists
from vidur_ext.vidur.profile_folder import ProfileFolder
from vidur_ext.vidur.types import PredictorType

Predictions = dict[str, dict[tuple[int, ...], float]]

# Settings that change neither the models nor the tables.
_NO_EFFECT = ("cache_dir", "profile_dir", "no_cache", "num_training_job_threads")


def _profile_dir() -> Any:
    return field(default=None, metadata={"help": "Folder of Vidur's profile CSVs."})


def _max_tokens_per_request() -> Any:
    return field(default=16384, metadata={"help": "Tokens of a request or a batch at most."})


@dataclass
class LocalRandomForrestExecutionTimePredictorConfig(RandomForrestExecutionTimePredictorConfig):
    """Flags of the predictor ``local_random_forrest``."""

    # Vidur recognises optional flags by typing.Optional, not by "str | None".
    profile_dir: Optional[str] = _profile_dir()  # noqa: UP045
    prediction_max_tokens_per_request: int = _max_tokens_per_request()

    @staticmethod
    def get_type() -> Any:
        """Return the type key."""
        return PredictorType.LOCAL_RANDOM_FORREST


@dataclass
class LocalLinearRegressionExecutionTimePredictorConfig(
    LinearRegressionExecutionTimePredictorConfig
):
    """Flags of the predictor ``local_linear_regression``."""

    profile_dir: Optional[str] = _profile_dir()  # noqa: UP045
    prediction_max_tokens_per_request: int = _max_tokens_per_request()

    @staticmethod
    def get_type() -> Any:
        """Return the type key."""
        return PredictorType.LOCAL_LINEAR_REGRESSION


class _LocalProfiles:
    """What replaces the hub and the pickles in a predictor of Vidur's; mixed in before it."""

    def __init__(self, predictor_config: Any, replica_config: Any, cache_config: Any) -> None:
        self._profiles = ProfileFolder(
            predictor_config.profile_dir, replica_config, cache_config.block_size
        )
        super().__init__(predictor_config, replica_config, cache_config)  # type: ignore[call-arg]

    def get_execution_time(self, batch: Any, pipeline_stage: int) -> Any:
        """Return Vidur's ExecutionTime of a batch on a stage.

        Raises:
            UserError: the batch is larger than the tables.
        """
        parent: Any = super()
        try:
            return parent.get_execution_time(batch, pipeline_stage)
        except LookupError as error:
            violation = self._limits().violation(*token_lists(batch))
            if violation is None:
                raise
            raise UserError(violation) from error

    def _limits(self) -> TableLimits:
        config: Any = self._config  # type: ignore[attr-defined]
        step = config.kv_cache_prediction_granularity
        tokens = config.prediction_max_tokens_per_request
        return TableLimits(
            max_tokens=tokens,
            max_batch_size=config.prediction_max_batch_size,
            max_kv_tokens=tokens // step * step,
            kv_granularity=step,
            max_chunk_tokens=config.prediction_max_prefill_chunk_size // 32 * 32,
            flag_prefix=f"--{config.get_type()}_execution_time_predictor_config_",
        )

    def _get_input_files(self) -> tuple[str, str, str, str]:
        return self._profiles.input_files()

    def _load_predictions_from_hf(self) -> Predictions:
        """Return the tables: from the cache, else from models trained now."""
        path = self._cache_path()
        me: Any = self
        if path.exists() and not me._config.no_cache:
            return load_predictions(path)
        predictions: Predictions = me._predict_from_models(me._train_models())
        if not me._config.no_cache:
            store_predictions(path, predictions)
        return predictions

    def _cache_path(self) -> Path:
        me: Any = self
        settings = {
            key: value for key, value in asdict(me._config).items() if key not in _NO_EFFECT
        }
        replica = me._replica_config
        name = repr(
            (
                str(me._config.get_type()),
                sorted(settings.items()),
                (replica.model_name, replica.tensor_parallel_size, replica.num_pipeline_stages),
                (me._block_size, me._is_multi_node, replica.kv_parallel_size),
                self._profiles.digest(),
            )
        )
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return Path(me._cache_dir) / f"local_predictions_{digest}.npz"

    # Vidur pickles models and writes tables under names that do not cover the profile's contents.
    def _load_model_from_cache(self, model_name: str, model_hash: str) -> None:
        return None

    def _store_model_in_cache(self, model_name: str, model_hash: str, model: Any) -> None:
        return None

    def _store_training_prediction_data(self, **_: Any) -> None:
        return None

    def _load_model_prediction_cache(self, model_name: str, model_hash: str) -> dict[Any, Any]:
        return {}

    def _store_model_prediction_cache(self, *_: Any) -> None:
        return None


class CompleteLinearRegressionExecutionTimePredictor(LinearRegressionExecutionTimePredictor):
    """Vidur's linear regression with the method that Vidur 0.0.26 forgot to give it."""

    def _get_kv_parallel_communication_time(self, batch: Any) -> float:
        return super()._get_kv_parallel_communication_time(batch)


class LocalRandomForrestExecutionTimePredictor(_LocalProfiles, RandomForrestExecutionTimePredictor):
    """Vidur's random forest from a local folder."""


class LocalLinearRegressionExecutionTimePredictor(
    _LocalProfiles, CompleteLinearRegressionExecutionTimePredictor
):
    """Vidur's linear regression from a local folder."""


def store_predictions(path: Path, predictions: Predictions) -> None:
    """Publish tables as ``.npz``: no reader sees half a file."""
    arrays: dict[str, Any] = {}
    for operator, table in predictions.items():
        arrays[f"{operator}.keys"] = np.array(list(table), dtype=np.int64)
        arrays[f"{operator}.values"] = np.array(list(table.values()), dtype=np.float64)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.getvalue())


def load_predictions(path: Path) -> Predictions:
    """Read what :func:`store_predictions` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        operators = [name.removesuffix(".keys") for name in arrays.files if name.endswith(".keys")]
        return {
            operator: {
                tuple(key): value
                for key, value in zip(
                    arrays[f"{operator}.keys"].tolist(),
                    arrays[f"{operator}.values"].tolist(),
                    strict=True,
                )
            }
            for operator in operators
        }
