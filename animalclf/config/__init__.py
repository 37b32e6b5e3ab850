"""The configuration: which keys there are, and how they are read."""

from animalclf.config.schema import (
    Augment,
    Config,
    Data,
    Model,
    Optim,
    Train,
    data_from_dict,
    differences,
    from_dict,
    load,
    recipe_names,
    to_dict,
    to_yaml,
)

__all__ = [
    "Augment",
    "Config",
    "Data",
    "Model",
    "Optim",
    "Train",
    "data_from_dict",
    "differences",
    "from_dict",
    "load",
    "recipe_names",
    "to_dict",
    "to_yaml",
]
