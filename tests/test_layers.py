"""Imports run downwards only, without cycles, and only the edges import Ray. Imports within functions count too."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import animalclf

ROOT = Path(__file__).parents[1]
LAYERS = (  # from low to high: a module imports from its own layer and from lower ones
    "errors", "utils", "rows", "metrics", "lr_schedules", "architectures", "recipes", "config", "predictions",
    "folder_lock", "runs", "features",
    "models", "raycompat", "cluster", "cluster_size", "data", "duplicates", "prepare",
    "training", "inference", "export", "report", "explain", "serving", "labelling", "tuning", "planning", "demo", "api",
    "submit",
    "commands", "cli", "__main__",
)  # fmt: skip
RAY = (
    "cluster", "cluster_size", "raycompat", "data.ray_loader", "prepare.job", "training.ray_trainer", "training.worker",
    "training.reused_worker", "training.resources", "training.progress", "training.stop", "tuning",
    "inference.classify", "serving.deployment", "serving.replica", "planning.machine", "submit",
)  # fmt: skip
KNOWN: set[tuple[str, str]] = set()  # (importing, imported): upward imports that are still to go


@cache
def modules() -> dict[str, Path]:
    """The package's modules by name: "animalclf", "animalclf.runs", ..."""
    files = sorted((ROOT / "animalclf").rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(code: str) -> Iterator[str]:
    """The modules that code imports: with statements, by their names as text, and as attributes of `animalclf`. Of
    `from package import name` the module `name` if there is one."""
    tree = ast.parse(code)
    package_names = {
        alias.asname or "animalclf"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "animalclf" or (alias.name.startswith("animalclf.") and not alias.asname)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                assert module and not level, "a relative import"
                yield from (member(module, alias.name) for alias in names)
            case ast.Attribute(ast.Name(name), attribute) if name in package_names:
                yield member("animalclf", attribute)
            case ast.Call(
                ast.Name("__import__" | "import_module") | ast.Attribute(attr="__import__" | "import_module"),
                [ast.Constant(str(module)), *_],
            ):
                yield module


def member(module: str, name: str) -> str:
    """The module that `from module import name` needs: functions of the package itself are those of the API."""
    if module == "animalclf" and name in animalclf.__all__:
        return "animalclf.api"
    return full if (full := f"{module}.{name}") in modules() else module


def imports_of(module: str) -> set[str]:
    return set(imports(modules()[module].read_text()))


def own_imports(module: str) -> set[str]:
    return {name for name in imports_of(module) if name in modules() and name not in (module, "animalclf")}


def within(module: str, names: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"animalclf.{name}.") for name in names)


@pytest.mark.parametrize(
    ("code", "module"),
    [
        ("def f():\n    import ray.data", "ray.data"),
        ("from animalclf.training import loop", "animalclf.training.loop"),
        ("from animalclf.training.loop import Pass", "animalclf.training.loop"),
        ("def f():\n    from animalclf import train", "animalclf.api"),
        ("from animalclf import prepare", "animalclf.api"),
        ("import animalclf\nanimalclf.train()", "animalclf.api"),
        ("import animalclf as a\na.report", "animalclf.api"),
        ("import animalclf.rows\nanimalclf.cluster.leave_ray()", "animalclf.cluster"),
        ("import importlib\nimportlib.import_module('animalclf.training.loop')", "animalclf.training.loop"),
        ("from importlib import import_module\nimport_module('ray')", "ray"),
        ("__import__('ray')", "ray"),
    ],
)
def test_an_import_is_seen_however_it_is_written(code, module):
    assert module in set(imports(code))


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
    importing = {module for module in modules() if any(name.split(".")[0] == "ray" for name in imports_of(module))}
    assert {module for module in importing if not within(module, RAY)} == set()
    assert all(any(within(module, (name,)) for module in importing) for name in RAY), (
        "an edge that imports no Ray: remove it from RAY"
    )
