"""Commands that are killed, or whose disk is full, at random instants; more of them: make test-kill COUNT=100."""

import pytest
from kills import runner
from kills.scenarios import SCENARIOS, Compare, Predict, Prepare, Report, Train, register_tiny_model

from animalclf.models import MODELS

KILLS = {Train: 4, Prepare: 2, Predict: 2, Report: 1, Compare: 1}


@pytest.fixture(scope="module", autouse=True)
def tiny_model():
    register_tiny_model()
    yield
    MODELS.unregister("tiny")


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda kind: kind.name)
def test_an_interrupted_command_is_repeated_to_the_same_end(kind):
    with runner.Interruptions(kind) as interruptions:
        assert not interruptions.run("kill", KILLS[kind], seed=0).faults
        assert not interruptions.run("full", KILLS[kind] // 2 + 1, seed=0).faults
