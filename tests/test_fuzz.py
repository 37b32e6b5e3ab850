"""A sample of the fuzzing that `make fuzz` does: cut files of every image format, and damaged files of every kind."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np
import pytest
from fuzz import corpus, runner
from fuzz.broken import Broken, Endless
from fuzz.files import Files
from fuzz.images import Images

from animalclf.data.decode import UnreadableImage, decode


def test_the_corpus_has_the_formats() -> None:
    formats = {sample.name.split()[0] for sample in corpus.images()}
    assert formats >= {
        "JPEG",
        "PNG",
        "WEBP",
        "GIF",
        "TIFF",
        "BMP",
        "PPM",
        "TGA",
        "JPEG2000",
        "ICO",
        "ICNS",
        "PCX",
        "SGI",
        "DDS",
        "QOI",
        "XBM",
        "XPM",
        "IM",
        "SUN",
        "PSD",
    }


def test_an_input_depends_on_its_seed_and_number_alone() -> None:
    first = corpus.images()
    time.sleep(1.1)  # an AVIF animation has the second in which it was made
    corpus.images.cache_clear()
    assert [sample.data for sample in corpus.images()] == [sample.data for sample in first]


def test_a_cut_image_file_is_refused_or_has_all_pixels() -> None:
    for sample in corpus.images():
        for length in range(len(sample.data) % 7, len(sample.data), max(1, len(sample.data) // 40)):
            try:
                decoded = decode(sample.data[:length])
            except UnreadableImage:
                continue
            assert np.array_equal(decoded.image, sample.pixels), f"{sample.name} cut to {length:,} bytes"


@pytest.mark.parametrize("target, count", [(Images, 4000), (Files, 1500)])
def test_damaged_files_are_refused_in_one_line_or_read(target: type[runner.Target], count: int) -> None:
    with closing(target()) as inputs:
        report = runner.run_here(inputs, range(count), seed=0)
    assert not report.faults, "\n".join(report.faults[:20])


def test_the_runner_reports_every_kind_of_fault_and_continues() -> None:
    report = runner.run(Broken, 8, seed=0)
    faults = "\n".join(report.faults)
    for fault in ("input 0: KeyError: 'name'", "input 4: exit status -6", "input 5: exit status -6", "input 6: wrong"):
        assert fault in faults


def test_the_runner_ends_a_process_that_computes_without_an_answer(monkeypatch) -> None:
    monkeypatch.setattr(runner, "HANG_CPU_SECONDS", 0.5)
    (fault,) = runner.run(Endless, 1, seed=0, processes=1).faults
    assert fault.startswith("input 0: no answer in 0.5 s of CPU time")
