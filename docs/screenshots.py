"""Take the screenshots of the documentation from the reports of a run and a comparison, with Chromium:

    animalclf train --data animals10_sample --out runs/quick
    animalclf report runs/quick
    animalclf compare --data animals10_sample --file examples/compare-small.yaml --out runs/c
    python docs/screenshots.py runs/quick runs/c

A screenshot shows the top of one section of the page. The sections with photographs are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

IMAGES = Path(__file__).with_name("images")
# Section -> height of the window in CSS pixels.
RUN_SECTIONS = {"metrics": 560, "confusion_matrix": 560}
COMPARISON_SECTIONS = {"leaderboard": 690}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WIDTH = 1000  # of the window, in CSS pixels
MARGIN = 16  # pixels around the content


def take(report: Path, section: str, height: int, out: Path) -> None:
    """Write the first `height` CSS pixels of a section of `report` as a PNG file. Raises CalledProcessError."""
    only = f"<style>main > :not(#{section}) {{ display: none }} h2 {{ margin: 0; border: 0 }}</style>"
    html = report.read_text(encoding="utf-8")
    if f'<section id="{section}">' not in html:
        raise SystemExit(f"{report}: has no section {section}")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        page.write_text(html.replace("</head>", f"{only}</head>"), encoding="utf-8")
        arguments = ["--headless", "--hide-scrollbars", f"--window-size={WIDTH},{height}", f"--screenshot={shot}"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # Chromium has no sandbox for root
        subprocess.run([browser(), *arguments, page.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            crop(image.convert("RGB")).quantize(128).save(out, optimize=True)


def crop(image: Image.Image) -> Image.Image:
    """`image` without the background around its content, but for a margin."""
    background = Image.new("RGB", image.size, image.getpixel((0, 0)))
    left, top, right, bottom = ImageChops.difference(image, background).getbbox() or (0, 0, *image.size)
    far = (min(right + MARGIN, image.width), min(bottom + MARGIN, image.height))
    return image.crop((max(0, left - MARGIN), max(0, top - MARGIN), *far))


def browser() -> str:
    """The first installed program of PROGRAMS."""
    for name in PROGRAMS:
        if shutil.which(name):
            return name
    raise SystemExit(f"needs a browser: one of {', '.join(PROGRAMS)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for folder in map(Path, sys.argv[1:]):
        sections = COMPARISON_SECTIONS if (folder / "summary.json").exists() else RUN_SECTIONS
        for name, height in sections.items():
            take(folder / "report.html", name, height, IMAGES / f"report-{name.replace('_', '-')}.png")
