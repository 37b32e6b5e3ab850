"""Progress lines without a terminal: plain lines at an interval, none if disabled; and in a notebook."""

import time

import pytest

from animalclf import config as configuration
from animalclf.rows import TrialEntry
from animalclf.tuning.live import LiveTable
from animalclf.tuning.spec import Trial
from animalclf.utils import stall
from animalclf.utils.console import LiteralConsole
from animalclf.utils.progress import ProgressLine, progress_text
from animalclf.utils.stall import told_of_stalls
from animalclf.utils.throttle import Throttle


def test_a_plain_line_each_interval(capsys: pytest.CaptureFixture[str]) -> None:
    for interval, enabled in ((0, True), (60, True), (0, False)):
        with ProgressLine(interval=interval, enabled=enabled) as line:
            line.update("reading [images]", 0, 2000)
            line.update("reading [images]", 1000, 2000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == "reading [images]  0/2,000"
    assert (
        lines[1].startswith("reading [images]  1,000/2,000  ") and "images/s" in lines[1] and lines[1].endswith(" left")
    )


def test_work_that_stands_still_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "SECONDS", 0.3)
    with told_of_stalls(lambda: "why") as progressed:
        for _ in range(100):
            progressed()
            time.sleep(0.01)
        moving = capsys.readouterr().err
        time.sleep(1)
    standing = capsys.readouterr().err
    time.sleep(0.5)
    assert not moving and set(standing.splitlines()) == {"no progress for 0 s (why)"}
    assert not capsys.readouterr().err


@pytest.mark.parametrize("shown", [True, False])
def test_a_notebook_has_no_empty_output(monkeypatch: pytest.MonkeyPatch, shown: bool) -> None:
    texts: list[str] = []
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: texts.append(text))
    monkeypatch.setattr("IPython.display.display", lambda widget: texts.append("the widget"))
    console = LiteralConsole(force_jupyter=True, stderr=True)
    monkeypatch.setattr("animalclf.utils.console.console", console)
    with ProgressLine() as line:
        if shown:
            line.update("reading", 0, 2000)
            line.update("reading", 1000, 2000)
    with LiveTable([Trial("big_cnn", configuration.load("big_cnn"))], console) as table:
        if shown:
            table.show(TrialEntry(slug="big_cnn-s0", name="big_cnn", seed=0, run="", state="finished"))
    assert all(text.strip() for text in texts)
    assert texts.count("the widget") == 2 * shown
    assert not shown or any("reading" in text and "1,000/2,000" in text for text in texts)


def test_text() -> None:
    assert progress_text(100, 400, 2.0) == "100/400  50 images/s  6 s left"
    assert progress_text(4, 40, 10.0) == "4/40  0.4 images/s  1 min 30 s left"
    assert progress_text(400, 400, 2.0) == "400/400  200 images/s" and progress_text(0, 400, 0.0) == "0/400"


def test_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    throttle, ready = Throttle(10), []
    for now[0] in (0.0, 5.0, 9.9, 10.0, 19.0, 21.0):
        ready.append(throttle.ready())
    assert ready == [True, False, False, True, False, True] and throttle.ready(always=True) and not throttle.ready()
