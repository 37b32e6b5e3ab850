"""Secrets reach neither logs nor run folders nor the dashboard; control characters do not reach the terminal."""

import ast
import io
import re
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from animalclf import config as configuration
from animalclf.cli import main
from animalclf.errors import UserError
from animalclf.runs import Run
from animalclf.submit.checks import check_job
from animalclf.training import checks
from animalclf.utils import caller, storage
from animalclf.utils.console import LiteralConsole, console, show_error, show_line, show_traceback
from animalclf.utils.redact import redact, redact_command
from tests.helpers import tiny_prepared

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
PLANTED = [
    f"https://me:{SECRET}@host/weights.pt",
    f"https://bucket.example/w.pt?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&part=1",
    f"https://host/w.pt?token={SECRET}#top",
    f"s3://{KEY}/x",
    f"the key is {SECRET}",
    "the token is hf_planted0123456789abcdef",
]


TOKEN = "hf_planted0123456789abcdef"


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def table_of(text):
    table = Table(title=text, width=60)  # narrower than the text: a secret must not be cut in two
    table.add_column(text)
    table.add_row(text)
    table.add_row(Text(text, style="bold"))
    return table


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("/home/me/.venv/bin/animalclf", "animalclf"),
        ("/home/me/animalclf/animalclf/__main__.py", "animalclf"),
        ("ray_jobs/train.py", "ray_jobs/train.py"),
        ("/home/me/notes.py", "/home/me/notes.py"),
    ],
)
def test_a_run_records_the_command_as_it_is_typed(file, name, monkeypatch):
    monkeypatch.setattr("sys.argv", [file, "train", "--data", "photos"])
    with caller.set_caller():
        assert caller.caller().text == f"{name} train --data photos"


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
    show_error(f"{text}: no such file")
    console.print(table_of(text), Text(text))
    with pytest.raises(UserError) as refused:
        check_job("train", ["--data", text, "--out", "s3://b/r"], ".", {})
    written = [file.read_text() for file in tmp_path.rglob("*.json")]
    everything = [*written, capsys.readouterr().err, str(refused.value)]
    assert len(written) == 2 and all(
        not any(hidden in part.replace("\n", "") for hidden in (SECRET, KEY, TOKEN)) for part in everything
    )
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


def test_errors_that_nobody_caught_and_wrong_arguments_show_no_secret(secret, capsys):
    try:
        raise OSError(f"GET https://me:{SECRET}@host/a\x1b[31m failed")
    except OSError:
        show_traceback(*sys.exc_info())
    with pytest.raises(SystemExit):
        main(["train", f"--wrong=https://host/?token={SECRET}"])
    output = capsys.readouterr().err
    assert (
        output.count("***") == 2
        and "OSError: GET https://***@host/a\\x1b[31m failed" in output
        and SECRET not in output
    )


def test_a_training_records_no_secret_of_the_environment(secret, tmp_path, capsys, monkeypatch):
    prepared = tiny_prepared(tmp_path / "set", counts=(8, 8))
    sets = [f"--set={name}" for name in ("data.stored_size=40", "model.input_size=40", "train.epochs=1")]
    monkeypatch.setattr("sys.argv", ["animalclf", "train", f"--note={SECRET}"])
    command = ["train", "--data", prepared.root, "--recipe", "resnet18", "--set=model.weights=none", *sets]
    assert main([*command, "--out", str(tmp_path / "run"), "--local"]) == 0
    assert main(["report", str(tmp_path / "run")]) == 0
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"config.yaml", "environment.json", "result.json", "best.pt", "report.html"} <= {file.name for file in files}
    for text in (*(file.read_bytes() for file in files), capsys.readouterr().err.encode()):
        assert not any(hidden.encode() in text for hidden in (SECRET, TOKEN))
    assert "--note=***" in (tmp_path / "run" / "environment.json").read_text()


@pytest.mark.parametrize(
    "url",
    [f"https://me:{SECRET}@host/w.pt", f"s3://me:{SECRET}@bucket/x", f"https://host/w.pt?X-Amz-Signature={SECRET}"],
)
def test_addresses_with_credentials_are_refused(url, tmp_path):
    """They would be recorded: in config.yaml, in dataset.json, in the report."""
    for action in (
        lambda: storage.read_bytes(url),
        lambda: main_error(["train", "--data", url]),
        lambda: main_error(["train", "--data", str(tmp_path), f"--set=model.weights={url}"]),
    ):
        with pytest.raises(UserError, match="has a password, a token or a signature") as refused:
            action()
        assert SECRET not in str(refused.value)
    assert storage.filesystem("s3://bucket/token=cat/?token=a b/x.jpg")


