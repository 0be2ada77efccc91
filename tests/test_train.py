import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from stages import prepare, train
from stages.base.errors import UserError
from stages.base.files import TRAINED, WEIGHTS
from stages.model.model import Model
from tests.conftest import contents

TUTORIAL = {
    "prepare.rows": 50,
    "prepare.noise": 0,
    "prepare.split": "ordered",
    "prepare.validation": 0,
    "train.standardize": False,
    "train.loss": "mae",
    "train.lr": 0.01,
    "train.epochs": 1000,
}


@pytest.fixture
def learn(change):
    """Prepare and train with the given parameters; return the model."""

    def run(changes):
        change(changes)
        prepare.main()
        train.main()
        return Model.load(WEIGHTS)

    return run


@pytest.fixture
def refusal(learn):
    def sentence(changes):
        with pytest.raises(UserError) as error:
            learn(changes)
        return str(error.value)

    return sentence


def test_the_tutorials_settings_give_the_tutorials_result(learn, capsys):
    b, m = learn(TUTORIAL).line()
    assert (round(m, 4), round(b, 4)) == (0.6968, 0.3025)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "train: 1000 epochs on cpu, 40 rows; learned y = 0.6968·x + 0.3025"
    )


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_is_the_textbook_loops_step(learn, loss, optimizer):
    model = learn(
        {"train.loss": loss, "train.optimizer": optimizer, "train.epochs": 20, "train.hidden": [4]}
    )
    rows = torch.from_numpy(pd.read_parquet("data/prepared/train.parquet").to_numpy(copy=True))
    inputs, targets = (
        (rows[:, :1] - model.input_mean) / model.input_scale,
        (rows[:, 1:] - model.target_mean) / model.target_scale,
    )
    torch.manual_seed(42)
    network = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1))
    loss_function = {"mse": nn.MSELoss, "mae": nn.L1Loss, "huber": nn.HuberLoss}[loss]()
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = optimizers[optimizer](network.parameters(), lr=0.1)
    for _ in range(20):
        loss = loss_function(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, textbook in zip(model.network.parameters(), network.parameters(), strict=True):
        # The mean is taken before and not after the sum over rows: float32 rounding only.
        assert torch.allclose(ours, textbook, rtol=1e-4, atol=1e-5)


def test_the_network_is_in_training_mode_for_steps_and_in_evaluation_mode_for_validation(
    learn, monkeypatch
):
    modes = []
    build_model = train.build_model

    def build_and_watch(*arguments):
        model = build_model(*arguments)
        network = model.network
        network.register_forward_hook(
            lambda module, *_: modes.append(module.training) if module is network else None
        )
        return model

    monkeypatch.setattr(train, "build_model", build_and_watch)
    learn({"train.epochs": 2, "train.batch_size": 350})
    assert modes[:6] == [True, True, False] * 2
    assert modes[6:] == [False], "the numbers by which a file of weights is recognised"


@pytest.mark.parametrize(
    "changes",
    [
        {"train.optimizer": "sgd"},
        {"train.optimizer": "adam", "train.epochs": 600},
        {"train.optimizer": "lbfgs", "train.epochs": 100},
        {"train.optimizer": "lbfgs", "train.lr": 1.0, "train.epochs": 10},
        {"train.loss": "huber", "train.epochs": 400},
        {"train.batch_size": 350, "train.epochs": 300},
        {"prepare.dtype": "float64"},
        {"train.standardize": False, "train.epochs": 2000, "train.lr": 0.5},
        {"train.hidden": [], "prepare.validation": 0, "prepare.test": 0},
    ],
)
def test_every_way_of_training_finds_the_line(learn, changes):
    b, m = learn(changes).line()
    rows = pd.read_parquet("data/prepared/train.parquet").astype("float64")
    exact_m, exact_b = np.polyfit(rows["x"], rows["y"], 1)
    tolerance = 5e-3 if "train.loss" in changes or "train.batch_size" in changes else 1e-4
    assert abs(m - exact_m) < tolerance  # another loss, and noisy steps, have another optimum
    assert abs(b - exact_b) < tolerance


def test_norris_is_fitted_to_nists_digits(learn):
    b, m = learn(
        {
            "prepare.source": "norris.csv",
            "prepare.dtype": "float64",
            "prepare.validation": 0,
            "prepare.test": 0,
        }
    ).line()
    assert m == pytest.approx(1.00211681802045, rel=1e-11)
    assert b == pytest.approx(-0.262323073774029, rel=1e-11)


def test_a_network_learns_what_a_line_cannot(learn):
    model = learn(
        {
            "prepare.rows": 400,
            "train.hidden": [32, 32],
            "train.optimizer": "adam",
            "train.lr": 0.01,
            "train.batch_size": 32,
            "train.epochs": 30,
        }
    )
    assert [tuple(p.shape) for p in model.network.parameters()] == [
        (32, 1), (32,), (32, 32), (32,), (1, 32), (1,),
    ]  # fmt: skip


def test_history_has_a_row_per_epoch_with_both_losses(learn):
    learn({"train.epochs": 30, "train.batch_size": 64})
    history = pd.read_csv(TRAINED / "history.csv")
    assert list(history.columns) == ["epoch", "train_loss", "validation_loss"]
    assert history["epoch"].tolist() == list(range(1, 31))
    assert history.notna().all().all()
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_without_validation_rows_the_history_has_no_validation_loss(learn):
    learn({"train.epochs": 3, "prepare.validation": 0})
    assert pd.read_csv(TRAINED / "history.csv")["validation_loss"].isna().all()


def test_the_last_validation_loss_is_that_of_the_written_model(learn):
    model = learn({"train.epochs": 7})
    rows = torch.from_numpy(pd.read_parquet("data/prepared/validation.parquet").to_numpy(copy=True))
    with torch.no_grad():
        predictions = model.network((rows[:, :1] - model.input_mean) / model.input_scale)
        loss = nn.functional.mse_loss(
            predictions, (rows[:, 1:] - model.target_mean) / model.target_scale
        )
    history = pd.read_csv(TRAINED / "history.csv")
    assert history["validation_loss"].iloc[-1] == pytest.approx(loss.item(), rel=1e-6)


def test_early_stopping_keeps_the_best_network(learn):
    changes = {
        "prepare.rows": 60,
        "prepare.noise": 0.5,
        "train.hidden": [64],
        "train.optimizer": "adam",
        "train.epochs": 500,
    }
    stopped = learn({**changes, "train.patience": 20})
    history = pd.read_csv(TRAINED / "history.csv")
    best = int(history["epoch"][history["validation_loss"].idxmin()])
    assert history["epoch"].iloc[-1] == best + 20 < 500
    again = learn({**changes, "train.patience": None, "train.epochs": best})
    for ours, expected in zip(stopped.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"prepare.rows": 1_000_000, "train.epochs": 3},
        {
            "prepare.rows": 900_000,
            "prepare.dtype": "float64",
            "train.epochs": 2,
            "train.hidden": [8],
            "train.batch_size": 300_000,
            "train.optimizer": "adam",
            "train.patience": 5,
        },
        {"prepare.rows": 600_000, "train.optimizer": "lbfgs", "train.epochs": 3},
    ],
)
def test_the_number_of_threads_changes_no_bit_of_the_outputs(learn, use_threads, changes):
    outputs = []
    for num_threads in (1, 2, 3, 8):
        use_threads(num_threads)
        learn(changes)
        outputs.append(contents(TRAINED))
    assert outputs == [outputs[0]] * 4


