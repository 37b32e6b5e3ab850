"""Patches of Ray: when they apply, what they leave out, and that no other code uses private names. Stopping a training,
which needs none of them."""

import contextlib
import json
import logging
import os
import pkgutil
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from helpers import after_its_first_epoch, lite_config, terminate_all, tiny_prepared, train_command
from ray._common.tls_utils import generate_self_signed_tls_certs
from ray._private import services, utils
from ray.tune.execution import class_cache
from ray.util import list_named_actors
from test_cluster import Head

from animalclf import cluster, raycompat
from animalclf.errors import UserError
from animalclf.raycompat import auth_token, local_start, patches
from animalclf.raycompat.auth_token import send_token
from animalclf.raycompat.local_start import IDLE
from animalclf.raycompat.patches import OWN_RAY_VARIABLE, STOCK_RAY_VARIABLE, patch
from animalclf.raycompat.recorded import trials_without_credentials
from animalclf.runs import Run
from animalclf.training import checks, ray_trainer
from animalclf.training.resources import Workers
from animalclf.training.stop import Stopped, Switch
from animalclf.utils.environment import restored
from animalclf.utils.process_variables import PROCESS_VARIABLES

ROOT = Path(__file__).parents[1]
NEEDS = {
    "animalclf.raycompat.patches:refusal": ("name", "versions", "needs", "shared"),
    "animalclf.raycompat.patches:STOCK_RAY_VARIABLE": None,
}
PRIVATE = re.compile(r"\bray\b[\w.]*\._(private|internal|common|raylet)\b")


def test_only_raycompat_uses_private_names_of_ray():
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(tracked) > 50
    matches = [name for name in tracked if PRIVATE.search((ROOT / name).read_text())]
    assert [name for name in matches if not name.startswith(("animalclf/raycompat/", "tests/test_raycompat.py"))] == []


@pytest.mark.parametrize(("answers_after", "runs", "asked"), [(3, 9, 4), (9, 2, 3)])
def test_a_node_that_starts_slowly_is_waited_for_while_its_process_runs(monkeypatch, answers_after, runs, asked):
    monkeypatch.setenv(OWN_RAY_VARIABLE, "1")
    monkeypatch.delenv(STOCK_RAY_VARIABLE, raising=False)
    answers = iter([[]] * answers_after + [["node"]])
    states = iter([True] * runs + [False])
    questions = []

    class Client:
        def __init__(self, address): ...

        def get_all_node_info(self, timeout):
            questions.append(timeout)
            return next(answers)

    monkeypatch.setattr(services, "GcsClient", Client)
    monkeypatch.setattr(services, "get_node", lambda gcs_address, node_id: "Ray's answer")
    monkeypatch.setattr(local_start, "RAYS_SECONDS", -1.0)
    monkeypatch.setattr(local_start, "_raylet_runs", lambda: next(states))
    monkeypatch.setattr(local_start.time, "sleep", lambda seconds: None)
    ((_, _, get_node),) = local_start.poll_node_start()
    assert get_node("address", "id") == "Ray's answer" and len(questions) == asked


LOST = """
import os, signal, sys, time
from ray._private import utils
from animalclf.raycompat.signals import kept_handler
from animalclf.utils import interrupts
interrupts.CLEANUP_SECONDS = 0.1
interrupts.handle_sigterm(lambda: os._exit(7))
class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
with interrupts.own_sigterm() as own, kept_handler(own):
    utils.set_sigterm_handler(lambda *_: sys.exit(1))  # as ray.init
    Deleted()  # Python ignores exceptions here, and in callbacks of a fork
    time.sleep(60)
"""


def test_a_sigterm_while_ray_starts_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LOST], cwd=ROOT, capture_output=True, timeout=50, check=False)
    assert done.returncode == 7, done.stderr.decode()


