"""docs/cli.md made from the arguments of the commands: `python -m animalclf.commands.reference` writes it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

from animalclf.commands import command_modules

MARKDOWN = Path(__file__).parents[2] / "docs" / "cli.md"
_INTRODUCTION = """# Command line

Every command with its arguments, made from `animalclf/commands/` by `python -m animalclf.commands.reference`; change it
there. `animalclf COMMAND --help` prints the same.

A command prints what is meant for people to standard error. With `--json` the last line of standard output is its
result. Exit codes: [faults](faults.md#exit-codes). `ray job submit -- python -m ray_jobs.COMMAND` runs the same command
on a cluster; `animalclf submit` checks it first.
"""


def markdown() -> str:
    """The text of docs/cli.md, the same for every terminal and Python version."""
    commands = argparse.ArgumentParser(prog="animalclf").add_subparsers()
    for module in command_modules():
        module.add(commands)
    sections = ["\n".join(_section(name, parser)) for name, parser in commands.choices.items()]
    return "\n".join([_INTRODUCTION, *sections])


def write() -> None:
    """Write docs/cli.md of this checkout."""
    MARKDOWN.write_text(markdown(), encoding="utf-8")


def _section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## animalclf {name}\n"
    yield f"{_wrap(parser.description or '')}\n"
    yield f"```text\n{(parser.epilog or '').partition(chr(10))[2]}\n```\n"
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and "--help" not in action.option_strings:
            yield _wrap(f"- `{_usage(action)}`: {_help(action, parser)}", indent="  ")
    yield ""


def _usage(action: argparse.Action) -> str:
    """`--data DATA`, `RUN ...` or `--force`, as the help shows it, without alternatives."""
    value = f"{{{','.join(action.choices)}}}" if action.choices else str(action.metavar or action.dest)
    if not action.option_strings:
        more = " ..." if action.nargs in ("+", argparse.REMAINDER) else ""
        return f"[{value}]" if action.nargs == "?" else f"{value}{more}"
    return action.option_strings[0] + (
        "" if action.nargs == 0 else f" {value if action.metavar or action.choices else value.upper()}"
    )


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    required = "required; " if action.required and action.option_strings else ""
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return required + text.replace("<", r"\<")  # "<time>" is no HTML


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    write()
