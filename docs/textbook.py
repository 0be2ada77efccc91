"""The whole workflow in one script: plain PyTorch and pandas, without the stages and DVC.

Run it by ``python docs/textbook.py``. Add the name of a folder to choose where its files go.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

M, B = 0.7, 0.3  # the line to learn: y = m·x + b
SEED = 42  # the same seed gives the same random numbers in every run


def main() -> None:
    """Run every step, and print what it gives."""
    folder = Path(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp(prefix="textbook-"))
    folder.mkdir(parents=True, exist_ok=True)

    training, validation, test = split(make_data())
    sizes = f"{len(training)} training, {len(validation)} validation, {len(test)} test"
    print(f"rows around y = {M}·x + {B}: {sizes}")

    model, history = train(training, validation)
    history.to_csv(folder / "history.csv", index=False)
    print(history[history["epoch"].isin([1, 2, 5, 10, 20, 200])].to_string(index=False))
    print(f"learned: y = {model.weight.item():.4f}·x + {model.bias.item():.4f}")

    scores = evaluate(model, test)
    print("test rows: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()))

    save(model, folder / "model.pt")
    loaded = load(folder / "model.pt")
    assert torch.equal(predict(loaded, test), predict(model, test))
    print(f"loaded again: same predictions\nfiles: {folder}")


def make_data(num_rows: int = 1000) -> pd.DataFrame:
    """Make rows of the line, with Gaussian noise of standard deviation 0.05 on y."""
    torch.manual_seed(SEED)
    x = torch.arange(num_rows) / num_rows
    y = M * x + B + 0.05 * torch.randn(num_rows)
    return pd.DataFrame({"x": x.numpy(), "y": y.numpy()})


def split(data: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Shuffle the rows; take 70 % for training, 10 % for validation and 20 % for the test."""
    rows = data.sample(frac=1, random_state=SEED)
    first, second = round(0.7 * len(rows)), round(0.8 * len(rows))
    return rows[:first], rows[first:second], rows[second:]


def train(training: pd.DataFrame, validation: pd.DataFrame) -> tuple[nn.Linear, pd.DataFrame]:
    """Fit a line to the training rows by gradient descent.

    Returns:
        The model, in original units; and the losses in every epoch, which are those of z-scores.
    """
    # z-scores have mean 0 and standard deviation 1: on them, few epochs are enough.
    # Mean and deviation come from the training rows alone: the model must not see other rows.
    mean, std = training.mean(), training.std(ddof=0)  # divided by the number of rows
    inputs, targets = tensors((training - mean) / std)
    validation_inputs, validation_targets = tensors((validation - mean) / std)

    torch.manual_seed(SEED)  # nn.Linear takes random first weights
    model = nn.Linear(1, 1)
    loss_function = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    history = []
    for epoch in range(1, 201):
        model.train()
        predictions = model(inputs)  # 1. forward pass
        loss = loss_function(predictions, targets)  # 2. loss
        optimizer.zero_grad()  # 3. clear the gradients of the previous epoch
        loss.backward()  # 4. backpropagation computes the gradients
        optimizer.step()  # 5. gradient descent changes the weights

        model.eval()
        with torch.inference_mode():
            validation_loss = loss_function(model(validation_inputs), validation_targets)
        history.append((epoch, loss.item(), validation_loss.item()))

    # Back to original units: (y - mean_y) / std_y = weight · (x - mean_x) / std_x + bias.
    slope = model.weight.item() * std["y"] / std["x"]
    intercept = model.bias.item() * std["y"] + mean["y"] - slope * mean["x"]
    nn.init.constant_(model.weight, slope)
    nn.init.constant_(model.bias, intercept)
    return model, pd.DataFrame(history, columns=["epoch", "train_loss", "validation_loss"])


def tensors(rows: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Give the inputs x and the targets y, each of shape ``(rows, 1)``."""
    table = torch.tensor(rows[["x", "y"]].to_numpy(), dtype=torch.float32)
    return table[:, :1], table[:, 1:]


def predict(model: nn.Linear, rows: pd.DataFrame) -> Tensor:
    """Predict y for each row, shape ``(rows, 1)``."""
    inputs, _ = tensors(rows)
    model.eval()
    with torch.inference_mode():
        return model(inputs)


def evaluate(model: nn.Linear, test: pd.DataFrame) -> dict[str, float]:
    """Score the predictions: RMSE and MAE in the unit of y, and R²."""
    _, targets = tensors(test)
    residuals = predict(model, test) - targets
    mean_square = residuals.square().mean()
    return {
        "RMSE": mean_square.sqrt().item(),
        "MAE": residuals.abs().mean().item(),
        "R²": 1 - (mean_square / targets.var(correction=0)).item(),
    }


def save(model: nn.Linear, path: Path) -> None:
    """Save the weights."""
    torch.save(model.state_dict(), path)


def load(path: Path) -> nn.Linear:
    """Make a new model with the saved weights."""
    model = nn.Linear(1, 1)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


if __name__ == "__main__":
    main()
