import pickle
import random

import pytest
import torch
from torch import nn, optim

from stages.base.errors import UserError
from stages.training import checkpoint as module
from stages.training.checkpoint import State
from stages.training.lbfgs import LBFGS

KEY = b"fingerprint"

OPTIMIZERS = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.1),
    "adam": lambda parameters: optim.Adam(parameters, lr=0.1, fused=True),
    "lbfgs": lambda parameters: LBFGS(parameters, lr=1.0),
}


def fresh(name: str) -> State:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    return State(network, OPTIMIZERS[name]([*network.parameters()]))


def learn(state: State, num_steps: int) -> None:
    inputs = torch.linspace(-1, 1, 40).reshape(20, 2)
    targets = (inputs**2).sum(1, keepdim=True)

    def closure() -> float:
        state.optimizer.zero_grad()
        loss = nn.functional.mse_loss(state.network(inputs), targets)
        loss.backward()
        return loss.item()

    for _ in range(num_steps):
        state.total_loss += state.optimizer.step(closure)
        state.step += 1


@pytest.mark.parametrize("num_steps", [0, 1, 2, 5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_state_trains_on_to_the_same_bits_as_the_original(name, num_steps):
    original, restored = fresh(name), fresh(name)
    learn(original, num_steps)
    original.end_epoch(20, validation_loss=0.1 + 0.2)
    original.end_epoch(20, validation_loss=None)
    learn(original, num_steps)
    original.best_network = {name: t.clone() for name, t in original.network.state_dict().items()}
    content = original.to_bytes(KEY)
    restored.restore(content, KEY)
    assert restored.to_bytes(KEY) == content
    assert restored.history == original.history
    for state in (original, restored):
        learn(state, 7)
    assert restored.to_bytes(KEY) == original.to_bytes(KEY)


def test_a_changed_checkpoint_is_refused_and_changes_no_state():
    state = fresh("adam")
    learn(state, 3)
    content = state.to_bytes(KEY)
    generator = random.Random(1)  # noqa: S311 (places to damage)
    damaged = [b"", b"unreadable", content[:-1], content[:40], content + b"\0", pickle.dumps(1)]
    for _ in range(500):
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        damaged.append(bytes(flipped))
    for content_with_fault in damaged:
        with pytest.raises(ValueError, match="SHA-256"):
            state.restore(content_with_fault, KEY)
    assert state.to_bytes(KEY) == content


FORGED = {
    "a network that is a number": {"network": 1},
    "an epoch of text": {"epoch": "9"},
    "more epochs than losses": {"epoch": 10**9},
    "another name": {"restore": 1},
    "a step of text": {"step": "1"},
    "a negative step": {"step": -1},
    "no best loss": {"best_loss": None},
    "an endless history": {"history": torch.tensor([[float("inf"), 0, 0]])},
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_checkpoint_with_the_right_digest_is_refused_in_one_sentence(monkeypatch, forged):
    state = fresh("adam")
    learn(state, 3)
    state.end_epoch(20, None)
    pack = module._pack

    def forge(value, tensors):
        if isinstance(value, dict) and "history" in value:
            value = value | FORGED[forged]
            if "restore" in value:
                del value["epoch"]
        return pack(value, tensors)

    monkeypatch.setattr(module, "_pack", forge)
    content = state.to_bytes(KEY)
    with pytest.raises(UserError, match=r"the checkpoint was not written by this program\."):
        fresh("adam").restore(content, KEY)


def test_a_checkpoint_that_does_not_fit_into_memory_is_not_saved(monkeypatch):
    monkeypatch.setattr(module, "available_bytes", lambda _device: 100)
    with pytest.raises(MemoryError):
        fresh("sgd").to_bytes(KEY)
