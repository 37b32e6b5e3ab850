"""Joining a cluster, with and without a token, and starting a local Ray, from any thread."""

import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import ray

import animalclf
from animalclf import cluster
from animalclf.errors import UserError
from animalclf.raycompat import auth_token
from animalclf.raycompat.local_start import IDLE, shorten_errors
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.utils import lasting_thread
from animalclf.utils.lasting_thread import in_lasting_thread
from animalclf.utils.process_variables import PROCESS_VARIABLES
from animalclf.utils.ray_address import cluster_address, has_ended

# ------------------------------------------------------------------------------------------------- from short threads


KILLED_AT_START = """
import threading, time, psutil, ray
from animalclf import cluster

def kill_first_worker():
    while True:
        for process in psutil.Process().children(recursive=True):
            if any(part.endswith("default_worker.py") for part in process.cmdline()):
                return process.kill()
        time.sleep(0.001)

thread = threading.Thread(target=kill_first_worker, daemon=True)
thread.start()
cluster.ensure_ray()
print(ray.get(ray.remote(lambda: "done").remote()), not thread.is_alive())
"""


@pytest.mark.ray
def test_a_worker_killed_while_ray_starts_is_replaced():
    environment = {**os.environ, "RAY_ADDRESS": "local", "RAY_worker_register_timeout_seconds": "3"}
    command = [sys.executable, "-c", KILLED_AT_START]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.stdout.split() == ["done", "True"], done.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_in_which_ray_cannot_start_is_named_and_nothing_stays_changed(monkeypatch, tmp_path, exists):
    folder = tmp_path / "new" / ("long" * 25)
    if exists:
        folder.mkdir(parents=True)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    names = {*PROCESS_VARIABLES, OWN_RAY_VARIABLE}
    before = {name: os.environ.get(name) for name in names}
    with pytest.raises(UserError, match=rf"^Ray cannot start with its folder in {folder}: .*; set RAY_TMPDIR to a"):
        cluster.start_local(1)
    assert {name: os.environ.get(name) for name in names} == before
    assert folder.exists() == exists == (tmp_path / "new").exists()


def test_the_process_in_place_of_an_agent_ends_with_the_command():
    command = subprocess.Popen([sys.executable, "-c", ""])
    command.wait()
    idle = subprocess.run([sys.executable, "-IS", "-c", IDLE, str(command.pid)], stderr=subprocess.DEVNULL, timeout=60)
    assert idle.returncode != 0


def in_short_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_short_threads_share_one_that_lasts():
    assert in_lasting_thread(threading.current_thread) is threading.main_thread()
    threads = [in_short_thread(lambda: in_lasting_thread(threading.current_thread)) for _ in range(2)]
    assert threads[0] is threads[1] and threads[0].is_alive() and threads[0].daemon
    with pytest.raises(ZeroDivisionError):
        in_short_thread(lambda: in_lasting_thread(lambda: 1 / 0))


def test_a_forked_process_has_its_own_lasting_thread(monkeypatch):
    monkeypatch.setattr(lasting_thread, "_thread", threading.Thread(target=print))  # not alive, as after a fork
    assert in_short_thread(lambda: in_lasting_thread(threading.current_thread)).is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes outlive the thread that starts them")
def test_a_process_that_ends_with_its_thread_outlives_the_callers_thread():
    import ctypes

    def end_with_thread():
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: as Ray starts its processes

    def start():
        return subprocess.Popen(["sleep", "60"], preexec_fn=end_with_thread)

    short, lasting = in_short_thread(start), in_short_thread(lambda: in_lasting_thread(start))
    assert short.wait(timeout=30) == -9 and lasting.poll() is None
    lasting.kill()
    lasting.wait()


