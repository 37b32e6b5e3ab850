"""`animalclf export`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import Answer, add_command, call
from animalclf.utils.console import console, show_line

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 85
EXAMPLES = """\
  animalclf export runs/a                                 (ONNX, into runs/a/export)
  animalclf export runs/a --to onnx,safetensors --check   (compared with predict on 200 files)
  animalclf export runs/a --to onnx-int8 --out small/     (weights of 8 bits)"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "export",
        run,
        summary="Write a run's best model for use without animalclf: ONNX from pixels to calibrated probabilities, "
        "safetensors, labels, a script and a model card.",
        examples=EXAMPLES,
        api_function=api.export,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder of a finished training")
    parser.add_argument(
        "--to",
        metavar="FORMATS",
        type=lambda text: text.split(","),
        help="onnx, onnx-int8, safetensors, or several: onnx,safetensors (default: onnx)",
    )
    parser.add_argument("--out", metavar="FOLDER", help="where the files go (default: RUN/export)")
    parser.add_argument(
        "--check",
        type=int,
        nargs="?",
        const=200,
        metavar="N",
        help="compare the ONNX files with predict on N files of many sizes and modes, made of validation images; "
        "nothing is exported if the probabilities differ by more than 0.001 (default: 200)",
    )


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.export.export import table

    show_line(f"exporting {arguments.run}")
    result = call(api.export, arguments)
    for renderable in table(result):
        console.print(renderable)
    return Answer(result.to_dict())