@pytest.fixture
def call_patch(monkeypatch, caplog):
    """A function that calls a patch of these versions and needs: whether it was applied, and its log lines."""
    monkeypatch.setenv(OWN_RAY_VARIABLE, "1")
    monkeypatch.delenv(STOCK_RAY_VARIABLE, raising=False)
    monkeypatch.setattr("ray.__version__", "2.60.3")
    caplog.set_level(logging.INFO)

    def call(versions=("2.56", "2.60"), needs=NEEDS, shared=False):
        caplog.clear()
        monkeypatch.setattr(patches, "PATCHES", [])

        @patch(versions, needs, shared)
        def quick():
            return True

        return quick(), caplog.messages

    return call


def test_a_patch_applies_where_everything_is_as_expected(call_patch, monkeypatch):
    assert call_patch() == (True, [])
    monkeypatch.delenv(OWN_RAY_VARIABLE)
    assert call_patch(shared=True) == (True, [])


@pytest.mark.parametrize(
    "needs, reason",
    [
        ({"animalclf.raycompat.patches:nothing": None}, "patches:nothing is missing"),
        ({"animalclf.raycompat.nothing:refusal": None}, "nothing:refusal is missing"),
        ({"animalclf.raycompat.patches:refusal": ("name",)}, r"takes \(name, versions, needs, shared\), not \(name\)"),
        ({**NEEDS, "animalclf.raycompat.patches:STOCK_RAY_VARIABLE": ("name",)}, "STOCK_RAY_VARIABLE has no signature"),
    ],
)
def test_a_patch_does_nothing_to_a_ray_with_other_private_names(call_patch, needs, reason):
    result, lines = call_patch(needs=needs)
    assert result is None and len(lines) == 1 and re.search(f"patch quick of Ray is not applied: .*{reason}", lines[0])


@pytest.mark.parametrize(
    "variable, value, reason",
    [
        (STOCK_RAY_VARIABLE, "1", "ANIMALCLF_STOCK_RAY=1"),
        (STOCK_RAY_VARIABLE, "other,quick", "ANIMALCLF_STOCK_RAY=other,quick"),
        (OWN_RAY_VARIABLE, "", "not started by animalclf"),
    ],
)
def test_a_patch_is_off_by_the_switch_and_on_clusters(call_patch, monkeypatch, variable, value, reason):
    monkeypatch.setenv(variable, value)
    result, lines = call_patch()
    assert result is None and len(lines) == 1 and reason in lines[0]


def test_a_patch_does_nothing_to_another_version_of_ray(call_patch):
    result, lines = call_patch(versions=("2.58",))
    assert result is None and lines == ["patch quick of Ray is not applied: written for Ray 2.58, this is 2.60.3"]


def test_the_patches_fit_the_ray_that_is_installed(monkeypatch):
    """Where a new Ray differs, the commands work but start later, and this test lists the differences."""
    monkeypatch.setenv(OWN_RAY_VARIABLE, "1")
    monkeypatch.delenv(STOCK_RAY_VARIABLE, raising=False)
    modules = [module.name for module in pkgutil.iter_modules(raycompat.__path__, f"{raycompat.__name__}.")]
    # In another process: in this one the patches may be applied already, so that the names are not Ray's.
    script = "import json, sys; import importlib; [importlib.import_module(name) for name in sys.argv[1:]]"
    script += "; from animalclf.raycompat.patches import PATCHES; print(json.dumps([refusal() for refusal in PATCHES]))"
    command = [sys.executable, "-c", script, *modules]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    refusals = json.loads(process.stdout.splitlines()[-1])
    assert len(refusals) > 5 and [reason for reason in refusals if reason] == []


patched = pytest.mark.skipif(bool(os.environ.get(STOCK_RAY_VARIABLE)), reason=f"{STOCK_RAY_VARIABLE} is set")


