"""pyproject.toml declares what the package imports, and nothing else; every dependency is pinned in constraints.txt."""

import ast
import importlib.util
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

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


def lock(name):
    """The packages of a lock file: name -> (version, number of hashes)."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert all(part.startswith("--hash=sha256:") for _, *hashes in lines for part in hashes)
    return {normal(pin.partition("==")[0]): (pin.partition("==")[2], len(hashes)) for pin, *hashes in lines}


def test_the_lock_files_have_the_pinned_versions_with_hashes():
    """Stale? `make lock`."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {normal(name): version for name, version in pins.items()}
    dev, runtime = lock("dev.lock"), lock("runtime.lock")
    assert {name: version for name, (version, _) in dev.items()} == pins
    assert runtime.items() <= dev.items() and all(hashes for _, hashes in dev.values())
    assert declared(PROJECT["dependencies"]) | declared(PROJECT["optional-dependencies"]["embedded"]) <= runtime.keys()
    for file in (ROOT / "requirements").iterdir():
        assert "://" not in file.read_text() and "--index" not in file.read_text()  # a server is the reader's choice


def test_every_accepted_hole_has_a_reason(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    assert all(re.match(r"[A-Z]+-", name) for name in audit.accepted())
    monkeypatch.setattr(audit, "EXCEPTIONS", tmp_path / "exceptions.txt")
    audit.EXCEPTIONS.write_text("# a comment\nPYSEC-1 only on Windows\nCVE-2\n")
    with pytest.raises(ValueError, match="CVE-2 has no reason"):
        audit.accepted()
    assert audit.report([], [], True) == audit.report([], ["x"], False) == 0
    assert audit.report(["x"], [], False) == audit.report([], ["x"], True) == 1
