"""The model: it takes and returns original units, and can be saved and loaded."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save
from torch import Tensor, nn

from stages.base.errors import UserError
from stages.model.signature import Signature, open_weights
from stages.rows.categories import Categories
from stages.rows.split import Statistics

RECORDED_VERSIONS = ("torch", "numpy", "pyarrow", "safetensors")
MAX_FORMULA_FEATURES = 3


class Model(nn.Module):
    """Inputs in original units → z-scores → linear layers with ReLU between → original units.

    ``hidden`` are the widths of the hidden layers; without them, the model is linear. Each category
    of a column of categories is a feature. A new model does not scale; see `standardize_by`.
    """

    def __init__(
        self,
        features: Sequence[str],
        target: str,
        hidden: Sequence[int],
        dtype: torch.dtype,
        categories: Categories | None = None,
    ) -> None:
        super().__init__()
        self.categories = dict(categories or {})
        self.features, self.target, self.hidden, self.dtype = [*features], target, [*hidden], dtype
        layers: list[nn.Module] = []
        num_inputs = len(features)
        for width in hidden:
            layers += [nn.Linear(num_inputs, width, dtype=dtype), ReLU()]
            num_inputs = width
        self.network = nn.Sequential(*layers, nn.Linear(num_inputs, 1, dtype=dtype))
        self.input_mean = nn.Buffer(torch.zeros(len(features), dtype=dtype))
        self.input_scale = nn.Buffer(torch.ones(len(features), dtype=dtype))
        self.target_mean = nn.Buffer(torch.zeros(1, dtype=dtype))
        self.target_scale = nn.Buffer(torch.ones(1, dtype=dtype))

    def standardize_by(self, statistics: Statistics) -> None:
        """Scale by the means and standard deviations of the training rows.

        Raises:
            UserError: If a column is constant, because it has no z-score.
        """
        mean, scale = torch.from_numpy(statistics.units()).to(self.dtype)
        columns = zip(statistics.columns, scale, strict=True)
        constant = [f"`{name}`" for name, value in columns if value == 0]
        if constant:
            raise UserError(
                f"train: constant in the training rows: {', '.join(sorted(constant))}. Choose other"
                " columns to learn from (`prepare.features`) or to predict (`prepare.target`), or"
                " another split for a rare category, or set `train.standardize` to false."
            )
        self.input_mean.copy_(mean[:-1])
        self.input_scale.copy_(scale[:-1])
        self.target_mean.copy_(mean[-1:])
        self.target_scale.copy_(scale[-1:])

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict in original units: inputs ``(rows, features)`` → predictions ``(rows, 1)``."""
        if inputs.shape[-1] != len(self.features):
            raise ValueError(f"a row of inputs has {len(self.features)} features: {self.features}")
        return self.network(self.scale_inputs(inputs)) * self.target_scale + self.target_mean

    def scale_inputs(self, inputs: Tensor) -> Tensor:
        """Scale inputs in original units to the inputs of ``network``."""
        return (inputs - self.input_mean) / self.input_scale

    def units(self) -> tuple[Tensor, Tensor]:
        """Return what to subtract from each column, then what to divide by; the target is last."""
        means, scales = (self.input_mean, self.target_mean), (self.input_scale, self.target_scale)
        return torch.cat(means), torch.cat(scales)

    def line(self) -> list[float]:
        """Return intercept and slopes in original units; an empty list with hidden layers."""
        if self.hidden:
            return []
        weight, bias = (parameter.detach().cpu().double() for parameter in self.parameters())
        mean, scale, target_mean, target_scale = (b.cpu().double() for b in self.buffers())
        slopes = weight[0] * target_scale / scale
        intercept = bias * target_scale + target_mean - (slopes * mean).sum()
        return torch.cat([intercept, slopes]).tolist()

    def describe(self) -> str:
        """Return the learned formula, or the size of the network, as text."""
        if self.hidden:
            widths = "-".join(map(str, self.hidden))
            features = f"{len(self.features)} feature{'s' * (len(self.features) != 1)}"
            return f"a network of {widths} hidden units from {features} to {self.target}"
        return formula(self.features, self.target, self.line())

    def signature(self, trained_on: str, versions: dict[str, str]) -> Signature:
        """Return what rebuilds this model, and what trained it."""
        return Signature(
            features=self.features,
            target=self.target,
            categories={column: [*names] for column, names in self.categories.items()},
            hidden=self.hidden,
            dtype="float32" if self.dtype == torch.float32 else "float64",
            trained_on=trained_on,
            versions=versions,
        )

    def to_bytes(self, device: torch.device) -> bytes:
        """Return a safetensors file: the state dict, and the signature that rebuilds the model."""
        versions = {name: version(name).partition("+")[0] for name in RECORDED_VERSIONS}
        metadata = self.signature(device.type, versions).to_metadata()
        return save({name: tensor.cpu() for name, tensor in self.state_dict().items()}, metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Rebuild the model from its file alone; this needs no more memory than the file has bytes.

        Raises:
            UserError: If the file is missing, or `to_bytes` did not write it.
        """
        with open_weights(path, "pt") as (signature, file):
            names = signature.features, signature.target, signature.hidden
            with torch.device("meta"):  # it draws no initial weights
                model = cls(*names, getattr(torch, signature.dtype), signature.categories)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            model.load_state_dict(state, assign=True)
        return model


class ReLU(nn.ReLU):
    """``nn.ReLU`` without the slow gradient of portable kernels (a branch for every number)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs with 0 in place of negative numbers, in the same shape."""
        is_portable = torch.backends.cpu.get_cpu_capability() == "DEFAULT"
        if is_portable and inputs.requires_grad:
            return inputs * torch.gt(inputs.detach(), 0, out=torch.empty_like(inputs))  # 0 or 1
        return super().forward(inputs)


def formula(features: Sequence[str], target: str, coefficients: Sequence[float]) -> str:
    """Write a linear model, such as ``y = 0.7003·x + 0.2998``; the intercept comes first."""
    if len(features) > MAX_FORMULA_FEATURES:
        return f"a linear model from {len(features)} features to {target}"
    intercept, *slopes = coefficients
    products = [f"{slope:.4g}·{name}" for slope, name in zip(slopes, features, strict=True)]
    return f"{target} = {' + '.join([*products, f'{intercept:.4g}'])}".replace(" + -", " − ")