@patched
@pytest.mark.parametrize("connect", [lambda: cluster._join("h:1", "RAY_ADDRESS"), lambda: cluster.start_local(1)])
def test_ray_records_the_command_without_the_webhook(monkeypatch, connect):
    """What the dashboard's list of jobs shows of a command on somebody's cluster."""
    recorded, before = [], utils.get_entrypoint_name()

    def init(**_):
        recorded.append(utils.get_entrypoint_name())
        raise RuntimeError("seen")

    monkeypatch.setattr("sys.argv", ["animalclf", "train", "--notify", "https://hooks.example/T/B", "--out", "a"])
    monkeypatch.setattr(cluster, "answers", lambda address: True)
    monkeypatch.setattr(cluster, "prepare_token", lambda address: None)
    monkeypatch.setattr(cluster, "_environment_before", {})
    monkeypatch.setattr("ray.init", init)
    with (
        restored([*PROCESS_VARIABLES, OWN_RAY_VARIABLE]),
        pytest.raises((UserError, RuntimeError), match="seen"),
    ):
        connect()
    assert recorded == ["animalclf train --notify *** --out a"] and utils.get_entrypoint_name() == before


def test_a_cluster_with_tls_is_asked_as_ray_asks_it(monkeypatch, tmp_path):
    """RAY_USE_TLS: certificate and key of both sides are those of the cluster."""
    contents = generate_self_signed_tls_certs()
    certificate, key = (part.encode() for part in contents)
    files = {"CA_CERT": certificate, "SERVER_KEY": key, "SERVER_CERT": certificate}
    credentials = grpc.ssl_server_credentials([(key, certificate)], certificate, require_client_auth=True)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Head("")])
    address = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    server.start()
    monkeypatch.setattr(auth_token, "PROBE_SECONDS", 2.0)
    try:
        assert not auth_token.answers(address)
        monkeypatch.setenv("RAY_USE_TLS", "1")
        for name, content in files.items():
            monkeypatch.setenv(f"RAY_TLS_{name}", str(tmp_path / name))
            with pytest.raises(UserError, match=f"^RAY_USE_TLS is set, and {tmp_path / name} cannot be read"):
                auth_token.answers(address)
            (tmp_path / name).write_bytes(content)
            if name != "SERVER_CERT":
                with pytest.raises(UserError, match=r"^RAY_USE_TLS is set, and RAY_TLS_SERVER_\w+ is not; name"):
                    auth_token.answers(address)
        assert auth_token.answers(address)
    finally:
        server.stop(None)


@patched
def test_trials_record_no_credentials(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    with trials_without_credentials():
        trial = class_cache._ActorClassCache().get(type("Trial", (), {}))
    assert (
        "AWS" not in str(trial._default_options["runtime_env"]) and "env_vars" in trial._default_options["runtime_env"]
    )
    assert "AWS_SECRET_ACCESS_KEY" in class_cache.ENV_VARS_TO_PROPAGATE


@patched
def test_ray_sends_the_token_from_now_on(monkeypatch):
    from ray._raylet import AuthenticationMode, Config, get_authentication_mode

    assert get_authentication_mode() == AuthenticationMode.DISABLED
    with monkeypatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")  # restored afterwards
        assert send_token() and os.environ["RAY_AUTH_MODE"] == "token"
        assert get_authentication_mode() == AuthenticationMode.TOKEN
    Config.initialize("")
    assert get_authentication_mode() == AuthenticationMode.DISABLED


@patched
@pytest.mark.ray
def test_a_local_ray_has_no_servers_and_other_rays_are_not_patched(ray_local):
    from ray._private import node, services, utils

    started = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that has just ended
            started.append(" ".join(process.cmdline()))
    assert any("raylet/raylet" in command and "--minimal" in command for command in started)
    assert not [command for command in started if "dashboard/dashboard.py" in command or "monitor.py" in command]
    agents = [command for command in started if "dashboard/agent.py" in command and "raylet/raylet" not in command]
    assert len(agents) == 1 and IDLE in agents[0]
    assert (
        services.get_node.__module__ == services.__name__
        and utils.get_dashboard_dependency_error.__module__ == utils.__name__
    )
    assert all(
        getattr(node.Node, name).__module__ == node.__name__
        for name in ("start_api_server", "start_monitor", "start_log_monitor", "start_raylet")
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("prepared"), (21, 16, 8))


def train(prepared, folder, show, switch, workers=2):
    config = lite_config(1000)
    run = checks.lock_run(str(folder), config, resume=False)
    run.write_config(config)
    return ray_trainer.train_on_ray(config, prepared, run, Workers.fixed(workers), show, switch=switch)


@pytest.mark.ray
def test_a_training_stopped_from_another_thread_frees_its_resources(tmp_path, ray_local, prepared):
    import ray

    switch, stopped_at = Switch(), []

    def show(event):
        # In the middle of an epoch of two ranks, which wait for each other at every step.
        if getattr(event, "epoch", 0) >= 2 and not stopped_at:
            stopped_at.append(time.monotonic())
            threading.Thread(target=switch.stop).start()

    with pytest.raises(Stopped):
        train(prepared, tmp_path / "run", show, switch)
    switch.wait()
    assert time.monotonic() - stopped_at[0] < 20 and 1 <= len(Run(str(tmp_path / "run")).metrics()) < 1000
    until = time.monotonic() + 10
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"] and time.monotonic() < until:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    if not os.environ.get(
        STOCK_RAY_VARIABLE
    ):  # no actors that only clusters need: each is a process and seconds of the start
        names = {actor["name"] for actor in list_named_actors(all_namespaces=True)}
        assert not names & {"AutoscalingCoordinator", "datasets_stats_actor"}


