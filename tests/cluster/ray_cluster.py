"""The Ray cluster of the cluster tests: `ray up` of examples/cluster-local.yaml on three hosts, its jobs and state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hosts as machines
import yaml

ROOT = Path(__file__).parents[2]
DASHBOARD = "http://127.0.0.1:18265"
SIZE = "--object-store-memory=300000000 --num-cpus=2"
# Seconds for what takes seconds on a machine that has nothing else to do; several minutes if it has.
PATIENCE = 600.0
LOGS = "cd /tmp/ray/session_latest/logs"
NOTES: list[str] = []  # what was measured; shown at the end


def note(text: str) -> None:
    NOTES.append(text)
    path = os.environ.get("ANIMALCLF_CLUSTER_NOTES", os.devnull)
    with open(path, "a", encoding="utf-8") as file:  # survives an interruption of the tests
        file.write(f"{text}\n")


@dataclass
class Job:
    """A submitted job: what `python -m ray_jobs.submit` says while it runs, line by line."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append((time.time(), line.rstrip()))

    @property
    def log(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def wait_for(self, text: str, timeout: float = PATIENCE, after: float = 0.0) -> float:
        """The time at which a line with `text` came, the first `after` some time."""
        end = time.time() + timeout
        while time.time() < end:
            for when, line in list(self.lines):
                if text in line and when > after:
                    return when
            assert self.process.poll() is None, f"ended before {text!r}:\n{self.log}"
            time.sleep(0.2)
        raise AssertionError(f"no {text!r} within {timeout} s:\n{self.log}")

    def ends(self, timeout: float = 1.5 * PATIENCE) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            raise AssertionError(f"did not end within {timeout} s:\n{self.log}") from error


class Cluster:
    """The running cluster; its head is the first host."""

    def __init__(self, folder: Path) -> None:
        self.machines = machines.Hosts(folder)
        self.head, *self.others = self.machines.hosts
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))},
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "AWS_ENDPOINT_URL": machines.S3,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ.update({name: value for name, value in self.environment.items() if name.startswith("AWS_")})
        self.file = folder / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(self._example(folder), sort_keys=False))

    def _example(self, folder: Path) -> dict[str, Any]:
        """examples/cluster-local.yaml with what a user must change, changed; and without what needs a network."""
        config: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "cluster-local.yaml").read_text())
        config["cluster_name"] = "anclf-test"
        config["provider"] |= {"head_ip": self.head.address, "worker_ips": [host.address for host in self.others]}
        config["auth"]["ssh_private_key"] = str(folder / "key")
        config["file_mounts"] = {
            target: str(folder / "token") if target.endswith("token") else str(ROOT / source)
            for target, source in config["file_mounts"].items()
        }
        config["setup_commands"] = [line for line in config["setup_commands"] if "pip install" not in line]
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):  # three stores share this machine's memory
            config[key] = [line.replace("ray start", f"ray start {SIZE}") for line in config[key]]
        return config

    def ray(self, *arguments: str, timeout: float = PATIENCE) -> str:
        """A `ray` command as a user gives it, from the top of the repository."""
        return self._run([str(Path(sys.executable).with_name("ray")), *arguments], timeout)

    def _run(self, command: list[str], timeout: float) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def up(self) -> None:
        """`ray up`, a tunnel to the head, and all hosts there."""
        began = time.time()
        self.ray("up", "--yes", "--no-config-cache", str(self.file))
        note(f"ray up: head after {time.time() - began:.0f} s")
        self.open()
        self.wait_for_hosts(len(self.machines.hosts))
        note(f"all {len(self.machines.hosts)} hosts after {time.time() - began:.0f} s")

    def open(self) -> None:
        """Tunnel to the head's dashboard, as `ray dashboard` does it."""
        command = [
            str(Path(sys.executable).with_name("ray")),
            "dashboard",
            "--port",
            DASHBOARD.rsplit(":", 1)[1],
            str(self.file),
        ]
        self.tunnel = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.time() + PATIENCE
        while time.time() < end:
            try:
                self.ask("/api/version")
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError("ray dashboard opened no tunnel")

    def ask(self, path: str) -> Any:
        """The dashboard's JSON answer."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(DASHBOARD + path, headers={"Authorization": f"Bearer {token}"})
        return json.loads(urllib.request.urlopen(request, timeout=60).read())

    def nodes(self) -> list[dict[str, Any]]:
        """Ray's nodes, also those that have ended."""
        nodes: list[dict[str, Any]] = self.ask("/api/v0/nodes?limit=100&detail=True")["data"]["result"]["result"]
        return nodes

    def alive(self) -> list[str]:
        """Addresses of the hosts that are up, as the cluster sees it, but without the nodes that ended with a host and
        that the cluster does not miss yet."""
        booted = {host.address: host.booted for host in self.machines.hosts}
        return sorted(
            node["node_ip"]
            for node in self.nodes()
            if node["state"] == "ALIVE" and node["start_time_ms"] / 1000 > booted[node["node_ip"]]
        )

    def drain(self, host: machines.Host, seconds: int) -> None:
        """Announce that `host` is taken away in `seconds`, as the warning of a spot machine does."""
        nodes = [node for node in self.nodes() if node["node_ip"] == host.address and node["state"] == "ALIVE"]
        node = max(nodes, key=lambda node: node["start_time_ms"])
        options = {
            "address": f"{self.head.address}:6379",
            "node-id": node["node_id"],
            "reason": "DRAIN_NODE_REASON_PREEMPTION",
            "reason-message": "spot",
            "deadline-remaining-seconds": seconds,
        }
        flags = " ".join(f"--{name}={value}" for name, value in options.items())
        self.head.ssh(f"ray drain-node {flags}")

    def wait_for_hosts(self, count: int, timeout: float = PATIENCE) -> float:
        """Seconds until `count` hosts are up."""
        began, alive = time.time(), []
        while time.time() - began < timeout:
            with contextlib.suppress(OSError):  # a dashboard that answers late
                alive = self.alive()
            if len(alive) == count:
                return time.time() - began
            time.sleep(1)
        raise AssertionError(f"{alive} are up, not {count}\n{self._explain(alive)}")

    def _explain(self, alive: list[str]) -> str:
        """Why hosts are not up, the telling lines first: an error of the raylet, the start of Ray and its processes on
        each of them; then what the head has noticed."""
        asked = []
        for host in self.machines.hosts:
            if host.address not in alive:
                asked.append((host, f"{LOGS}; grep -hE ' [CF] |Check failed' raylet.out | tail -n 4"))
                asked.append((host, "uptime; tail -n 15 ~/ray-start-*.log"))
                asked.append((host, "ps -eo pid,etimes,args | grep -E '[/ ]ray[ /]|ray::' | grep -v grep"))
        asked.append((self.head, f"{LOGS}; grep -hE 'ealth check|is dead' gcs_server.out | tail -n 8"))
        asked.append(
            (self.head, f"{LOGS}; grep -hE 'to recover|start commands|rror' monitor.log monitor.out | tail -n 8")
        )
        parts = []
        for host, command in asked:
            try:
                text = host.ssh(f"({command}) 2>&1 | cut -c 1-220 | sed 's/^/  /'", check=False, timeout=60)
            except (OSError, subprocess.SubprocessError) as error:
                text = str(error)
            parts.append(f"--- {host.name}: {command}\n{text}")
        return "\n".join(parts)

    def trained_on(self) -> set[str]:
        """Addresses of the hosts on which training workers of any job ran."""
        nodes = {node["node_id"]: node["node_ip"] for node in self.nodes()}
        actors = self.ask("/api/v0/actors?limit=1000&detail=True")["data"]["result"]["result"]
        return {
            nodes[actor["node_id"]]
            for actor in actors
            if "TrainWorker" in actor["class_name"] and actor["node_id"] in nodes
        }

    def submit(self, *arguments: str, folder: Path = ROOT) -> Job:
        command = [
            sys.executable,
            "-u",
            "-m",
            "ray_jobs.submit",
            "--address",
            DASHBOARD,
            "--folder",
            str(folder),
            *arguments,
        ]
        return Job(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )

    def close(self) -> None:
        self.close_tunnel()
        self.machines.close()

    def close_tunnel(self) -> None:
        if hasattr(self, "tunnel") and self.tunnel.poll() is None:
            os.killpg(self.tunnel.pid, signal.SIGTERM)
            self.tunnel.wait()