def main_error(arguments):
    """Run a command; its UserError is raised."""
    from animalclf import cli

    parsed = cli.build_parser().parse_args(arguments)
    parsed.handler(parsed)


@pytest.mark.parametrize(
    ("env", "refused"),
    [
        ({"HF_TOKEN": TOKEN}, True),
        ({"MLFLOW_TRACKING_PASSWORD": "correcthorse"}, True),
        ({"AWS_ENDPOINT_URL": "http://me:password1@host"}, True),
        ({"TOKENIZERS_PARALLELISM": "false", "AWS_SHARED_CREDENTIALS_FILE": "/home/a/.aws/credentials"}, False),
        ({"COLOUR": "red", "AWS_ENDPOINT_URL": "http://host:9000"}, False),
    ],
)
def test_the_dashboard_gets_no_secret_variable(env, refused, monkeypatch):
    arguments = ["--data", "s3://b/p", "--out", "s3://b/r"]
    if not refused:
        check_job("train", arguments, ".", env)
        return
    with pytest.raises(UserError, match="everybody who sees the dashboard") as error:
        check_job("train", arguments, ".", env)
    assert not any(value in str(error.value) for value in env.values())


@pytest.mark.parametrize("flag", [["--notify", "https://hooks.example/T/B"], ["--notify-command=send B-token"]])
def test_the_dashboard_gets_no_webhook(flag):
    with pytest.raises(
        UserError, match=r"^--data s3://b/p --out s3://b/r --notify.*\*\*\*: everybody who sees"
    ) as error:
        check_job("train", ["--data", "s3://b/p", "--out", "s3://b/r", *flag], ".", {})
    assert "hooks" not in str(error.value) and "B-token" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------- the rule

PACKAGE = Path(__file__).parents[1] / "animalclf"
# Standard output is for programs: --json, and the log of a job.
STDOUT = {"cli.py": {"print"}, "commands/completion.py": {"print"}, "submit/log.py": {"sys.stdout.write"}}
OUTPUT = {"print", "pprint", "sys.stdout.write", "sys.stderr.write", "warnings.warn"}
LOGGING = re.compile(r"(^|\.)(logging|logger|log)\.(warn|warning|error|exception|critical)")


def wrong_output(source, name=""):
    """The calls in `source` that print past utils/console.py, or print a line of text other than by show_line."""
    faults = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        function = ast.unparse(call.func)
        texts = [
            arg
            for arg in call.args
            if isinstance(arg, ast.JoinedStr | ast.Constant | ast.BinOp) or "join(" in ast.unparse(arg)
        ]
        wrong = (
            function in OUTPUT - STDOUT.get(name, set())
            or function.rpartition(".")[2] in ("Console", "LiteralConsole")
            or LOGGING.fullmatch(function)
            or (function.endswith("console.print") and (texts or {word.arg for word in call.keywords} - {"soft_wrap"}))
        )
        faults += [ast.unparse(call)] if wrong else []
    return faults


def test_all_text_goes_through_the_console():
    faults = {
        str(file.relative_to(PACKAGE)): wrong
        for file in sorted(PACKAGE.rglob("*.py"))
        if file.name != "console.py"
        and "templates" not in file.parts
        and (wrong := wrong_output(file.read_text(), str(file.relative_to(PACKAGE))))
    }
    assert not faults


@pytest.mark.parametrize(
    "source",
    [
        "print(path)",
        "console.print(f'{path}')",
        "output.console.print('a' + path)",
        "console.print(' '.join(paths))",
        "console.print(path, markup=True)",
        "sys.stderr.write(path)",
        "logging.warning(path)",
        "warnings.warn(path)",
        "rich.console.Console().print(path)",
    ],
)
def test_the_rule_sees_other_ways_to_print(source):
    assert wrong_output(source)


@pytest.mark.parametrize("value", [TOKEN, f"run-{TOKEN}", KEY, f"https://me:{SECRET}@host/w.pth"])
def test_a_secret_in_a_setting_is_refused_before_any_work(secret, value):
    config = configuration.load("demo", {"name": value})
    with pytest.raises(
        UserError, match=r"^name: holds a secret \(.*\*\*\*.*\), which run folders and reports"
    ) as caught:
        checks.resolve_config(config)
    assert TOKEN not in str(caught.value) and SECRET not in str(caught.value)
