"""Shell completion: the scripts know every command, and bash completes commands, flags and values."""

import shutil
import subprocess

import pytest

from animalclf.cli import main
from animalclf.commands import command_names
from animalclf.commands.completion import completion_script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_knows_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in command_names()) and "--views" in script
    if shutil.which(shell):
        assert not subprocess.run([shell, "-n"], input=script, capture_output=True, text=True).returncode


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pred"], "predict"),
        (["predict", "--top"], "--top-k"),
        (["predict", "--views", ""], "none flip multi"),
        (["completion", ""], "bash zsh fish"),
    ],
)
def test_bash_completes_commands_flags_and_values(words, expected):
    quoted = " ".join(f"'{word}'" for word in ["animalclf", *words])
    calls = f'\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words)}\n_shtab_animalclf\necho "${{COMPREPLY[@]}}"\n'
    result = subprocess.run(["bash"], input=completion_script("bash") + calls, capture_output=True, text=True)
    assert result.stdout.split() == expected.split()
