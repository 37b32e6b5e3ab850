"""Errors of Ray that end a command: one line each."""

import inspect
from types import SimpleNamespace

import pytest
import ray
import ray.exceptions
from ray.exceptions import RayError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

from animalclf import cli
from animalclf.errors import ExitCode, UserError
from animalclf.raycompat import errors
from animalclf.raycompat.errors import named_start_errors, named_worker_errors
from animalclf.utils.notify import Notifier


def in_task(cause: Exception) -> Exception:
    """What `ray.get` raises for an exception in a task."""
    return RayTaskError("f", "Traceback ...\n  File x\nlast", cause, "p", 1, "10.0.0.1").as_instanceof_cause()


def rays_errors() -> list[type]:
    kinds = vars(ray.exceptions).values()
    return [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, RayError) and kind is not RayTaskError]


def instance(kind: type) -> Exception:
    """An error as Ray raises it, whose text has many lines."""
    error = kind.__new__(kind, "first\nsecond")
    names = "object_ref_hex owner_address call_site task_id error_message error_msg base_error_msg message"
    names += " reason_message _original_stack_trace client_exc"
    vars(error).update(dict.fromkeys(names.split(), "first\nsecond"), traceback_str=None, reason=None)
    return error


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a command that ends with an error. Returns its exit code, what it printed, and the notification."""

    def run(error, command=("recipes",)):
        sent = []
        monkeypatch.setattr(Notifier, "send", lambda self, ending: sent.append(ending))
        parsed = cli.build_parser().parse_args(command)

        def fail(arguments):
            raise error

        parsed.handler = fail
        monkeypatch.setattr(cli, "build_parser", lambda: SimpleNamespace(parse_args=lambda argv: parsed))
        code = cli.main(command)
        return code, capsys.readouterr().err, sent[0]

    return run


@pytest.mark.parametrize("kind", rays_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_ray_is_one_line_with_its_class_and_the_remedy(run, kind):
    for error in (instance(kind), in_task(instance(kind)), WorkerGroupError("60 lines\n" * 60, {0: instance(kind)})):
        code, text, ending = run(error)
        assert code == ExitCode.USER_ERROR
        assert text.startswith("error: ") and text.count("\n") == 1 and text.endswith("run the same command again\n")
        assert f"({kind.__name__})" in text or kind.__name__ in ("UserCodeException",)
        assert ending.exit_code == code and f"error: {ending.error}\n" == text


def test_what_ray_has_a_word_for_has_a_meaning():
    names = {kind.__name__ for kind in rays_errors()}
    assert set(errors.MEANINGS) <= names
    assert "data in Ray's memory was lost" in errors.ray_problem(instance(ray.exceptions.OwnerDiedError), "")
    assert errors.ray_problem(instance(ray.exceptions.ActorDiedError), "").startswith("a worker process of Ray ended")


def test_a_command_with_resume_offers_it(run):
    _, text, _ = run(instance(ray.exceptions.NodeDiedError), ("train", "--data", "x"))
    assert text.endswith("; run the same command again, with --resume if its run folder exists\n")


def test_a_mistake_that_a_task_finds_is_told_as_any_other(run):
    mistake = UserError("photos/: has no images; name another")
    for error in (in_task(mistake), ControllerError(in_task(mistake)), WorkerGroupError("x", {1: mistake})):
        assert run(error)[:2] == (ExitCode.USER_ERROR, f"error: {mistake}\n")


def test_a_fault_of_ours_in_a_task_has_its_traceback_and_then_one_line(run):
    code, text, ending = run(in_task(KeyError("label")))
    assert code == ExitCode.FAILED and "  File x\nlast\n" in text
    assert text.splitlines()[-1] == "error: a task on Ray failed with KeyError: 'label'" == f"error: {ending.error}"
    with pytest.raises(KeyError):  # without Ray, Python shows it
        run(KeyError("label"))


@pytest.mark.parametrize("error", [ray.exceptions.OutOfMemoryError("60 lines"), ray.exceptions.WorkerCrashedError()])
def test_a_worker_that_is_ended_for_memory_is_one_line(error):
    with pytest.raises(UserError, match=r"^[^\n]*memory[^\n]*; free memory$"):
        with named_worker_errors("free memory"):
            raise error


def test_a_start_of_ray_that_takes_too_long_is_one_line():
    with pytest.raises(UserError, match=r"^Ray did not start in time: this machine is too busy"):
        with named_start_errors():
            raise Exception("The current node timed out during startup. This could happen because ...")
    with pytest.raises(ValueError, match="another"):
        with named_start_errors():
            raise ValueError("another")
