"""Imports run downwards only, without cycles, and only the edges import Ray. Imports within functions count too."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = (  # from low to high: a module imports from its own layer and from lower ones
    "errors", "utils", "rows", "metrics", "lr_schedules", "architectures", "recipes", "config", "predictions", "runs",
    "features",
    "models", "raycompat", "cluster", "data", "duplicates", "prepare",
    "training", "inference", "export", "report", "tuning", "demo", "api", "submit", "commands", "cli",
)  # fmt: skip
RAY = (
    "cluster", "raycompat", "data.ray_loader", "prepare.job", "training.ray_trainer", "training.worker",
    "training.resources", "training.progress", "training.stop", "tuning", "inference.classify", "submit",
)  # fmt: skip
KNOWN: set[tuple[str, str]] = set()  # (importing, imported): upward imports that are still to go


@cache
def modules() -> dict[str, Path]:
    """The package's modules by name: "animalclf", "animalclf.runs", ..."""
    files = sorted((ROOT / "animalclf").rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports; of `from package import name` the module `name` if there is one."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{file}: relative import"
            yield from (
                full if (full := f"{node.module}.{alias.name}") in modules() else node.module for alias in node.names
            )


def own_imports(module: str) -> set[str]:
    return {name for name in imports(modules()[module]) if name in modules() and name not in (module, "animalclf")}


def within(module: str, names: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"animalclf.{name}.") for name in names)


def test_every_module_has_a_layer():
    assert {module.split(".")[1] for module in modules() if "." in module} <= set(LAYERS)


def test_no_import_runs_upwards():
    layer = {module: LAYERS.index(module.split(".")[1]) for module in modules() if "." in module}
    upward = {(module, name) for module in layer for name in own_imports(module) if layer[name] > layer[module]}
    assert upward == KNOWN


def test_no_import_cycle():
    graph = {module: own_imports(module) for module in modules()}
    while ends := {
        module for module, names in graph.items() if not names or not any(module in others for others in graph.values())
    }:
        # A cycle has no end, so its modules stay in the graph.
        graph = {module: names - ends for module, names in graph.items() if module not in ends}
    assert graph == {}


def test_ray_is_imported_at_the_edges_alone():
    importing = {
        module for module, file in modules().items() if any(name.split(".")[0] == "ray" for name in imports(file))
    }
    assert {module for module in importing if not within(module, RAY)} == set()
    assert all(any(within(module, (name,)) for module in importing) for name in RAY), (
        "an edge that imports no Ray: remove it from RAY"
    )
