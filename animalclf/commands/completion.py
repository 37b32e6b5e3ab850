"""`animalclf completion`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf.commands import command_modules
from animalclf.commands.common import Answer, add_command

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 110
EXAMPLES = """\
  animalclf completion bash         (write it to ~/.local/share/bash-completion/completions/animalclf)
  animalclf completion zsh          (write it to _animalclf in a folder of $fpath)
  animalclf completion fish         (write it to ~/.config/fish/completions/animalclf.fish)"""
VALUES = {"recipe", "recipes", "name"}  # arguments whose values are names and not files


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "completion",
        run,
        summary="Print the script that completes commands, flags and file names in a shell.",
        examples=EXAMPLES,
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell")


def run(arguments: argparse.Namespace) -> Answer:
    script = completion_script(arguments.shell)
    if not arguments.json:
        print(script)
    return Answer({"shell": arguments.shell, "script": script})


def completion_script(shell: str) -> str:
    """The completion script for bash, zsh or fish."""
    import shtab  # only this command needs it

    parser = argparse.ArgumentParser(prog="animalclf")
    commands = parser.add_subparsers(metavar="COMMAND")
    for module in command_modules():
        module.add(commands)
    for command in commands.choices.values():
        for action in command._actions:
            takes_text = action.nargs != 0 and not action.choices and action.type is None
            if takes_text and action.dest not in VALUES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell=shell)
    return script
