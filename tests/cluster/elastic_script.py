"""Script of test_elastic.py: three Ray nodes on this machine (a head without CPUs, two workers), and an elastic
training that loses one of them and gets one back. It continues until that has happened, at any speed of the machine; a
resume with as many epochs as are done then ends it. Arguments: the prepared set and the run folder."""

import sys
from itertools import groupby

import ray
from helpers import tiny_config
from ray.cluster_utils import Cluster

from animalclf import cluster
from animalclf.data.prepared_set import open_prepared
from animalclf.rows import EpochEnd
from animalclf.runs import Run
from animalclf.training import checks, launch, ray_trainer, resources
from animalclf.training.resources import Workers
from animalclf.training.stop import Stopped, Switch

ENDLESS = 10_000
SIZE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
# A killed node refuses five checks in as many seconds; a slow one may take its time.
GIVEN_UP = {"health_check_period_ms": 1000, "health_check_timeout_ms": 30_000}


def main(prepared_at: str, out: str) -> None:
    machines = Cluster(initialize_head=True, head_node_args={**SIZE, "num_cpus": 0, "_system_config": GIVEN_UP})
    nodes = [machines.add_node(**SIZE) for _ in range(2)]
    ray.init(address=machines.address, log_to_driver=False)
    cluster.ensure_ray()
    cluster.silence_ray()
    resources.RESIZE_SECONDS = 2.0
    done: list[int] = []  # workers of each epoch
    switch = Switch()

    def show(event) -> None:
        if not isinstance(event, EpochEnd):
            return
        done.append(event.row.workers)
        if len(done) == 2:
            machines.remove_node(nodes.pop(), allow_graceful=False)
        elif done[-1] == 1 and len(nodes) == 1:
            nodes.append(machines.add_node(**SIZE))
        elif len(list(groupby(done))) == 3 and done[-2:] == [2, 2]:
            switch.stop()

    def config(epochs):
        return tiny_config(epochs, data__stored_size=76, model__input_size=76, train__threads=1)

    prepared, run = open_prepared(prepared_at), Run(out)
    launch.record_run(config(ENDLESS), prepared, run)
    try:
        ray_trainer.train_on_ray(config(ENDLESS), prepared, run, Workers(1, 2), show, switch=switch)
    except Stopped:
        shorter = config(len(run.metrics()))
        launch.record_run(shorter, prepared, checks.lock_run(out, shorter, resume=True))
        ray_trainer.train_on_ray(shorter, prepared, run, Workers(1, 2), lambda event: None)
    ray.shutdown()
    machines.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
