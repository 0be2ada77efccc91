"""The textbook loop: full batch, 200 epochs."""

import pandas as pd
import torch
from torch import nn


def load(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    table = pd.read_csv(f"data/{name}.csv")
    inputs = torch.tensor(table[["x"]].to_numpy(), dtype=torch.float32)
    return inputs, torch.tensor(table[["y"]].to_numpy(), dtype=torch.float32)


device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(42)
model = nn.Linear(1, 1).to(device)
loss_function = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
inputs, targets = (tensor.to(device) for tensor in load("train"))
validation_inputs, validation_targets = (tensor.to(device) for tensor in load("validation"))
history = []
for epoch in range(200):
    model.train()
    loss = loss_function(model(inputs), targets)
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
