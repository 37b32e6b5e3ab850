"""cluster.yaml and the example for machines at hand: valid by Ray's own schema, and safe where Ray's defaults are
not."""

import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from packaging.specifiers import SpecifierSet

from animalclf import cluster_size
from animalclf.utils.process_variables import PROCESS_VARIABLES

ROOT = Path(__file__).parents[1]
FILES = ["cluster.yaml", "examples/cluster-local.yaml"]


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def validate(config):
    """By the schema that Ray ships for such files."""
    jsonschema.validate(
        config, json.loads(Path(ray.__file__).with_name("autoscaler").joinpath("ray-schema.json").read_text())
    )


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_the_file_and_would_refuse_a_misspelt_one(name):
    validate(read(name))
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate({**read(name), "max_worker": 3})


@pytest.mark.parametrize("name", FILES)
def test_every_node_gets_the_tested_versions_and_only_those(name):
    config = read(name)
    sources = {target.rsplit("/", 1)[1]: source for target, source in config["file_mounts"].items()}
    assert (ROOT / sources["constraints.txt"]).samefile(ROOT / "constraints.txt")
    setup = config["setup_commands"]
    assert [line for line in setup if "pip install" in line] == [
        "~/animalclf-env/bin/pip install --quiet --requirement ~/constraints.txt"
    ]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        package, specifier = re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", requirement).groups()
        assert pins[next(pin for pin in pins if pin.lower().replace("_", "-") == package.lower())] in SpecifierSet(
            specifier
        )
    assert {"ray", "torch", "boto3"} <= set(pins)  # boto3: how the head's autoscaler starts workers on AWS
    (python,) = {version for line in setup for version in re.findall(r"python(3\.\d+) -m venv", line)}
    assert python in SpecifierSet(project["requires-python"])


@pytest.mark.parametrize("name", FILES)
def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_the_head(name):
    config = read(name)
    assert any(
        source == "~/.ray/auth_token" and target.endswith("/.ray/auth_token")
        for target, source in config["file_mounts"].items()
    )
    starts = [
        line
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in config[key]
        if "ray start" in line
    ]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0] and "0.0.0.0" not in (ROOT / name).read_text()
    for pattern in ("**/.git", "**/.venv", "**/data", "**/runs"):
        assert pattern in config["rsync_exclude"]


@pytest.mark.skipif(not all(map(shutil.which, ("setsid", "flock", "timeout"))), reason="needs util-linux")
def test_a_start_of_ray_that_fails_is_repeated_on_the_host_and_a_running_one_is_left_alone(tmp_path):
    """Ray's autoscaler never tries a host again on which a command failed."""
    (command,) = read("examples/cluster-local.yaml")["worker_start_ray_commands"]
    calls, gate = tmp_path / "calls", tmp_path / "gate"
    fakes = {"ray": f'[ "$1" = stop ] && exit\necho "$@" >> {calls}\nread status < {gate}\nexit $status', "sleep": ""}
    for name, script in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    os.mkfifo(gate)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "RAY_HEAD_IP": "10.0.0.1"}

    def start(text=command):
        return subprocess.run(["bash", "-c", text], env=environment, check=False, timeout=30).returncode

    def wait_for(condition):
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def starts():
        return calls.read_text().splitlines() if calls.exists() else []

    assert start() == 0
    for status in (1, 0):
        wait_for(lambda count=2 - status: len(starts()) == count)
        assert start(command.replace("setsid --fork", "")) == 1  # waits until flock has refused: the first still runs
        gate.write_text(f"{status}\n")
    (log,) = tmp_path.glob("ray-start-*.log")
    wait_for(lambda: subprocess.run(["flock", "--nonblock", log, "true"], check=False).returncode == 0)
    assert starts() == ["start --address=10.0.0.1:6379 --object-manager-port=8076"] * 2


@pytest.mark.parametrize("name", FILES)
def test_what_must_be_changed_stands_at_the_top_with_a_reason(name):
    top, rest = re.split(r"# -+ what you may leave as it is\n", (ROOT / name).read_text())
    marked = [line for line in top.split("all in this part\n")[1].splitlines() if "# CHANGE" in line]
    assert marked and all(len(line.split("# CHANGE")[1]) > 10 for line in marked) and "CHANGE" not in rest


@pytest.mark.parametrize("name", FILES)
def test_processes_that_train_start_with_the_variables_of_a_local_ray(name):
    config = read(name)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        exported = re.search(r"export ([^;]+);", " ".join(commands))[1].split()
        assert {f"{key}={value}" for key, value in PROCESS_VARIABLES.items()} <= set(exported)


def test_aws_machines_are_cheap_and_closed_by_default():
    config = read("cluster.yaml")
    types = config["available_node_types"]
    assert config["provider"]["cache_stopped_nodes"] is False and 0 < config["idle_timeout_minutes"] <= 15
    assert types["head"]["resources"] == {"CPU": 0} and "InstanceMarketOptions" not in types["head"]["node_config"]
    for name, kind in types.items():
        node = kind["node_config"]
        assert node["MetadataOptions"]["HttpTokens"] == "required" and node["SecurityGroupIds"] and node["ImageId"]
        assert node["IamInstanceProfile"]["Name"] == ("animalclf-head" if name == "head" else "animalclf-worker")
        assert node["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] >= 100
        if name != "head":
            assert (
                kind["min_workers"] == 0
                and kind["max_workers"] > 0
                and node["InstanceMarketOptions"] == {"MarketType": "spot"}
            )


def test_a_cluster_that_grows_is_as_large_as_its_file_allows(tmp_path, monkeypatch):
    """At the start the head is alone, with no CPU and no GPU; what may come decides what is refused."""
    config = read("cluster.yaml")
    # `ray up` fills in the resources of each instance type.
    sizes = {"head": {"CPU": 0}, "gpu_worker": {"CPU": 4, "GPU": 1}, "cpu_worker": {"CPU": 8}}
    for name, resources in sizes.items():
        config["available_node_types"][name]["resources"] = resources
    assert (config["max_workers"], cluster_size.full_size_resources(config)) == (4, {"CPU": 2 * 8 + 2 * 4, "GPU": 4})
    assert cluster_size.full_size_resources(read("examples/cluster-local.yaml")) == {}
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"memory": 7.0, "CPU": 64.0})
    monkeypatch.delenv(cluster_size.OWN_RAY_VARIABLE, raising=False)
    monkeypatch.setattr(cluster_size, "BOOTSTRAP", str(tmp_path / "ray_bootstrap_config.yaml"))
    assert cluster_size.max_resources() == {"memory": 7.0, "CPU": 64.0}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
    assert cluster_size.max_resources() == {"memory": 7.0, "CPU": 64.0, "GPU": 4}
    monkeypatch.setenv(cluster_size.OWN_RAY_VARIABLE, "1")
    assert cluster_size.max_resources() == {"memory": 7.0, "CPU": 64.0}