@patched
@pytest.mark.ray
def test_replicas_of_a_model_have_no_actor_that_stores_where_they_are(ray_local):
    import ray

    class Doubled:
        def __call__(self, batch):
            return {"id": 2 * batch["id"]}

    cluster.configure_ray_data()
    replicas = ray.data.ActorPoolStrategy(size=1)
    dataset = ray.data.range(8, override_num_blocks=4).map_batches(Doubled, batch_size=None, compute=replicas)
    assert sorted(row["id"] for row in dataset.iter_rows()) == list(range(0, 16, 2))
    assert "ActorLocationTracker" not in {actor["name"] for actor in list_named_actors(all_namespaces=True)}


@pytest.mark.ray
def test_a_training_stopped_before_its_workers_exist_does_not_start(tmp_path, ray_local, prepared, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    switch, events = Switch(), []
    stopping = threading.Timer(0.3, switch.stop)
    stopping.start()
    with pytest.raises(Stopped):
        train(prepared, tmp_path / "run", events.append, switch, workers=1)
    switch.wait()
    assert not any(hasattr(event, "phase") for event in events)
    with pytest.raises(Stopped):
        train(prepared, tmp_path / "again", events.append, switch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "run"]  # and no folder of Ray Train


@pytest.mark.ray
@pytest.mark.parametrize("how, code", [("Ctrl-C", 130), ("SIGTERM to all", 143)])
def test_a_signal_ends_a_training_and_every_process_that_it_started(tmp_path, prepared, how, code):
    process = after_its_first_epoch(train_command(prepared, tmp_path / "run", 1000, "--cpu"), tmp_path / "run")
    driver = psutil.Process(process.pid)
    started = driver.children(recursive=True)
    if sys.platform == "linux" and not os.environ.get(STOCK_RAY_VARIABLE):  # the import takes seconds of the start
        assert not [file.path for file in driver.memory_maps() if "libtorch" in file.path]
    (tmp_path / "run" / "of-a-killed-worker.0123abcd.tmp").touch()
    if code == 143:
        terminate_all(process.pid)
    else:
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code and started, stderr[-3000:]
    lines = stderr.splitlines()
    assert lines[-2].startswith("stopped by") and "--resume" in lines[-1], stderr[-3000:]
    assert not re.search("Traceback|handler is not set|\\*\\*\\*", stderr)
    assert not psutil.wait_procs(started, timeout=30)[1]
    assert not (tmp_path / "run" / "running.json").exists() and not list(tmp_path.rglob("*.tmp"))
