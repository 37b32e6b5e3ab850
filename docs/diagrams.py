"""Draw the diagrams of the documentation as SVG into docs/images: `python docs/diagrams.py`.

The colours follow the reader's light or dark mode, and the text uses the system's font.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def box(rect: tuple[int, int, int, int], kind: str, content: str) -> str:
    """A rounded box. `rect`: x, y, width, height in pixels; `kind`: a colour of STYLE; `content`: a bold title and
    lines of text, separated by " | "."""
    x, y, width, height = rect
    title, *lines = content.split(" | ")
    parts = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>']
    parts.append(text(x + 12, y + 25, title, "title"))
    parts += [text(x + 12, y + 25 + LINE * number, line) for number, line in enumerate(lines, start=1)]
    return "\n".join(parts)


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


def data_flow() -> str:
    """Images to results: the top row runs to the right, the bottom row back to the left."""
    top, bottom, height = 50, 240, 110
    parts = [
        frame(768, 10, 202, 360, "compare (Ray Tune)"),
        box(
            (10, top, 160, height), "files", "images | class folders, table, | Kaggle, split folders; | local or s3://"
        ),
        box((200, top, 160, height), "data", "prepare | Ray Data: verify, | find duplicates, | split, resize"),
        box((390, top, 160, height), "files", "prepared set | manifest and shards | of uint8 images, | fingerprint"),
        box((580, top, 160, height), "data", "input | Ray Data or GPU: | order, augmentation, | batches"),
        box(
            (780, top, 178, height),
            "train",
            "train | Ray Train: one PyTorch | loop per worker, | validation, checkpoints",
        ),
        box(
            (780, bottom, 178, height),
            "files",
            "run folder | configuration, metrics, | checkpoints, result, | probabilities",
        ),
        box(
            (530, bottom, 210, height),
            "data",
            "evaluate, predict | Ray Data: labelled or new | images, intervals, class | priors",
        ),
        box((300, bottom, 200, height), "", "ensemble | vote, mean, fitted weights; | leaderboard with paired | tests"),
        box(
            (10, bottom, 260, height),
            "files",
            "report.html, submission.csv | one page that opens offline; | class and probabilities of | every image",
        ),
        *(arrow((x, top + 55), (x + 28, top + 55)) for x in (171, 361, 551)),
        arrow((741, top + 55), (778, top + 55)),
        arrow((869, top + height + 1), (869, bottom - 2)),
        arrow((779, bottom + 55), (742, bottom + 55)),
        arrow((529, bottom + 55), (502, bottom + 55)),
        arrow((299, bottom + 55), (272, bottom + 55)),
    ]
    return svg(980, 380, "Data flow: images, prepared set, training, run folder, results", parts)


def run_folder() -> str:
    """The files of a run folder in three groups, and who reads each group."""
    parts = [
        box((10, 150, 130, 70), "train", "train | writes all files"),
        frame(190, 10, 370, 350, "run folder"),
        box(
            (206, 42, 338, 100),
            "files",
            "state | config.yaml, environment.json, metrics.jsonl, | "
            "checkpoints/last.pt: model, optimizer, | schedule and random state",
        ),
        box(
            (206, 152, 338, 81),
            "files",
            "model | checkpoints/best.pt: the best epoch, with | classes and preprocessing",
        ),
        box(
            (206, 243, 338, 100),
            "files",
            "results | result.json, metrics.jsonl, events/, | predictions/*.parquet: class probabilities | "
            "of each image",
        ),
        box((640, 52, 330, 80), "train", "train --resume | continues after the last finished epoch"),
        box(
            (640, 152, 330, 81),
            "data",
            "evaluate, predict, ensemble, load | metrics, probabilities and classes of | any images",
        ),
        box((640, 253, 330, 80), "", "report, compare, TensorBoard | the HTML page, the leaderboard, curves"),
        arrow((141, 185), (188, 185)),
        arrow((545, 92), (638, 92)),
        arrow((545, 192), (638, 192)),
        arrow((545, 293), (638, 293)),
    ]
    return svg(980, 370, "The files of a run folder, and the commands that read them", parts)


def cluster() -> str:
    """A submitted job: the tunnel, the head, the workers and the bucket."""
    parts = [
        box((10, 70, 200, 110), "", "your machine | animalclf submit, | ray up, ray down, | the ssh key, the token"),
        frame(290, 10, 680, 200, "one security group: Ray's ports, with the token"),
        box(
            (306, 50, 200, 140),
            "",
            "head | Jobs API, autoscaler, | the job's driver: plan, | reports, restarts; | trains nothing",
        ),
        box(
            (560, 50, 200, 140),
            "train",
            "GPU workers | Ray Train: one worker | per GPU, gradients among | them; replaced when | they die",
        ),
        box(
            (784, 50, 170, 140),
            "data",
            "CPU workers | Ray Data: prepare, | batches, prediction; | from zero to as many | as needed",
        ),
        box(
            (306, 280, 648, 90),
            "files",
            "bucket (s3://) | photos/: raw images, read once by prepare | "
            "prepared/, runs/: prepared sets and run folders, which outlive the cluster",
        ),
        arrow((211, 125), (304, 125)),
        text(216, 116, "ssh tunnel"),
        arrow((507, 120), (558, 120), both=True),
        arrow((761, 120), (782, 120), both=True),
        arrow((406, 191), (406, 278), both=True),
        arrow((660, 191), (660, 278), both=True),
        arrow((869, 191), (869, 278), both=True),
        arrow((110, 181), (110, 325), (304, 325)),
        text(120, 316, "images in, runs out"),
    ]
    return svg(980, 380, "A cluster: your machine, the head, workers, the bucket", parts)


DIAGRAMS: dict[str, Callable[[], str]] = {"data-flow": data_flow, "run-folder": run_folder, "cluster": cluster}


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, draw in DIAGRAMS.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")