@pytest.mark.ray
def test_a_ray_started_in_a_short_thread_lasts_and_one_that_has_ended_is_replaced():
    program = """
import threading
import psutil
import ray
from animalclf import cluster

def heads():
    names = ("gcs_server", "raylet")
    return [process for process in psutil.Process().children() if process.name() in names]

def usable():
    return ray.get(ray.remote(num_cpus=1)(lambda: 5).remote(), timeout=60) == 5

threads = [threading.Thread(target=cluster.ensure_ray) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
first = heads()
assert len(first) == 2 and usable()
assert all(process.status() != psutil.STATUS_ZOMBIE for process in first)
cluster.ensure_ray()
assert heads() == first
[process.kill() for process in first]
psutil.wait_procs(first, timeout=1)
cluster.ensure_ray()
assert usable() and not {process.pid for process in first} & {process.pid for process in heads()}
cluster.leave_ray()
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    environment["PYTHONPATH"] = str(Path(animalclf.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_head_has_ended_when_it_refuses_connections():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert not has_ended(address)
    assert has_ended(address)


@pytest.mark.parametrize("leaves, connected", [(False, True), (True, True), (False, False)])
def test_a_ray_that_ends_under_a_command_is_named(monkeypatch, capsys, leaves, connected):
    left = threading.Event()

    def has_ended(address):
        if leaves:
            left.set()
        return True

    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "has_ended", has_ended)
    monkeypatch.setattr(cluster, "_current_connection", lambda: "h:1 job" if connected else "")
    cluster._watch("h:1 job", left)
    printed = capsys.readouterr().err
    assert printed.startswith("the Ray at h:1 has ended, and ends this process within a minute") == (
        connected and not leaves
    )


def test_a_head_that_refuses_one_connection_has_not_ended(monkeypatch, capsys):
    left, answers = threading.Event(), [True, False]

    def has_ended(address):
        return answers.pop(0) if answers else left.set()

    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "has_ended", has_ended)
    monkeypatch.setattr(cluster, "_current_connection", lambda: "h:1 job")
    cluster._watch("h:1 job", left)
    assert answers == [] and capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------------ joining


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """Writes an address to where `ray start` records its cluster; returns the file."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()

    def record(address):
        file.write_text(f"{address}\n")
        return file

    return record


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_cluster_comes_from_the_environment_or_from_ray_start(monkeypatch, recorded, tmp_path):
    assert cluster_address() == ("", str(tmp_path / "ray" / "ray_current_cluster"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        file = recorded(address)
        assert cluster_address() == (address, str(file))
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert cluster_address() == (address, str(file))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert cluster_address() == ("10.0.0.2:6379", "RAY_ADDRESS")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address() == ("", "RAY_ADDRESS")


def test_ray_records_its_cluster_in_the_folder_for_temporary_files(monkeypatch, recorded, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR")
    assert cluster_address() == ("", str(tmp_path / "ray" / "ray_current_cluster"))


def test_a_recorded_cluster_that_has_ended_is_named_and_ray_starts_here(monkeypatch, recorded, capsys):
    address = f"127.0.0.1:{free_port()}"
    file = recorded(address)
    assert cluster_address() == ("", str(file))
    line = (
        f"the Ray at {address}, which `ray start` recorded in {file}, has ended: a local one is used; remove that file"
    )
    assert capsys.readouterr().err.splitlines() == [line]
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=auto: no cluster of `ray start` runs on this machine; set RAY"):
        cluster_address()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8265", "ray://10.0.0.1:10001", "head", "head:", ":6379", "head:port", "head:99999"]
)
def test_what_is_no_address_is_refused_by_its_source(monkeypatch, recorded, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=r"^RAY_ADDRESS: '.*' is no Ray cluster's HOST:PORT; set RAY_ADDRESS to"):
        cluster_address()
    monkeypatch.setenv("RAY_ADDRESS", "")
    file = recorded(address)
    with pytest.raises(UserError, match=f"^{file}: "):
        cluster_address()


class OtherServer(BaseHTTPRequestHandler):
    """Not Ray: answers every request, also one of HTTP/2, by 404."""

    def handle_one_request(self):
        self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        self.close_connection = True


@pytest.fixture(params=["nothing", "silence", "web server"])
def no_ray(request):
    """The address of what is no head of a cluster."""
    with socket.create_server(("127.0.0.1", 0)) as silent, HTTPServer(("127.0.0.1", 0), OtherServer) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        ports = {"nothing": free_port(), "silence": silent.getsockname()[1], "web server": web.server_port}
        yield f"127.0.0.1:{ports[request.param]}"
        web.shutdown()


@pytest.mark.parametrize(
    "source, remedy", [("RAY_ADDRESS", "start it, or set"), ("/x/ray_current_cluster", "start it again, remove that")]
)
def test_a_cluster_that_does_not_answer_is_named_before_ray_tries_for_minutes(monkeypatch, no_ray, source, remedy):
    monkeypatch.setattr(auth_token, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(ray, "init", None)
    with pytest.raises(UserError, match=f"no Ray answers at {no_ray}, the cluster that {source} names") as caught:
        cluster._join(no_ray, source)
    assert remedy in str(caught.value) and "ray stop" not in str(caught.value)  # it ends every Ray of the machine


VERSIONS = """Version mismatch: The cluster was started with:
    Ray: 2.58.1
    Python: 3.11.9
This process on node 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.11
"""


@pytest.mark.parametrize(
    "error, problem",
    [
        (None, ""),
        (
            RuntimeError(VERSIONS),
            "it has Ray 2.58.1 and Python 3.11.9, this environment Ray 2.60.0 and Python 3.11.11;",
        ),
        (
            ValueError("Can't find a `node_ip_address.json` file\nin 60 s"),
            "Can't find a `node_ip_address.json` file, or",
        ),
    ],
)
def test_joining_names_the_ray_and_what_does_not_fit(monkeypatch, capsys, error, problem):
    def init(**_):
        if error:
            raise error

    monkeypatch.setattr(cluster, "answers", lambda address: True)
    monkeypatch.setattr(cluster, "prepare_token", lambda address: None)
    monkeypatch.setattr(ray, "init", init)
    if error:
        with pytest.raises(UserError, match=re.escape(f"the Ray at h:1 (RAY_ADDRESS) cannot be used: {problem}")):
            cluster._join("h:1", "RAY_ADDRESS")
    else:
        cluster._join("h:1", "RAY_ADDRESS")
        assert capsys.readouterr().err == "using the Ray at h:1 (RAY_ADDRESS)\n"


class Head(grpc.GenericRpcHandler):
    """A cluster's head that requires `token`, if it is not empty, and remembers what it received."""

    def __init__(self, token):
        self.token, self.received = token, []

    def service(self, call):
        self.received.append(dict(call.invocation_metadata).get("authorization", ""))

        def answer(request, context):
            if self.token and self.received[-1] != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.mark.parametrize(
    "required, own, mode, problem, sends",
    [
        ("", "secret", "", "", False),
        ("secret", "secret", "", "", True),
        ("secret", "secret", "token", "", False),  # Ray sends it already
        ("secret", "", "", r"requires a token; put .*\.ray/auth_token.*RAY_AUTH_TOKEN_PATH", False),
        ("secret", "other", "", "has another token; put", False),
        ("secret", "secret", "disabled", "requires a token; set RAY_AUTH_MODE=token", False),
    ],
)
def test_the_token_goes_to_a_cluster_that_requires_it(monkeypatch, tmp_path, required, own, mode, problem, sends):
    head, sent = Head(required), []
    server = grpc.server(ThreadPoolExecutor(1), handlers=[head])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text(f"{own}\n")
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setattr(auth_token, "send_token", lambda: sent.append(address) or True)
    try:
        if problem:
            with pytest.raises(UserError, match=problem):
                auth_token.prepare_token(address)
        else:
            auth_token.prepare_token(address)
        assert auth_token.answers(address)
    finally:
        server.stop(None)
    assert bool(sent) == sends
    if not required:
        assert set(head.received) == {""}  # it never gets the token


def test_a_token_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    for path in (tmp_path, tmp_path / "token"):
        (tmp_path / "token").write_bytes(b"\xff\xfe")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
        with pytest.raises(UserError, match=f"^{path}: the token cannot be read"):
            auth_token.read_token()


def test_of_the_messages_of_ray_only_ended_workers_are_printed_once_a_minute(monkeypatch, capsys):
    monkeypatch.setenv(OWN_RAY_VARIABLE, "1")
    ((_, _, listen),) = shorten_errors()
    stopped, messages = threading.Event(), ["Task failed: running low on memory\n" * 60] * 3 + ["another", None]

    def poll():
        text = messages.pop(0)
        if not messages:
            stopped.set()
        return (None, None) if text is None else (b"", {"error_message": text})

    listen(SimpleNamespace(gcs_error_subscriber=SimpleNamespace(subscribe=lambda: None, poll=poll)), stopped)
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        "this machine is short of memory: Ray ended a worker process, and repeats its work"
    ]
    assert not output.out
