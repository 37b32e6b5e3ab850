"""What all functions of the API share: checks of their arguments, their errors, and defaults of folders."""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from animalclf import cluster
from animalclf.errors import UserError
from animalclf.utils import arguments, caller
from animalclf.utils.registry import nearest

P = ParamSpec("P")
T = TypeVar("T")
PathLike = str | os.PathLike[str]
Settings = Mapping[str, Any]  # dotted configuration key -> value
# The check of each parameter, by its name, or by function and name. None passes unchecked if it is the default.
CHECKS: dict[str, arguments.Check] = {
    **dict.fromkeys(
        ("data", "out", "prepared", "run", "file", "predict", "sample_submission", "corrections", "token_file"),
        arguments.path,
    ),
    **dict.fromkeys(("members", "folders", "images"), arguments.paths),
    **dict.fromkeys(("force", "cpu", "resume", "local", "profile", "transport", "reference"), arguments.flag),
    **dict.fromkeys(("limit", "folds", "samples", "max_concurrent"), arguments.integer(0)),
    "labels.count": arguments.integer(0),
    "suggest.count": arguments.integer(1),
    "batch_size": arguments.integer(1),
    "top_k": arguments.integer(1),
    "sets": arguments.number(0),
    "format": arguments.one_of("parquet", "csv", "jsonl"),
    "price_per_hour": arguments.number(0),
    "check": arguments.integer(0),
    "workers": arguments.integer(0),
    **dict.fromkeys(("train.workers", "plan_training.workers"), arguments.workers),
    "recipes": arguments.recipes,
    "seeds": arguments.seeds,
    "set": arguments.settings('{"train.epochs": 5}'),
    "grid": arguments.settings('{"optim.lr": [1e-3, 3e-3]}'),
    "search": arguments.settings('{"optim.lr": "log:1e-5:1e-2"}'),
    "searcher": arguments.one_of("random", "optuna"),
    "schedule": arguments.one_of("none", "asha"),
    "split": arguments.one_of("train", "val", "test"),
    "views": arguments.one_of("none", "flip", "multi"),
    "to": arguments.some_of("onnx", "onnx-int8", "safetensors"),
    "method": arguments.some_of("vote", "mean", "weighted"),
    "recipe": arguments.text("the name of a recipe, or the path of a YAML file"),
    "prior": arguments.text('"train", "uniform", "estimate", class priors such as "dog=0.2,cat=0.8", or a file'),
    "class_name": arguments.text("the name of a class"),
    "device": arguments.device,
    "host": arguments.text('a host name or address, such as "127.0.0.1"'),
    "port": arguments.integer(0),
    "replicas": arguments.replicas,
    "max_upload": arguments.text('a size, such as "20MB"'),
    "token": arguments.text("the token that clients send"),
}
_parameters: dict[str, inspect.Parameter] = {}  # of all functions of the API


def public(function: Callable[P, T]) -> Callable[P, T]:
    """A function of the API: its arguments are plain values that CHECKS accepts, errors name them, Ray's settings are
    restored, and an interrupt leaves nothing running."""
    signature = inspect.signature(function)
    _parameters.update(signature.parameters)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            unknown = next((name for name in kwargs if name not in signature.parameters), None)
            problem = f"{unknown!r} is no argument{nearest(unknown, signature.parameters)}" if unknown else str(error)
            raise TypeError(f"animalclf.{function.__name__}(): {problem}") from None
        values = {name: arguments.plain(value) for name, value in bound.items()}
        text = f"animalclf.{function.__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"
        in_command = caller.is_known()
        with caller.set_caller(text), cluster.restore_settings():
            try:
                for name, value in values.items():
                    if value is not None or signature.parameters[name].default is not None:
                        check = CHECKS.get(f"{function.__name__}.{name}") or CHECKS[name]
                        values[name] = check(name, value)
                return function(**values)  # type: ignore[call-arg]
            except UserError as error:
                if not in_command:
                    error.args = (_in_python(str(error)),)
                raise
            except KeyboardInterrupt:
                cluster.leave_ray()
                raise

    return call


def _in_python(message: str) -> str:
    """`message` with arguments of the API in place of the flags that it names."""
    flags = [name for name, parameter in _parameters.items() if parameter.default is False]
    return arguments.in_python(message, flags, _parameters)


def overrides(
    set: Settings | None, limit: int, folds: int = 0, corrections: PathLike | None = None
) -> dict[str, object]:
    from animalclf import config as configuration
    from animalclf.utils import storage

    flags = {"data.limit": limit, "train.folds": folds, "data.corrections": path_text(corrections)}
    settings = configuration.flatten_overrides(set or {}) | {key: value for key, value in flags.items() if value}
    file = settings.get("data.corrections")
    return settings | ({"data.corrections": storage.absolute(file)} if file and isinstance(file, str) else {})


def path_text(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)


def output_folder(out: PathLike | None, name: str) -> str:
    """The absolute `out`, or a new folder for `name` below runs/."""
    from animalclf.utils import storage

    folder = name.replace(":", "-")  # of features:resnet50: shells, buckets and other systems have a meaning for it
    return storage.absolute(str(out) if out else f"runs/{folder}-{time.strftime('%Y%m%d-%H%M%S')}")
