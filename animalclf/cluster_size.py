"""The size of the connected Ray cluster: CPUs, GPUs and other resources, now and at most."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import yaml

from animalclf.raycompat.patches import OWN_RAY_VARIABLE

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
