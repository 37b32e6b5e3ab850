"""Run by test_elastic.py in a process of its own: three Ray nodes on this machine (a head without CPUs, two to work), and an elastic training that
loses one of them and gets one back. Prints one line of JSON. Arguments: the prepared set and the run folder."""

import json
import sys

import ray
from helpers import tiny_config
from ray.cluster_utils import Cluster

from animalclf import cluster
from animalclf.data.shards import open_prepared
from animalclf.runs import Run
from animalclf.training import launch, placement
from animalclf.training.placement import Workers

EPOCHS = 16
SIZE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


def main(prepared_at: str, out: str) -> None:
    machines = Cluster(initialize_head=True, head_node_args={**SIZE, "num_cpus": 0})
    nodes = [machines.add_node(**SIZE) for _ in range(2)]
    ray.init(address=machines.address, log_to_driver=False)
    cluster.ensure_ray()
    cluster.quiet()
    placement.RESIZE_SECONDS = 2.0
    seen: list[dict[str, int]] = []

    def show(event) -> None:
        if "row" not in event:
            return
        row = event["row"]
        seen.append({"epoch": row["epoch"], "workers": row["workers"]})
        if len(seen) == 2:
            machines.remove_node(nodes.pop(), allow_graceful=False)
        elif row["workers"] == 1 and len(nodes) == 1:
            nodes.append(machines.add_node(**SIZE))

    config = tiny_config(EPOCHS, data__stored_size=76, model__input_size=76, train__threads=1)
    run = Run(out)
    run.write_config(config)
    result = launch.train_on_ray(config, open_prepared(prepared_at), run, Workers(1, 2), False, show)
    print(json.dumps({"seen": seen, "result": {key: result[key] for key in ("epochs", "workers")}}))
    ray.shutdown()
    machines.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
