"""Progress lines without a terminal: plain lines at an interval, none if disabled."""

import pytest

from animalclf.utils.progress import ProgressLine, progress_text
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


def test_text() -> None:
    assert progress_text(100, 400, 2.0) == "100/400  50 images/s  6 s left"
    assert progress_text(400, 400, 2.0) == "400/400  200 images/s" and progress_text(0, 400, 0.0) == "0/400"


def test_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    throttle, ready = Throttle(10), []
    for now[0] in (0.0, 5.0, 9.9, 10.0, 19.0, 21.0):
        ready.append(throttle.ready())
    assert ready == [True, False, False, True, False, True] and throttle.ready(always=True) and not throttle.ready()
