"""Secrets reach neither logs nor run folders nor the dashboard; control characters do not reach the terminal."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from animalclf import cli, submit
from animalclf.errors import UserError
from animalclf.runs import Run
from animalclf.utils import caller
from animalclf.utils.console import LiteralConsole, show_line
from animalclf.utils.redact import redact, redact_command

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
PLANTED = [
    f"https://me:{SECRET}@host/weights.pt",
    f"https://bucket.example/w.pt?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&part=1",
    f"https://host/w.pt?token={SECRET}#top",
    f"s3://{KEY}/x",
    f"the key is {SECRET}",
]


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.mark.parametrize("text", PLANTED)
def test_planted_secrets_reach_neither_the_log_nor_the_run_folder_nor_the_dashboard(
    secret, text, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("sys.argv", ["animalclf", "train", "--data", text, f"MY_TOKEN={SECRET}"])
    with caller.set_caller():
        Run(str(tmp_path)).write_environment()
    with caller.set_caller(f"animalclf.train(data={text!r})"):
        Run(str(tmp_path / "api")).write_environment()
    show_line(text)
    cli._show_error(f"{text}: no such file")
    with pytest.raises(UserError) as refused:
        submit._check("train", ["--data", text, "--out", "s3://b/r"], ".", {})
    written = [file.read_text() for file in tmp_path.rglob("*.json")]
    everything = [*written, capsys.readouterr().err, str(refused.value)]
    assert len(written) == 2 and all(SECRET not in part and KEY not in part for part in everything)
    assert all("***" in part for part in everything)


def test_other_text_is_left_as_it_is():
    for text in (
        "s3://bucket/token=cat/a.jpg",
        "runs/a b/secret garden",
        "http://host:8265/a?part=1",
        "a@b:c",
        "optim.lr=1",
    ):
        assert redact(text) == text
    assert redact_command("--set model.weights=a.pt") == "--set model.weights=a.pt"


@pytest.mark.parametrize(
    "name", ["[old]", "[/]", "[bold red]x", ":dog:", "<b>&amp;", "x" * 255, "é\u202f\u200d", "a\tb"]
)
def test_names_are_printed_as_they_are(name):
    output = io.StringIO()
    console = LiteralConsole(file=output, markup=False, emoji=False, highlight=False, width=400)
    console.print(f"{name}: unreadable", soft_wrap=True)
    assert output.getvalue().expandtabs() == f"{name}: unreadable\n".expandtabs()


def test_control_characters_are_escaped_in_lines_and_tables(capsys):
    name = "a\x1b[31mred\x1b]0;title\x07\r\x9b2J"
    output = io.StringIO()
    console = LiteralConsole(file=output, markup=False, highlight=False, force_terminal=True, width=200)
    table = Table(title=Text(name), width=100)
    table.add_column("class")
    table.add_row(Text(name, style="bold"))
    console.print(table, name, Text(name))
    for sequence in ("\x1b[31m", "\x1b]0", "\x07", "\r", "\x9b"):
        assert sequence not in output.getvalue()
    assert output.getvalue().count(r"\x1b[31mred") == 4
    show_line("one\nerror: not one")
    assert capsys.readouterr().err == "one\\nerror: not one\n"
