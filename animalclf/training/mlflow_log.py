"""Logging of finished runs to MLflow, if the environment variable MLFLOW_TRACKING_URI names a tracking server."""

from __future__ import annotations

import importlib
import os

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.runs import Run
from animalclf.training.tensorboard import scalars


def enabled() -> bool:
    """Whether runs are logged. Raises UserError, before any work, if MLFLOW_TRACKING_URI is set and MLflow is not
    installed."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return False
    try:
        importlib.import_module("mlflow")
    except ImportError as error:
        raise UserError(
            "MLFLOW_TRACKING_URI is set, but MLflow is not installed; pip install 'animalclf[mlflow]', or unset it"
        ) from error
    return True


def log_run(run: Run) -> bool:
    """Log configuration, epochs and result of a finished run. Returns False if logging is not enabled."""
    if not enabled():
        return False
    mlflow = importlib.import_module("mlflow")
    config, result = run.config(), run.read_result()
    with mlflow.start_run(run_name=f"{config.name}, seed {config.seed}"):
        mlflow.set_tags({"run": run.root, "data_fingerprint": run.environment().data_fingerprint})
        mlflow.log_params(configuration.flatten(configuration.to_dict(config)))
        for row in run.metrics():
            mlflow.log_metrics(scalars(row), step=row.epoch)
        numbers = {key: float(value) for key, value in result.items() if isinstance(value, int | float)}
        mlflow.log_metrics({f"result/{key}": number for key, number in numbers.items()})
    return True