def test_another_seed_gives_other_weights(learn):
    weights = []
    for seed in (0, 1):
        learn({"train.epochs": 1, "train.seed": seed, "train.batch_size": 100})
        weights.append(WEIGHTS.read_bytes())
    assert weights[0] != weights[1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"train.lr": 1e6},
            "train: diverged in epoch 3: the loss is no longer finite. Lower `train.lr` (now"
            " 1e+06).",
        ),
        (
            {"prepare.source": "norris.csv", "train.standardize": False},
            "train: diverged in epoch 4: the loss is no longer finite. Lower `train.lr` (now 0.1),"
            " or set `train.standardize` to true.",
        ),
    ],
)
def test_diverging_training_is_refused_with_epoch_and_cure(refusal, changes, sentence):
    assert refusal(changes) == sentence
    assert not TRAINED.exists()


def test_a_last_step_to_infinity_is_refused(refusal, raw):
    raw("t.csv", "x,y\n" + "".join(f"{i}e33,{i}\n" for i in range(1, 11)))
    sentence = refusal(
        {
            "prepare.source": "t.csv",
            "prepare.validation": 0,
            "train.standardize": False,
            "train.loss": "mae",
            "train.lr": 1e6,
            "train.epochs": 1,
        }
    )
    assert sentence.startswith("train: diverged in epoch 1: ")


def test_a_constant_target_is_refused_only_with_standardize(refusal, learn, raw):
    raw("t.csv", "a,y\n" + "".join(f"{i},0.1\n" for i in range(20)))
    assert refusal({"prepare.source": "t.csv"}).startswith("train: the target, `y`, is constant ")
    learn({"train.standardize": False, "train.lr": 0.001})


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator on this machine")
def test_an_accelerator_learns_the_same_line_twice_to_the_bit(learn):
    changes = {"device": "auto", "train.batch_size": 100, "train.epochs": 20, "train.hidden": [8]}
    outputs = []
    for _ in range(2):
        learn(changes)
        outputs.append(contents(TRAINED))
    assert outputs[0] == outputs[1]
