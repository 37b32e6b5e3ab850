"""The documents: code blocks run or parse, links work, no page repeats another, the site fetches only its own files."""

import importlib.util
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from helpers import spec_of

from animalclf import cli
from animalclf import config as configuration
from animalclf.config import reference

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
GENERATED = {ROOT / "docs" / "config.md", ROOT / "docs" / "cli.md"}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
# Programs that the documents call and that these tests do not run.
OTHER_PROGRAMS = {
    ".",
    "aws",
    "benchmarks/gpu.sh",
    "done",
    "echo",
    "for",
    "group=$(aws",
    "mkdocs",
    "pip",
    "python3",
    "ssh",
}
KEY = re.compile(r"`((?:data|model|augment|optim|train)\.[a-z_]+)(?:=[^`]*)?`|--set ([a-z_.]+)=")


def name_of(document: Path) -> str:
    return document.name


def blocks(document: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language in a document, each with the number of its first line."""
    text = document.read_text(encoding="utf-8")
    matches = [match for match in FENCE.finditer(text) if match[2] == language]
    return [(text.count("\n", 0, match.start(3)), match[3]) for match in matches]


def prose(document: Path) -> str:
    """The text of a document without its fenced blocks."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def commands(document: Path) -> list[list[str]]:
    """The commands of the shell blocks of a document as argument lists, without variables set before them."""
    lines = []
    for _, source in blocks(document, "sh"):
        for line in source.replace("\\\n", " ").splitlines():
            words = line.split() if line.startswith("group=") else shlex.split(line, comments=True)
            words = list(itertools.dropwhile(re.compile(r"[A-Z_]+=").match, words))
            if words:
                lines.append([words[0].removeprefix(".venv/bin/"), *words[1:]])
    return lines


def animalclf_arguments(words: list[str]) -> list[str] | None:
    """The arguments of `animalclf`, also if it runs as a Ray job; None for other commands."""
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    if words[0] == "animalclf":
        arguments = words[1:]
    elif words[:2] == ["python", "-m"] and words[2].startswith("ray_jobs."):
        arguments = [words[2].removeprefix("ray_jobs."), *words[3:]]
    else:
        return None
    is_job = arguments[0] == "submit" and not arguments[1].startswith("--")
    return arguments[1:] if is_job else arguments


def help_examples() -> list[list[str]]:
    """The examples of the commands' help, which docs/cli.md shows, without the remarks after them."""
    lines = "".join(source for _, source in blocks(ROOT / "docs" / "cli.md", "text")).splitlines()
    commands = [re.split(r"\s{3,}", line.strip())[0] for line in lines]
    return [shlex.split(command) for command in commands if command.startswith("animalclf ")]


ALL_COMMANDS = [(document.name, words) for document in DOCUMENTS for words in commands(document)]
ANIMALCLF_COMMANDS = [
    (document, arguments)
    for document, words in [*ALL_COMMANDS, *(("cli.md", words) for words in help_examples())]
    if (arguments := animalclf_arguments(words))
]
OTHER_COMMANDS = [
    (document, words)
    for document, words in ALL_COMMANDS
    if animalclf_arguments(words) is None and words[0] not in OTHER_PROGRAMS
]


def shortened(value: str | list[str]) -> str:
    """The id of a test's parameter."""
    return value if isinstance(value, str) else " ".join(value)[:60]


@pytest.mark.parametrize(("document", "arguments"), ANIMALCLF_COMMANDS, ids=shortened)
def test_a_command_parses_and_its_recipes_and_keys_exist(document, arguments):
    parsed = vars(cli.build_parser().parse_args(arguments))
    sets = configuration.parse_sets(parsed.get("set") or ())
    file, recipe = parsed.get("file") or "", parsed.get("recipe")
    if arguments[0] == "compare" and (not file or (ROOT / file).exists()):
        flags = {name: parsed[name] for name in ("recipes", "seeds", "grid", "search", "samples", "schedule")}
        assert spec_of(str(ROOT / file) if file else "", overrides=sets, **flags).trials
    elif recipe and "/" not in recipe:
        configuration.load(recipe, sets)


@pytest.mark.parametrize(("document", "words"), OTHER_COMMANDS, ids=shortened)
def test_a_command_names_things_that_exist(document, words):
    program, *arguments = words
    if program == "make":
        assert f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    elif program == "ray":
        assert arguments[0] in ("up", "down", "dashboard", "get-auth-token")
        assert all((ROOT / argument).exists() for argument in arguments if argument.endswith(".yaml"))
    else:
        assert program == "python", f"{document}: {program}: neither run nor parsed by a test"
        refuse_unknown_script(arguments)


def refuse_unknown_script(arguments: list[str]) -> None:
    """Fail for arguments of `python` that name no file, no module of this repository or no flag of it."""
    is_module = arguments[0] == "-m"
    target = arguments[1] if is_module else arguments[0]
    if target == "pytest":
        assert all((ROOT / argument).exists() for argument in arguments if argument.startswith("tests/"))
        return
    file = ROOT / (target.replace(".", "/") + ".py" if is_module else target)
    source = file.read_text(encoding="utf-8")
    flags = [argument for argument in arguments[1:] if argument.startswith("--")]
    assert all(f'"{flag}"' in source for flag in flags), f"{file.name}: unknown flag among {flags}"


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_commands_are_in_fenced_blocks(document):
    assert not re.findall(r"^    (?:\.venv/bin/)?(?:animalclf|python|make|ray) .*", prose(document), re.M)


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - {ROOT / "CHANGELOG.md"}), ids=name_of)
def test_configuration_keys_exist(document):
    known = set(reference.keys())
    named = {match[0] or match[1] for match in KEY.findall(document.read_text(encoding="utf-8"))}
    assert {name for name in named if not name.endswith((".onnx", ".safetensors"))} <= known


