"""The documents: their Python blocks run, and the reference of the API is up to date."""

import importlib.util
import itertools
import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path) -> list[tuple[int, str]]:
    """The Python blocks of a document, each with the number of its first line."""
    text = document.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(1)), found[1])
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    ]


@pytest.fixture
def photos(tmp_path, monkeypatch, sample_data):
    """A working directory with the files that the documents name: real photographs and VGG16's weights."""
    for folder in sorted(Path(sample_data, "animals10_sample").iterdir()):
        (tmp_path / "photos" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:8]:
            shutil.copy(file, tmp_path / "photos" / folder.name)
    (tmp_path / "new").mkdir()
    for number, file in enumerate(itertools.islice(sorted(Path(sample_data, "species20").glob("*/*.jpg")), 2), start=1):
        shutil.copy(file, tmp_path / "new" / f"{number}.jpg")
    os.symlink(Path(sample_data, "vgg16_imagenet_features.pth"), tmp_path / "vgg16_features.pth")
    monkeypatch.chdir(tmp_path)


@pytest.mark.ray
@pytest.mark.sample
@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if blocks(document)], ids=lambda document: document.name
)
def test_the_python_blocks_run(document, photos, ray_local):
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, source in blocks(document):
        exec(compile("\n" * line + source, str(document), "exec"), namespace)


def test_the_reference_of_the_api_is_current():
    spec = importlib.util.spec_from_file_location("api_reference", ROOT / "docs" / "api_reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    text = reference.PAGE.read_text(encoding="utf-8")
    assert text == reference.page(text), (
        "docs/api.md is stale: run `python docs/api_reference.py` and commit what it writes"
    )
