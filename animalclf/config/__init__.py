"""The configuration: `schema` defines the keys with the types of `values`, `keys` describes each of them, `parsing`
reads them from recipes and `--set`, and `reference` documents them."""

from animalclf.config.parsing import (
    assignment,
    changed_keys,
    data_from_dict,
    differences,
    flatten,
    flatten_overrides,
    from_dict,
    hashed_json,
    load,
    load_whole,
    nearest,
    parse_sets,
    read,
    recipe_names,
    set_key,
    to_dict,
    to_yaml,
)
from animalclf.config.schema import Augment, Config, Data, Model, Optim, Train

__all__ = [
    "Augment",
    "Config",
    "Data",
    "Model",
    "Optim",
    "Train",
    "assignment",
    "changed_keys",
    "data_from_dict",
    "differences",
    "flatten",
    "flatten_overrides",
    "from_dict",
    "hashed_json",
    "load",
    "load_whole",
    "nearest",
    "parse_sets",
    "read",
    "recipe_names",
    "set_key",
    "to_dict",
    "to_yaml",
]