@pytest.fixture
def photos(tmp_path, monkeypatch, sample_data):
    """A working directory with the files that the documents name: real photographs and VGG16's weights."""
    for folder in sorted(Path(sample_data, "animals10_sample").iterdir())[:3]:
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
@pytest.mark.parametrize("document", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_the_python_blocks_run(document, photos, ray_local):
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, source in blocks(document, "python"):
        exec(compile("\n" * line + source, str(document), "exec"), namespace)


@pytest.mark.ray
@pytest.mark.sample
def test_the_quickstart_runs(photos, ray_local, capsys):
    """Its commands about photos/, new/ and runs/a."""
    done = []
    for arguments in filter(None, map(animalclf_arguments, commands(ROOT / "docs" / "quickstart.md"))):
        if "--resume" in arguments:
            continue
        assert cli.main(arguments) == 0, arguments
        done.append(arguments[0])
    assert done == ["train", "prepare", "evaluate", "predict", "report", "recipes", "recipes"]
    assert Path("runs/a/report.html").exists()
    assert Path("new_predictions/submission.csv").read_text().startswith("id,category\n")


def slug(heading: str) -> str:
    """The anchor of a heading of plain words."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_work(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(target), re.M)
            assert anchor in map(slug, headings), f"{document.name}: {link}"


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - {ROOT / "CHANGELOG.md"}), ids=name_of)
def test_named_files_exist(document):
    folders = "animalclf|benchmarks|docs|examples|ray_jobs|tests"
    files = re.findall(rf"`((?:{folders})/[\w/.*-]*|test_\w+\.py|\w+\.yaml)`", document.read_text(encoding="utf-8"))
    written_by_runs = {"config.yaml", "comparison.yaml"}
    known = [ROOT, ROOT / "tests", ROOT / "animalclf" / "data" / "augment" / "operations"]
    missing = [file for file in files if not any(any(folder.glob(file)) for folder in known)]
    assert set(missing) <= written_by_runs


def test_the_map_names_every_package():
    (_, packages), *_ = blocks(ROOT / "CONTRIBUTING.md", "text")
    modules = [path.stem for path in (ROOT / "animalclf").iterdir() if path.stem[0] != "_"]
    assert [name for name in modules if not re.search(rf"\b{name}\b", packages)] == []


def statements(document: Path) -> Iterator[str]:
    """The sentences and table rows of a document with at least ten words."""
    for paragraph in re.split(r"\n\s*\n|\n(?=[|-])", prose(document)):
        for sentence in re.split(r"(?<=[.:;])\s+", " ".join(paragraph.split())):
            if len(sentence.split()) >= 10:
                yield sentence


def test_no_page_repeats_another():
    """The references of commands and keys are left out: a command's summary is that of its function."""
    pages: dict[str, str] = {}
    repeated = []
    for document in sorted(set(DOCUMENTS) - GENERATED):
        for statement in set(statements(document)):
            if statement in pages:
                repeated.append(f"{pages[statement]}, {document.name}: {statement}")
            pages[statement] = document.name
    assert not repeated


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


class Requests(HTMLParser):
    """Collects what a browser fetches to show a page: scripts, styles, fonts, images, frames."""

    SOURCES = ("src", "srcset", "data", "poster")

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.urls += [values[name] for name in self.SOURCES if name in values]
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev", "alternate"):
            self.urls.append(values["href"])
        if tag == "style" or "style" in values:
            self.urls += re.findall(r"url\(([^)]*)", values.get("style", ""))
        assert "mermaid" not in values.get("class", "").split(), "the theme fetches Mermaid from a server"


def test_the_site_builds_and_fetches_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material is not installed (pip install -e '.[dev]')")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    urls = []
    for file in (tmp_path / "site").rglob("*.html"):
        requests = Requests()
        requests.feed(file.read_text(encoding="utf-8"))
        urls += requests.urls
    for file in (tmp_path / "site").rglob("*.css"):
        urls += re.findall(r"""(?:url\(|@import\s+)["']?([^"')]+)""", file.read_text(encoding="utf-8"))
    assert len(urls) > 50
    assert [url for url in urls if re.match(r"(?:https?:)?//", url)] == []


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_the_api_is_current():
    page = script("api_reference")
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.page(text), "docs/api.md is stale: run `python docs/api_reference.py` and commit what it writes"


def test_every_patch_of_ray_has_its_gain_in_the_table():
    modules = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "animalclf" / "raycompat").glob("*.py"))
    patches = set(re.findall(r"^@patch\((?:.|\n)*?^def (\w+)", modules, re.M))
    table = (ROOT / "docs" / "ray.md").read_text(encoding="utf-8").split("## What each patch earns\n")[1].split("##")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == patches


def test_the_diagrams_are_current():
    diagrams = script("diagrams")
    for name, draw in diagrams.DIAGRAMS.items():
        stored_svg = (diagrams.IMAGES / f"{name}.svg").read_text(encoding="utf-8")
        assert stored_svg == draw(), f"{name}.svg is stale: run `python docs/diagrams.py` and commit what it writes"


def test_images_are_small():
    images = [file for file in (ROOT / "docs" / "images").iterdir() if file.suffix in (".png", ".webp", ".svg")]
    assert images
    assert [file.name for file in images if file.stat().st_size > 300_000] == []
