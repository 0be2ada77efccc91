import io
import json
import pickle
import random

import pytest
import torch
from torch import nn, optim

from stages.training.checkpoint import NUM_DIGEST_BYTES, State, thin
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


def values(state: State) -> str:
    """Everything that a checkpoint holds; the bytes of the bytes may differ by order."""
    content = torch.load(io.BytesIO(state.to_bytes(KEY)[NUM_DIGEST_BYTES:]), weights_only=True)
    return json.dumps(content, default=torch.Tensor.tolist)  # every float exactly


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
    assert values(restored) == values(original)
    assert restored.history == original.history
    for state in (original, restored):
        learn(state, 7)
    assert values(restored) == values(original)


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


@pytest.mark.parametrize("epochs", [1, 999, 1000, 1001, 1999, 2000, 2001, 12_345])
def test_the_history_has_at_most_1000_rows_and_always_the_last(epochs):
    rows = thin([(epoch, 1.0, None) for epoch in range(1, epochs + 1)])
    assert rows[-1][0] == epochs
    assert min(epochs, 500) <= len(rows) <= 1000
