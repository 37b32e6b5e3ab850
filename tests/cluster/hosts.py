"""Several hosts on one machine: network namespaces with an address each on one bridge, each with its own processes,
mounts, host name, /tmp, home folder and sshd; and an S3 server on the address of the bridge. Tests kill, disconnect and
restart them as real hosts.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

BRIDGE, NETWORK, S3_PORT = "anclf-br", "10.77.0", 5005
GATEWAY = f"{NETWORK}.1"
S3 = f"http://{GATEWAY}:{S3_PORT}"
HOME = "/home/ubuntu"  # as in examples/cluster-local.yaml
SSHD = """Port 22
HostKey {home}/host_key
AuthorizedKeysFile {home}/.ssh/authorized_keys
PermitRootLogin yes
PasswordAuthentication no
UsePAM no
StrictModes no
LoginGraceTime 0
MaxStartups 100
PidFile none
Subsystem sftp internal-sftp
"""
BOOT = """set -e
hostname "$1"
mount -t tmpfs tmpfs /home && mkdir /home/ubuntu && mount --bind "$2/home" /home/ubuntu
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/hosts" /etc/hosts
# PyTorch looks up host names. With an empty resolv.conf the lookup fails at once, 10 s faster per process group.
mount --bind "$2/resolv.conf" /etc/resolv.conf
mount -t tmpfs tmpfs /dev/shm
mkdir -p /run/sshd
mount -t tmpfs tmpfs /tmp && chmod 1777 /tmp
exec /usr/sbin/sshd -D -e -f /home/ubuntu/sshd_config
"""
# A real host has cores of its own. These get most of the shared ones, where version 1 of control groups is writable:
# what else runs here would starve Ray's agents, which must start within 15 s.
GROUP = "/sys/fs/cgroup/cpu/anclf"
JOIN = f"mkdir -p {GROUP} && echo 20480 > {GROUP}/cpu.shares && echo $$ > {GROUP}/cgroup.procs"
FIRST = ["bash", "-c", f'{{ {JOIN}; }} 2> /dev/null; exec "$@"', "first"]


def missing() -> str:
    """Why this machine cannot be several hosts; empty if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root, for network namespaces"
    missing_tools = [
        tool
        for tool in ("ip", "unshare", "ssh", "ssh-keygen", "rsync", "setpriv", "/usr/sbin/sshd")
        if not shutil.which(tool)
    ]
    if missing_tools:
        packages = "iproute2 util-linux openssh-client openssh-server rsync"
        return f"needs {', '.join(missing_tools)} (apt-get install {packages})"
    hidden = [path for path in (str(Path(__file__).resolve()), sys.prefix) if path.startswith("/tmp/")]
    if hidden:
        return f"{hidden[0]} is in /tmp, and every host has another /tmp"
    probe = subprocess.run(["ip", "netns", "add", "anclf-probe"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"network namespaces are not allowed here ({probe.stderr.strip()})"
    mounts = [
        "ip",
        "netns",
        "exec",
        "anclf-probe",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
        "/mnt",
    ]
    probe = subprocess.run(mounts, capture_output=True, text=True, check=False)
    run("ip", "netns", "del", "anclf-probe")
    return (
        f"namespaces with mounts of their own are not allowed here ({probe.stderr.strip()})" if probe.returncode else ""
    )


def run(*command: str, check: bool = True, timeout: float = 300) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]} {done.stderr[-2000:]}")
    return done.stdout


