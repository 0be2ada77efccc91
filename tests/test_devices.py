"""Training and scoring on a device that is not the CPU; no accelerator is needed."""

from itertools import chain

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from stages import evaluate, prepare, train
from stages.base.files import EVALUATION, HISTORY, TRAINED, WEIGHTS
from stages.model.model import Model
from stages.network import build_network, build_optimizer
from stages.training.batches import ScaledRows, batches, block_size
from stages.training.checkpoint import State
from tests.conftest import ROOT, command, contents, train_params
from tests.stand_in import NUM_ACCELERATORS, copies_to_host, stand_in

on_accelerator = pytest.mark.skipif(not NUM_ACCELERATORS, reason="no accelerator on this machine")
on_stand_in = pytest.mark.skipif(NUM_ACCELERATORS, reason="PyTorch allows one kind of accelerator")

pytestmark = pytest.mark.usefixtures("settings_come_back")

NETWORK = {"train.hidden": [8], "train.optimizer": "adam", "train.epochs": 3}
MANY_BLOCKS = {"prepare.rows": 30_000, "prepare.validation": 0.3}


@pytest.fixture
def device():
    with stand_in() as found:
        yield found


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 1,000 rows on every device; usually their size depends on the kind of device."""
    monkeypatch.setattr(train, "block_size", lambda *_: 1000)


@pytest.fixture
def run(change):
    """Prepare, train and evaluate with the given parameters; return the outputs."""

    def run_stages(changes):
        change(changes)
        prepare.main()
        train.main()
        evaluate.main()
        weights = {name: t.numpy().tobytes() for name, t in load_file(WEIGHTS).items()}
        return weights, HISTORY.read_bytes(), EVALUATION.read_bytes()

    return run_stages


@on_stand_in
@pytest.mark.parametrize(
    "changes",
    [
        {"train.epochs": 20},
        {"train.momentum": 0.9, "train.schedule": "cosine", "train.loss": "huber"},
        {**NETWORK, "train.batch_size": 64, "train.patience": 1},
        {**NETWORK, **MANY_BLOCKS},
        {**NETWORK, **MANY_BLOCKS, "train.batch_size": 2500, "prepare.dtype": "float64"},
        {**MANY_BLOCKS, "train.optimizer": "lbfgs", "train.epochs": 3, "train.loss": "mae"},
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_another_device_gives_the_cpus_bytes_where_it_computes_alike(run, changes, capsys):
    changes = {"train.epochs": 5, **changes}
    expected = run(changes)
    with stand_in():
        assert run(changes) == expected
    assert f"train: {changes['train.epochs']} epochs on stand_in," in capsys.readouterr().out
    assert Model.load(WEIGHTS).params == train_params(
        **{name.removeprefix("train."): v for name, v in changes.items() if "train." in name}
    )


@on_stand_in
def test_a_forgotten_copy_of_a_block_is_found(run, device, monkeypatch):
    monkeypatch.setattr(ScaledRows, "to", lambda self, _: self)
    with pytest.raises(RuntimeError, match="device"):
        run(NETWORK)


@on_stand_in
def test_a_forgotten_copy_of_the_inputs_to_be_scored_is_found(run, device, monkeypatch):
    monkeypatch.setattr(Model, "forward", lambda self, inputs: self.network(inputs.cpu()))
    with pytest.raises(RuntimeError, match="device"):
        run(NETWORK)


@on_stand_in
def test_a_tensor_of_the_device_taken_for_memory_of_the_cpu_is_found(run, device, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: self)
    with pytest.raises(TypeError, match="can't convert stand_in:0 device type tensor to numpy"):
        run(NETWORK)


@on_stand_in
def test_the_address_of_a_tensor_of_the_device_is_refused(device):
    assert torch.ones(2).data_ptr()
    with pytest.raises(RuntimeError, match="not the CPU's"):
        torch.ones(2, device=device).data_ptr()


@on_stand_in
def test_a_buffer_left_on_the_cpu_is_found(run, device, monkeypatch):
    to = Model.to

    def forget_buffer(model, device):
        mean = model.input_mean
        to(model, device)
        model.input_scale = mean.cpu()
        return model

    monkeypatch.setattr(Model, "to", forget_buffer)
    with pytest.raises(RuntimeError, match="device"):
        run(NETWORK)


@on_stand_in
@pytest.mark.parametrize(("free_bytes", "kind"), [(1600, "stand_in"), (1599, "cpu")])
def test_rows_lie_on_the_device_if_they_fit_into_half_of_its_free_memory(
    run, monkeypatch, free_bytes, kind
):
    found = []

    def note(rows, *arguments):
        found.append(rows.inputs.device.type)
        return batches(rows, *arguments)

    monkeypatch.setattr(train, "batches", note)
    with stand_in(free_bytes):
        run({"prepare.rows": 200, "prepare.validation": 0, "prepare.test": 0.5, **NETWORK})
    assert set(found) == {kind}


@on_stand_in
def test_a_state_on_the_device_is_saved_and_restored(device):
    params = train_params(hidden=[4], optimizer="adam")
    states = []
    for _ in range(2):
        network = Model(["x"], "y", params, torch.float32).network.to(device)
        states.append(State(network, build_optimizer(params, [*network.parameters()])))
    saved, restored = states
    saved.network(torch.ones(3, 1, device=device)).sum().backward()
    saved.optimizer.step()
    saved.best_network = saved.network.state_dict()
    restored.restore(saved.to_bytes())
    assert restored.best_network["0.weight"].device.type == "cpu"  # the network copies it
    moments = [
        [*chain.from_iterable(item.values() for item in state.optimizer.state.values())]
        for state in (saved, restored)
    ]
    tensors = [
        [tensor.cpu() for tensor in [*state.network.parameters(), *rest]]
        for state, rest in zip((saved, restored), moments, strict=True)
    ]
    assert all(map(torch.equal, *tensors))


@on_stand_in
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("free_bytes", [0, 2**30])
@pytest.mark.parametrize(("batch_size", "steps"), [(None, 1), (2500, 6), (500, 30)])
def test_a_step_waits_for_the_device_once(run, monkeypatch, batch_size, steps, free_bytes):
    """Whatever the number of blocks: 15,000 training rows are 15, and 9,000 validation rows 9."""
    counts = []
    monkeypatch.setattr(
        train, "set_learning_rate", lambda *_: counts.append(copies_to_host.total())
    )
    with stand_in(free_bytes):
        run({**NETWORK, **MANY_BLOCKS, "train.batch_size": batch_size, "train.epochs": 4})
    assert set(np.diff(counts)) == {steps + 1}  # the losses of its steps and of the validation rows


@on_stand_in
@pytest.mark.parametrize(
    ("features", "hidden", "size"),
    [(1, [], 2**24), (10, [64, 64], 2**18), (10, [1024, 1024], 2**14), (1000, [64], 16_777)],
)
def test_an_accelerator_has_large_blocks(device, features, hidden, size):
    network = build_network(features, train_params(hidden=hidden)).to(device)
    assert block_size(network, features) == size


@on_accelerator
@pytest.mark.parametrize("batch_size", [None, 4096])
def test_an_accelerators_runs_repeat_to_the_byte_and_follow_the_cpus_losses(run, batch_size):
    changes = {**NETWORK, "prepare.rows": 600_000, "train.epochs": 20}
    changes["train.batch_size"] = batch_size
    first = run(changes)
    losses = pd.read_csv(HISTORY)
    assert run(changes) == first
    run({**changes, "device": "cpu"})
    # float32 rounds each product by 6e-8; 20 epochs of steps may add up to a thousand times this.
    assert np.allclose(losses, pd.read_csv(HISTORY), rtol=1e-4)


@pytest.mark.skipif(NUM_ACCELERATORS < 2, reason="fewer than two accelerators")
def test_two_accelerators_give_the_bytes_of_one(workspace, run):
    changes = {**NETWORK, "train.hidden": [64], "prepare.rows": 900_000}  # three blocks
    run(changes)
    expected = contents(TRAINED)
    environment = {"TORCHRUN": "--standalone --nproc-per-node=2", "PYTHONPATH": str(ROOT)}
    end = command(workspace, "python", "-m", "stages.train", environment=environment)
    assert end.returncode == 0, end.stderr
    assert contents(TRAINED) == expected
