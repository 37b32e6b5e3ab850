"""Registries: entries by name, errors with the nearest name, discovery of a package's modules."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from animalclf.config import Config
from animalclf.data.augment.operation import OPERATIONS, Operation
from animalclf.errors import UserError
from animalclf.lr_schedules import LR_SCHEDULES
from animalclf.metrics import METRICS
from animalclf.metrics.registry import count_metric
from animalclf.utils import registry as registry_module
from animalclf.utils.registry import Registry, check_workers_know


def test_entries_by_name_in_order():
    registry = Registry("loss", key="train.loss")

    @registry.register("second")
    def second():
        return 2

    registry.register("first")(1)
    assert registry.names() == ["second", "first"] and registry.entries() == {"second": second, "first": 1}
    assert (
        registry.get("second") is second
        and registry.get("first") == 1
        and "first" in registry
        and "third" not in registry
    )
    with pytest.raises(ValueError, match="loss 'first' is registered twice"):
        registry.register("first")(3)
    registry.unregister("first")
    assert registry.names() == ["second"]


def test_unknown_names_are_refused_with_the_nearest():
    registry = Registry("loss", key="train.loss")
    registry.register("focal")(1)
    with pytest.raises(UserError, match=r"train\.loss: 'focl' is unknown \(did you mean 'focal'\?\); there are focal"):
        registry.get("focl")
    with pytest.raises(UserError, match=r"^metric 'x' is unknown; there are $"):
        Registry("metric").get("x")


def test_the_modules_of_a_package_are_imported_at_the_first_lookup(tmp_path, monkeypatch):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "__init__.py").write_text(
        "from animalclf.utils.registry import Registry\nENTRIES = Registry('entry', package='plugins')\n"
    )
    for name in ("a", "b"):
        (tmp_path / "plugins" / f"{name}.py").write_text(
            f"from plugins import ENTRIES\nENTRIES.register('{name}')('{name.upper()}')\n"
        )
    monkeypatch.syspath_prepend(tmp_path)
    import plugins

    assert "plugins.a" not in sys.modules
    assert plugins.ENTRIES.get("b") == "B" and plugins.ENTRIES.names() == ["a", "b"]


def test_threads_that_look_up_at_once_all_find_every_entry(tmp_path, monkeypatch):
    package = tmp_path / "slow_modules"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from animalclf.utils.registry import Registry\nENTRIES = Registry('entry', package='slow_modules')\n"
    )
    for name, seconds in (("a", 0.2), ("b", 0), ("c", 0)):
        (package / f"{name}.py").write_text(
            "import time\nfrom slow_modules import ENTRIES\n"
            f"time.sleep({seconds})\nENTRIES.register('{name}')('{name.upper()}')\n"
        )
    plugin = "import time\ntime.sleep(0.2)\nfrom slow_modules import ENTRIES\nENTRIES.register('d')('D')\n"
    installed(tmp_path, monkeypatch, plugin)
    from slow_modules import ENTRIES

    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: ENTRIES.names(), range(4))) == [["a", "b", "c", "d"]] * 4
    finally:
        sys.modules.pop("x_test_plugin")


def installed(tmp_path, monkeypatch, code):
    """A package of someone else with a plugin, as `pip install` leaves it."""
    (tmp_path / "x_test_plugin.py").write_text(code)
    (tmp_path / "x_test_plugin-1.0.dist-info").mkdir()
    (tmp_path / "x_test_plugin-1.0.dist-info" / "METADATA").write_text("Name: x-test-plugin\nVersion: 1.0\n")
    (tmp_path / "x_test_plugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[animalclf.plugins]\nx = x_test_plugin\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry_module, "_plugins", None)


def test_a_plugin_of_an_installed_package_is_known_and_reaches_workers(tmp_path, monkeypatch):
    code = "from animalclf.lr_schedules import LR_SCHEDULES\n"
    code += "LR_SCHEDULES.register('x_test_plugin')(1)\n"
    installed(tmp_path, monkeypatch, code)
    try:
        assert "x_test_plugin" in LR_SCHEDULES
        check_workers_know(replace(Config(), optim=replace(Config().optim, schedule="x_test_plugin")))
    finally:
        LR_SCHEDULES.unregister("x_test_plugin")
        sys.modules.pop("x_test_plugin")


def test_a_plugin_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, "import x_test_nothing\n")
    with pytest.raises(
        UserError, match=r"^the plugin x \(x_test_plugin\) cannot be imported: No module .*x_test_nothing"
    ):
        Registry("loss").names()


def test_what_a_run_uses_and_workers_do_not_have_is_refused():
    config = Config()
    count_metric("x_test_local", title="x")(lambda counts: counts.hits)
    try:
        with pytest.raises(UserError, match=r"^metric 'x_test_local': is registered in this process only \(.*test_reg"):
            check_workers_know(config)
        check_workers_know(config, ["model"])  # replicas compute no metrics
    finally:
        METRICS.unregister("x_test_local")
    registry = Registry("report section")
    registry.register("x_test_section")(1)
    check_workers_know(config)


def test_what_a_run_does_not_use_may_be_in_this_process_only():
    LR_SCHEDULES.register("x_test_schedule")(LR_SCHEDULES.get("constant"))

    @OPERATIONS.register("x_test_operation")
    class Inverted(Operation):
        def is_active(self, augment):
            return augment.blur == 3.0

    config = Config()
    try:
        check_workers_know(config)
        with pytest.raises(UserError, match=r"^learning-rate schedule 'x_test_schedule': .*train with --local$"):
            check_workers_know(replace(config, optim=replace(config.optim, schedule="x_test_schedule")))
        with pytest.raises(UserError, match=r"^augmentation operation 'x_test_operation': is registered in this"):
            check_workers_know(replace(config, augment=replace(config.augment, blur=3.0)))
    finally:
        LR_SCHEDULES.unregister("x_test_schedule")
        OPERATIONS.unregister("x_test_operation")


def test_a_registry_may_be_made_while_registries_are_checked(monkeypatch):
    """As by a thread that imports networks meanwhile."""
    made = []

    class Slow(Registry):
        def used_by(self, config):
            made.append(Registry("late", in_workers=True))
            return []

    monkeypatch.setattr(registry_module, "_worker_registries", [])
    Slow("early", in_workers=True)
    check_workers_know(Config())
    assert len(made) == 1


def test_all_packages_are_imported_without_triton():
    """It exists only beside PyTorch's CUDA build on Linux: not on a Mac, and not beside the build for CPUs."""
    code = """
import subprocess
import sys
sys.modules["triton"] = None
from animalclf.data.augment.operation import OPERATIONS
from animalclf.features.heads import HEADS
from animalclf.metrics.registry import METRICS
from animalclf.models.registry import LIBRARIES, MODELS
from animalclf.prepare.sources.source import SOURCES
from animalclf.report.section import SECTIONS
print(all(registry.names() for registry in (OPERATIONS, HEADS, METRICS, MODELS, LIBRARIES, SOURCES, SECTIONS)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"
