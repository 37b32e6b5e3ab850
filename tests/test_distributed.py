"""The numbers in which ranks exchange gradients: two processes with gloo, without Ray."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from helpers import tiny_config, tiny_prepared
from torch import nn

from animalclf.data.loader import MemoryLoader, load_images
from animalclf.runs import Run
from animalclf.training import train as training
from animalclf.training.distributed import RankContext, data_parallel

SCRIPT = """
import sys, torch
import torch.distributed as dist
from animalclf.training.distributed import RankContext, data_parallel
rank, store, out = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
gradients = {}
for compression in ("none", "bf16"):
    torch.manual_seed(0)
    layer = torch.nn.Linear(40, 7)
    image = torch.rand(2, 5, 40)[rank]
    network = data_parallel(layer, RankContext(rank, 2), compression)
    network(image).square().sum().backward()
    gradients[compression] = layer.weight.grad
torch.save(gradients, f"{out}{rank}")
dist.destroy_process_group()
"""


def test_gradients_are_averaged_as_they_are_or_in_bf16(tmp_path):
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}  # or PyTorch looks up the host's name, for up to 10 s
    ranks = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, rank, tmp_path / "store", tmp_path / "out"], env=environment)
        for rank in "01"
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    first, second = (torch.load(f"{tmp_path / 'out'}{rank}") for rank in "01")
    torch.manual_seed(0)
    layer = nn.Linear(40, 7)
    (layer(torch.rand(2, 5, 40)).square().sum() / 2).backward()
    for name in ("none", "bf16"):
        assert torch.equal(first[name], second[name]) and first[name].dtype == torch.float32
    torch.testing.assert_close(first["none"], layer.weight.grad)
    compressed = first["bf16"]
    assert torch.equal(compressed, compressed.bfloat16().float()) and not torch.equal(compressed, first["none"])
    torch.testing.assert_close(compressed, first["none"], rtol=2**-6, atol=0.05)


def test_the_configured_compression_reaches_the_exchange(tmp_path, monkeypatch):
    class ReachedError(Exception):
        pass

    def reached(network, ranks, compression):
        raise ReachedError(compression)

    prepared = tiny_prepared(tmp_path / "prepared", (8, 8, 4), size=76)
    config = tiny_config(1, data__stored_size=76, model__input_size=76, train__gradient_compression="bf16")
    images = load_images(prepared)
    monkeypatch.setattr(training, "data_parallel", reached)
    with pytest.raises(ReachedError, match="bf16"):
        training.train(
            config, prepared, Run(str(tmp_path / "run")), lambda plan, passes: MemoryLoader(plan, images), RankContext()
        )


def test_a_single_process_exchanges_nothing():
    network = nn.Linear(2, 2)
    assert data_parallel(network, RankContext(), "bf16") is network and not dist.is_initialized()
