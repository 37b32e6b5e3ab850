"""Registries: entries by name, errors with the nearest name, discovery of a package's modules."""

import sys

import pytest

from animalclf.errors import UserError
from animalclf.utils.registry import Registry


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
