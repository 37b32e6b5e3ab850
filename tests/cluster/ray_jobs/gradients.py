"""A job for the cluster tests: one step of the training loop on several hosts must change the weights as the same step
in one process."""

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

from animalclf.config import Config, Optim, Train
from animalclf.training import loop
from animalclf.training.distributed import RankContext

ROWS = 35  # no multiple of 2 or 3: the parts are uneven


class Net(nn.Module):
    """Without BatchNorm and dropout, whose statistics are those of a rank's own rows."""

    def __init__(self, dtype):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 5)).to(dtype)
        self.dtype = dtype

    def forward(self, image):
        return self.layers(image.permute(0, 3, 1, 2).to(self.dtype) / 255)


def step(network, share, ranks):
    """Weights after one step of plain gradient descent at a learning rate of 1: the start minus the gradient."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    config = Config(
        optim=Optim(name="sgd", lr=1.0, momentum=0.0), train=Train(epochs=1, precision="fp32", channels_last=False)
    )
    loop.train_epoch(network, [share], optimizer, loop.TrainPass(config, 0, np.array([ROWS]), ranks))
    return [parameter.detach().clone() for parameter in network.parameters()]


def worker(settings):
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    generator = np.random.default_rng(0)
    image, label = generator.integers(0, 256, (ROWS, 16, 16, 3), np.uint8), generator.integers(0, 5, ROWS)
    own_rows = np.array_split(np.arange(ROWS), world)[rank]
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        network = Net(dtype)
        start = [parameter.detach().clone() for parameter in network.parameters()]
        torch.manual_seed(0)
        whole = step(Net(dtype), {"image": image, "label": label, "index": np.arange(ROWS)}, RankContext())
        shared = {"image": image[own_rows], "label": label[own_rows], "index": own_rows}
        parts = step(nn.parallel.DistributedDataParallel(network), shared, RankContext(rank, world))
        for before, one, several in zip(start, whole, parts, strict=True):
            alone, together = before - one, before - several
            assert alone.abs().max() > 1e-3
            if dtype == torch.float64:
                # The order of the sums changes the last of 53 bits; in single precision the gradients are equal.
                assert torch.equal(alone.float(), together.float()), (alone - together).abs().max()
            else:
                assert torch.allclose(alone, together, rtol=1e-4, atol=1e-6), (alone - together).abs().max()
    ray.train.report({"rank": rank})
    return ray.util.get_node_ip_address()


if __name__ == "__main__":
    ray.init(logging_level="ERROR", log_to_driver=False)
    for hosts in (2, 3):
        scaling = ray.train.ScalingConfig(num_workers=hosts, placement_strategy="STRICT_SPREAD")
        ray.train.torch.TorchTrainer(
            worker, scaling_config=scaling, run_config=ray.train.RunConfig(storage_path="/tmp")
        ).fit()
        print(f"{hosts} hosts: the gradients agree", flush=True)
