"""pyproject.toml declares what the package imports, and nothing else; every dependency is pinned in constraints.txt."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"animalclf", "ray_jobs"}
WITH_CUDA = {"triton"}  # comes with the builds of PyTorch that run on a GPU


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements):
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements} - {"animalclf"}


def imported():
    """Top-level modules that animalclf/ and ray_jobs/ import, functions included."""
    modules = set()
    for folder in sorted(OWN):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    modules.add(node.module.partition(".")[0])
                elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
                    name = node.args[0]
                    modules |= {name.value.partition(".")[0]} if isinstance(name, ast.Constant) else set()
    return modules - set(sys.stdlib_module_names) - OWN - WITH_CUDA


def test_every_import_is_declared_and_every_dependency_imported():
    distributions = packages_distributions()
    names = {module: {normal(name) for name in distributions.get(module, [module])} for module in imported()}
    required = declared(PROJECT["dependencies"])
    optional = declared(requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra)
    assert not {module for module, owners in names.items() if not owners & (required | optional)}
    assert required == {owner for owners in names.values() for owner in owners} & required


def test_every_dependency_is_pinned():
    pins = {
        normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert not declared(PROJECT["dependencies"]) - pins
