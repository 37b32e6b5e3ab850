"""The size of the connected Ray cluster: CPUs, GPUs and other resources, now and at most."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import yaml

from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.utils.text import count_text

BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # written to the head node by `ray up`


def gpu_count() -> int:
    """GPUs of the connected cluster at its current size."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def cpus_per_node() -> list[int]:
    """The number of CPUs of each alive node with CPUs; [1] without such a node."""
    import ray

    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [count for count in counts if count] or [1]


def free_cpus_text() -> str:
    """Why tasks may wait: `the cluster has 2 nodes, 16 CPUs, 1.5 CPUs free`, and what a cluster without a free CPU
    means; `Ray does not answer` for an error of Ray."""
    import ray

    try:
        free = ray.available_resources().get("CPU", 0)
        text = f"the cluster has {cluster_text()}, {free:g} CPUs free"
    except ray.exceptions.RayError:
        return "Ray does not answer"
    return text if free >= 1 else f"{text}: if other programs hold them, this one goes on when they end"


def cluster_text() -> str:
    """The cluster's current resources: `2 nodes, 16 CPUs, 2 GPUs`."""
    import ray

    resources = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    return resources_text(nodes, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def resources_text(nodes: int, cpus: int, gpus: int) -> str:
    """`2 nodes, 16 CPUs, 2 GPUs`."""
    return f"{count_text(nodes, 'node')}, {count_text(cpus, 'CPU')}" + (f", {count_text(gpus, 'GPU')}" if gpus else "")


def max_resources() -> dict[str, float]:
    """The amount of each resource ("CPU", "GPU", ...) of the connected cluster. For a cluster that `ray up` started: at
    its maximum size, which Ray itself does not report."""
    import ray

    resources = ray.cluster_resources()
    bootstrap = os.path.expanduser(BOOTSTRAP)
    if os.environ.get(OWN_RAY_VARIABLE) or not os.path.exists(bootstrap):
        return dict(resources)
    with open(bootstrap, encoding="utf-8") as file:
        full_size = full_size_resources(yaml.safe_load(file))
    return {name: max(resources.get(name, 0), full_size.get(name, 0)) for name in {*resources, *full_size}}


def full_size_resources(config: Mapping[str, Any]) -> dict[str, float]:
    """The maximum of each resource on a cluster with this `ray up` configuration: with as many nodes as allowed of the
    node types that have most of the resource."""
    types = dict(config.get("available_node_types", {}))
    total = dict(types.pop(config.get("head_node_type"), {}).get("resources", {}))
    for name in {name for node_type in types.values() for name in node_type["resources"]}:
        nodes_left = config.get("max_workers", 0)
        for node_type in sorted(types.values(), key=lambda node_type: -node_type["resources"].get(name, 0)):
            nodes = min(nodes_left, node_type.get("max_workers", nodes_left))
            total[name] = total.get(name, 0) + nodes * node_type["resources"].get(name, 0)
            nodes_left -= nodes
    return total