@dataclass
class Host:
    """One host; its folder holds its home, which outlives a restart as a disk does."""

    number: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    booted: float = 0.0  # Unix time

    @property
    def name(self) -> str:
        return f"anclf-{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{10 + self.number}"

    def start(self) -> None:
        """Boot: a fresh /tmp and no processes but sshd."""
        link = f"anclf-v{self.number}"
        if self.name not in run("ip", "netns", "list"):
            run("ip", "netns", "add", self.name)
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            run("ip", "link", "set", link, "master", BRIDGE)
            run("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
            for command in (
                ["link", "set", "eth0", "up"],
                ["link", "set", "lo", "up"],
                ["route", "add", "default", "via", GATEWAY],
            ):
                run("ip", "-n", self.name, *command)
        self.connect()
        self.booted = time.time()
        command = [
            *FIRST,
            "ip",
            "netns",
            "exec",
            self.name,
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--mount",
            "--uts",
            "--ipc",
        ]
        log = open(self.folder / "sshd.log", "ab")  # noqa: SIM115 (lives as long as the host)
        self.process = subprocess.Popen(
            [*command, "bash", "-c", BOOT, "boot", self.name, str(self.folder)],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        end = time.time() + 120
        while time.time() < end and self.process.poll() is None:
            try:
                socket.create_connection((self.address, 22), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start: {(self.folder / 'sshd.log').read_text()[-2000:]}")

    def cut(self) -> None:
        """Cut the network: nothing arrives, and nobody is told."""
        run("ip", "link", "set", f"anclf-v{self.number}", "down")

    def connect(self) -> None:
        run("ip", "link", "set", f"anclf-v{self.number}", "up")

    def kill(self) -> None:
        """As when the power goes: cut off first, so that nobody gets a farewell; then every process is gone."""
        self.cut()
        self.end()

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ssh(self, command: str, check: bool = True, timeout: float = 300) -> str:
        """The output of `command`, run on the host with what Ray added to .bashrc."""
        key = str(self.folder.parent / "key")
        options = [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=INFO",  # says why a connection was closed
            "-o",
            "ConnectionAttempts=5",
            "-i",
            key,
        ]
        words = ("ssh", *options, f"ubuntu@{self.address}", f"source ~/.bashrc; {command}")
        for _ in range(5):
            try:
                return run(*words, check=check, timeout=timeout)
            except RuntimeError as error:
                if "Connection closed" not in str(error) and "Connection reset" not in str(error):
                    raise
                time.sleep(5)  # a busy machine did not complete the connection in time
        return run(*words, check=check, timeout=timeout)


class Hosts:
    """`count` hosts and an S3 server, below `folder` (not in /tmp, which the hosts do not share)."""

    def __init__(self, folder: Path, count: int = 3, token: str = "0123456789abcdef" * 4) -> None:
        self.folder = folder
        self.clear()
        folder.mkdir(parents=True)
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
        (folder / "token").write_text(token)
        self.log = open(folder / "s3.log", "ab")  # noqa: SIM115 (lives as long as the server)
        server = Path(__file__).parents[1] / "s3_server.py"
        self.s3 = subprocess.Popen(
            [*FIRST, "setpriv", "--pdeathsig", "KILL", sys.executable, str(server), GATEWAY, str(S3_PORT)],
            stdout=self.log,
            stderr=self.log,
        )
        self.hosts = [self._host(number) for number in range(1, count + 1)]
        for host in self.hosts:
            host.start()

    def _host(self, number: int) -> Host:
        host = Host(number, self.folder / f"host{number}")
        home = host.folder / "home"
        (home / ".ssh").mkdir(parents=True)
        (home / ".aws").mkdir()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "host_key"))
        shutil.copy(self.folder / "key.pub", home / ".ssh" / "authorized_keys")
        (home / "sshd_config").write_text(SSHD.format(home=HOME))
        (home / ".bashrc").write_text("")
        (home / ".aws" / "credentials").write_text(
            "[default]\naws_access_key_id = test\naws_secret_access_key = test\n"
        )
        (home / ".aws" / "config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {S3}\n")
        (home / "animalclf-env").symlink_to(sys.prefix)
        # Another name for root with another home: this machine's Python may be in root's home, which only root reads.
        (host.folder / "passwd").write_text(f"ubuntu:*:0:0::{HOME}:/bin/bash\n{Path('/etc/passwd').read_text()}")
        (host.folder / "hosts").write_text(f"127.0.0.1 localhost\n{host.address} {host.name}\n")
        (host.folder / "resolv.conf").write_text("")
        return host

    def clear(self) -> None:
        """Remove what a run before left."""
        for name in run("ip", "netns", "list").split():
            if name.startswith("anclf-"):
                for pid in run("ip", "netns", "pids", name).split():
                    run("kill", "-9", pid, check=False)
                run("ip", "netns", "del", name)
        for number in range(1, 10):
            run("ip", "link", "del", f"anclf-v{number}", check=False)  # the end of a namespace takes its time
        run("ip", "link", "del", BRIDGE, check=False)
        run("rmdir", GROUP, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        for host in self.hosts:
            host.end()
        self.s3.kill()
        self.s3.wait()
        self.log.close()
        self.clear()


def fail_s3(seconds: float) -> int:
    """Make the S3 server answer 503 for so long. Returns how many requests it has refused before."""
    return int(
        urllib.request.urlopen(f"{S3}/fail?seconds={seconds}&status=503&code=ServiceUnavailable", timeout=60).read()
    )
