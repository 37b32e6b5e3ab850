"""Optimizers: PyTorch's numbers, without the import of its compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from animalclf.config import Optim
from animalclf.training.optim import make_optimizer

PLAIN = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, eps=1e-7, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, eps=1e-7, weight_decay=0.0, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True),
}
STEP = """
import sys, torch
from animalclf.config import Optim
from animalclf.training.optim import make_optimizer
layer = torch.nn.Linear(3, 2)
optimizer = make_optimizer(layer.parameters(), Optim(name=sys.argv[1]))
layer(torch.ones(1, 3)).sum().backward()
optimizer.step()
optimizer.zero_grad(set_to_none=True)
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("name", PLAIN)
def test_a_step_does_not_import_the_compiler(name: str) -> None:
    run = subprocess.run([sys.executable, "-c", STEP, name], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize("name", PLAIN)
def test_the_steps_are_those_of_pytorch(name: str) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(ours.parameters(), Optim(name=name, lr=0.01, eps=1e-7, momentum=0.9, weight_decay=0.0))
    expected = PLAIN[name](theirs.parameters())
    for _ in range(3):
        inputs = torch.randn(4, 3)
        for layer, each in ((ours, optimizer), (theirs, expected)):
            each.zero_grad(set_to_none=True)
            layer(inputs).square().sum().backward()
            each.step()
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
    assert ours.weight.requires_grad and ours.weight.is_leaf
