"""The textbook loop: 200 epochs of the full batch, or so many epochs of so many rows a step."""

import sys

import pandas as pd
import torch
from torch import nn


def load(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    table = pd.read_csv(f"data/{name}.csv")
    cells = torch.tensor(table.to_numpy(), dtype=torch.float32)
    return cells[:, :-1], cells[:, -1:]


num_epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(42)
inputs, targets = (tensor.to(device) for tensor in load("train"))
validation_inputs, validation_targets = (tensor.to(device) for tensor in load("validation"))
batch_size = int(sys.argv[2]) if len(sys.argv) > 2 else len(inputs)
model = nn.Linear(inputs.shape[1], 1).to(device)
loss_function = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
history = []
for epoch in range(num_epochs):
    model.train()
    order = torch.randperm(len(inputs)) if batch_size < len(inputs) else slice(None)
    pairs = inputs[order].split(batch_size), targets[order].split(batch_size)
    for batch_inputs, batch_targets in zip(*pairs, strict=True):
        loss = loss_function(model(batch_inputs), batch_targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        validation_loss = loss_function(model(validation_inputs), validation_targets)
    history.append((epoch, loss.item(), validation_loss.item()))
pd.DataFrame(history, columns=["epoch", "train", "validation"]).to_csv("history.csv", index=False)
torch.save(model.state_dict(), "trained.pt")
print(model.state_dict())
