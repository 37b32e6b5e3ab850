"""The Python API in a real Jupyter kernel: calls one after another, a progress bar, an interrupted cell that is
resumed."""

import os
import shutil
import signal
import tempfile
import threading
import time

import nbformat
import pytest
from helpers import LITE
from nbclient import NotebookClient

from animalclf.demo.dataset import write_demo
from animalclf.runs import Run

WIDGET = "application/vnd.jupyter.widget-view+json"
EPOCHS = 12  # of the interrupted training: enough that it does not end before the interrupt reaches its workers


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Runs a cell in a kernel that starts in `tmp_path` and joins no Ray of others: the cell's source to its
    outputs."""
    scratch = tempfile.mkdtemp(prefix="nb-")  # short: sockets lie below it
    monkeypatch.setenv("RAY_TMPDIR", scratch)
    monkeypatch.setenv("IPYTHONDIR", scratch)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    client = NotebookClient(
        nbformat.v4.new_notebook(), timeout=600, resources={"metadata": {"path": str(tmp_path)}}, allow_errors=True
    )

    def run(source):
        client.nb.cells.append(nbformat.v4.new_code_cell(source))
        return client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1)["outputs"]

    with client.setup_kernel():
        run.interrupt = lambda: os.kill(client.km.provisioner.pid, signal.SIGINT)
        yield run
    shutil.rmtree(scratch, ignore_errors=True)


def result_of(outputs, kind="text/plain"):
    """What the last line of a cell evaluates to; fails with the traceback of a cell that raises."""
    errors = [output for output in outputs if output["output_type"] == "error"]
    assert not errors, "\n".join(errors[0]["traceback"])
    return next(output["data"][kind] for output in outputs if output["output_type"] == "execute_result")


def training(resume=False):
    """A cell that trains the smallest network into the folder run."""
    settings = {**LITE, "train.epochs": EPOCHS, "train.precision": "fp32"}
    return f"animalclf.train('set', recipe='demo', out='run', set={settings}, resume={resume})"


@pytest.mark.ray
def test_cells_one_after_another_and_an_interrupted_one(notebook, tmp_path):
    write_demo(str(tmp_path / "demo"), images=36, test_images=2, seed=0)
    notebook("import animalclf, numpy, ray")
    outputs = notebook(f"animalclf.prepare('demo', 'set', recipe='demo', set={LITE})")
    assert "<table>" in result_of(outputs, "text/html")
    ray = "ray.get_runtime_context().gcs_address if ray.is_initialized() else 'left'"
    assert result_of(notebook(ray)) != "'left'"

    def interrupt():
        history, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 300
        while not history.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        notebook.interrupt()

    threading.Thread(target=interrupt).start()
    outputs = notebook(training())
    assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["KeyboardInterrupt"]
    assert not (tmp_path / "run" / "result.json").exists() and not (tmp_path / "run" / "running.json").exists()
    assert result_of(notebook(ray)) == "'left'"  # nothing trains on
    outputs = notebook(training(resume=True))
    assert "<td>balanced accuracy</td>" in result_of(outputs, "text/html")
    assert any(WIDGET in output.get("data", {}) for output in outputs)  # the progress bar
    assert Run(str(tmp_path / "run")).result().epochs == EPOCHS
    address = result_of(notebook(ray))
    notebook(f"animalclf.prepare('demo', 'again', recipe='demo', set={LITE})")
    assert result_of(notebook(ray)) == address != "'left'"  # the second call uses the Ray of the first
    outputs = notebook("animalclf.load('run').predict(numpy.zeros((80, 60, 3), numpy.uint8))")
    assert result_of(outputs).startswith("['")
