"""Draw the diagrams of the documentation as SVG into docs/images: `python docs/diagrams.py`.

The colours follow the reader's light or dark mode, and the text uses the system's font.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path

IMAGES = Path(__file__).with_name("images")
STYLE = """
  svg { color-scheme: light dark; --ink: #1c2024; --soft: #57606a; --line: #8c959f; --paper: #f6f8fa;
        --data: #ddf0ff; --train: #ffe8cc; --files: #e6f4e6; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6e8eb; --soft: #a5afb9; --line: #7d8894; --paper: #22272e;
          --data: #16395c; --train: #573a12; --files: #1e4428; }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--soft); }
  .title { font-weight: 600; font-size: 15px; fill: var(--ink); }
  rect { stroke: var(--line); fill: var(--paper); }
  .data { fill: var(--data); } .train { fill: var(--train); } .files { fill: var(--files); }
  .frame { fill: none; stroke-dasharray: 6 4; }
  path { stroke: var(--line); stroke-width: 1.8; fill: none; }
  marker path { fill: var(--line); stroke: none; }
"""
HEAD = """<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"
    orient="auto-start-reverse"><path d="M0 0 10 5 0 10z"/></marker></defs>"""
LINE = 19  # pixels from one line of text to the next


def box(kind: str, rect: Sequence[str], title: str, lines: Sequence[str]) -> str:
    """A rounded box. `kind`: a colour of STYLE; `rect`: x, y, width, height in pixels."""
    x, y, width, height = map(int, rect)
    parts = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>']
    parts.append(text(x + 12, y + 25, title, "title"))
    parts += [text(x + 12, y + 25 + LINE * number, line) for number, line in enumerate(lines, start=1)]
    return "\n".join(parts)


def boxes(description: str) -> Iterator[str]:
    """Boxes in paragraphs: a line "kind x y width height", a title, and lines of text. The kind "plain" has no
    colour."""
    for paragraph in description.strip().split("\n\n"):
        first, title, *lines = paragraph.splitlines()
        kind, *rect = first.split()
        yield box("" if kind == "plain" else kind, rect, title, lines)


def frame(x: int, y: int, width: int, height: int, title: str) -> str:
    """A dashed frame around boxes, with its title inside at the top."""
    rect = f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="12"/>'
    return f"{rect}\n{text(x + 12, y + 22, title)}"


def text(x: int, y: int, content: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(content)}</text>'


def arrow(*points: tuple[int, int], both: bool = False) -> str:
    """A line through `points` with a tip at the end, or at both ends."""
    start = ' marker-start="url(#tip)"' if both else ""
    line = " L".join(f"{x} {y}" for x, y in points)
    return f'<path d="M{line}" marker-end="url(#tip)"{start}/>'


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{HEAD}\n{body}\n</svg>\n'
    )


DATA_FLOW = """\
files 10 50 160 110
images
class folders, table,
Kaggle, split folders;
local or s3://

data 200 50 160 110
prepare
Ray Data: verify,
find duplicates,
split, resize

files 390 50 160 110
prepared set
manifest and shards
of uint8 images,
fingerprint

data 580 50 160 110
input
Ray Data or GPU:
order, augmentation,
batches

train 780 50 178 110
train
Ray Train: one PyTorch
loop per worker,
validation, checkpoints

files 780 240 178 110
run folder
configuration, metrics,
checkpoints, result,
probabilities

data 530 240 210 110
evaluate, predict
Ray Data: labelled or new
images, intervals, class
priors

plain 300 240 200 110
ensemble
vote, mean, fitted weights;
leaderboard with paired
tests

files 10 240 260 110
report.html, submission.csv
one page that opens offline;
class and probabilities of
every image
"""
RUN_FOLDER = """\
train 10 150 130 70
train
writes all files

files 206 42 338 100
state
config.yaml, environment.json, metrics.jsonl,
checkpoints/last.pt: model, optimizer,
schedule and random state

files 206 152 338 81
model
checkpoints/best.pt: the best epoch, with
classes and preprocessing

files 206 243 338 100
results
result.json, metrics.jsonl, events/,
predictions/*.parquet: class probabilities
of each image

train 640 52 330 80
train --resume
continues after the last finished epoch

data 640 152 330 81
evaluate, predict, ensemble, load
metrics, probabilities and classes of
any images

plain 640 253 330 80
report, compare, TensorBoard
the HTML page, the leaderboard, curves
"""
CLUSTER = """\
plain 10 70 200 110
your machine
animalclf submit,
ray up, ray down,
the ssh key, the token

plain 306 50 200 140
head
Jobs API, autoscaler,
the job's driver: plan,
reports, restarts;
trains nothing

train 560 50 200 140
GPU workers
Ray Train: one worker
per GPU, gradients among
them; replaced when
they die

data 784 50 170 140
CPU workers
Ray Data: prepare,
batches, prediction;
from zero to as many
as needed

files 306 280 648 90
bucket (s3://)
photos/: raw images, read once by prepare
prepared/, runs/: prepared sets and run folders, which outlive the cluster
"""


def data_flow() -> str:
    """Images to results: the top row runs to the right, the bottom row back to the left."""
    parts = [
        frame(768, 10, 202, 360, "compare (Ray Tune)"),
        *boxes(DATA_FLOW),
        *(arrow((x, 105), (x + 28, 105)) for x in (171, 361, 551)),
        arrow((741, 105), (778, 105)),
        arrow((869, 161), (869, 238)),
        *(arrow((x, 295), (end, 295)) for x, end in ((779, 742), (529, 502), (299, 272))),
    ]
    return svg(980, 380, "Data flow: images, prepared set, training, run folder, results", parts)


def run_folder() -> str:
    """The files of a run folder in three groups, and who reads each group."""
    parts = [
        frame(190, 10, 370, 350, "run folder"),
        *boxes(RUN_FOLDER),
        arrow((141, 185), (188, 185)),
        *(arrow((545, y), (638, y)) for y in (92, 192, 293)),
    ]
    return svg(980, 370, "The files of a run folder, and the commands that read them", parts)


def cluster() -> str:
    """A submitted job: the tunnel, the head, the workers and the bucket."""
    parts = [
        frame(290, 10, 680, 200, "one security group: Ray's ports, with the token"),
        *boxes(CLUSTER),
        arrow((211, 125), (304, 125)),
        text(216, 116, "ssh tunnel"),
        arrow((507, 120), (558, 120), both=True),
        arrow((761, 120), (782, 120), both=True),
        *(arrow((x, 191), (x, 278), both=True) for x in (406, 660, 869)),
        arrow((110, 181), (110, 325), (304, 325)),
        text(120, 316, "images in, runs out"),
    ]
    return svg(980, 380, "A cluster: your machine, the head, workers, the bucket", parts)


DIAGRAMS: dict[str, Callable[[], str]] = {"data-flow": data_flow, "run-folder": run_folder, "cluster": cluster}


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, draw in DIAGRAMS.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")
