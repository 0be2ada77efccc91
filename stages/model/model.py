"""The model: it takes and returns original units, and can be saved and loaded."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from stages.base.errors import UserError
from stages.base.params import TrainParams
from stages.base.portable import ReLU
from stages.model.signature import Signature, read_signature
from stages.network import build_network
from stages.rows.categories import Categories
from stages.rows.split import Statistics

RECORDED_VERSIONS = ("torch", "numpy", "pyarrow", "safetensors")
MAX_FORMULA_FEATURES = 3


class Model(nn.Module):
    """Inputs in original units → z-scores → the network → original units.

    Each category of a column of categories is a feature. A new model does not scale; see
    `standardize_by`.
    """

    def __init__(
        self,
        features: Sequence[str],
        target: str,
        params: TrainParams,
        dtype: torch.dtype,
        categories: Categories | None = None,
    ) -> None:
        super().__init__()
        self.categories = dict(categories or {})
        self.features, self.target, self.params, self.dtype = [*features], target, params, dtype
        self.network = build_network(len(features), params).to(dtype)
        self.input_mean = nn.Buffer(torch.zeros(len(features), dtype=dtype))
        self.input_scale = nn.Buffer(torch.ones(len(features), dtype=dtype))
        self.target_mean = nn.Buffer(torch.zeros(1, dtype=dtype))
        self.target_scale = nn.Buffer(torch.ones(1, dtype=dtype))

    def standardize_by(self, statistics: Statistics) -> None:
        """Scale by the means and standard deviations of the training rows.

        Raises:
            UserError: If the target is constant; `prepare` leaves out features that are.
        """
        mean, scale = torch.from_numpy(statistics.units()).to(self.dtype)
        if not scale[-1]:
            raise UserError(
                f"train: the target, `{self.target}`, is constant in the training rows. Choose"
                " another `prepare.target`, or set `train.standardize` to false."
            )
        self.input_mean.copy_(mean[:-1])
        self.input_scale.copy_(scale[:-1])
        self.target_mean.copy_(mean[-1:])
        self.target_scale.copy_(scale[-1:])

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict in original units: inputs ``(rows, features)`` → predictions ``(rows, 1)``."""
        if inputs.shape[-1] != len(self.features):
            raise ValueError(f"a row of inputs has {len(self.features)} features: {self.features}")
        z_scores = (inputs - self.input_mean) / self.input_scale
        return self.network(z_scores) * self.target_scale + self.target_mean

    def units(self) -> tuple[Tensor, Tensor]:
        """Return what to subtract from each column, then what to divide by; the target is last."""
        means, scales = (self.input_mean, self.target_mean), (self.input_scale, self.target_scale)
        return torch.cat(means), torch.cat(scales)

    def line(self) -> list[float]:
        """Return intercept and slopes in original units; an empty list if it is not a line."""
        if dense_widths(self.network) != []:
            return []
        weight, bias = (parameter.detach().cpu().double() for parameter in self.parameters())
        mean, scale, target_mean, target_scale = (b.cpu().double() for b in self.buffers())
        slopes = weight[0] * target_scale / scale
        intercept = bias * target_scale + target_mean - (slopes * mean).sum()
        return torch.cat([intercept, slopes]).tolist()

    def describe(self) -> str:
        """Return the learned formula, or the network in words."""
        if line := self.line():
            return formula(self.features, self.target, line)
        features = f"{len(self.features)} feature{'s' * (len(self.features) != 1)}"
        return f"{describe_network(self.network)} from {features} to {self.target}"

    @torch.inference_mode()
    def probe(self) -> list[float]:
        """Return what the network predicts for eight rows of z-scores."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(8, len(self.features), generator=generator, dtype=self.dtype)
        return self.network(rows.to(self.input_mean.device))[:, 0].nan_to_num().tolist()

    def to_bytes(self, device: torch.device, not_portable: list[str]) -> bytes:
        """Return a safetensors file: the state dict, and the signature that rebuilds the model."""
        self.eval()
        signature = Signature(
            features=self.features,
            target=self.target,
            categories={column: [*names] for column, names in self.categories.items()},
            network=describe_network(self.network),
            hidden=dense_widths(self.network),
            probe=self.probe(),
            dtype="float32" if self.dtype == torch.float32 else "float64",
            train=self.params.model_copy(),
            not_portable=not_portable,
            trained_on=device.type,
            versions={name: version(name).partition("+")[0] for name in RECORDED_VERSIONS},
        )
        tensors = {  # each has its own memory, also if layers share one
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.state_dict().items()
        }
        return save(tensors, signature.to_metadata())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Rebuild the model from its file, to predict with it.

        Raises:
            UserError: If the file is missing, `to_bytes` did not write it, or stages/network.py
                builds another network.
        """
        signature, state = read_signature(path), load_file(path)
        columns, dtype = (signature.features, signature.target), getattr(torch, signature.dtype)
        model = cls(*columns, signature.train, dtype, signature.categories).eval()
        try:
            model.load_state_dict(state)
            is_same = np.allclose(model.probe(), signature.probe, rtol=1e-3, atol=1e-5)
        except RuntimeError:  # other names or shapes
            is_same = False
        if not is_same:
            raise UserError(
                f"{path} holds another network ({signature.network}) than stages/network.py builds."
                " Restore that file, or train again."
            )
        return model


def dense_widths(network: nn.Module) -> list[int] | None:
    """Return the widths of the hidden layers; None if it is not linear layers with ReLU between."""
    layers = [*network] if type(network) is nn.Sequential else []
    linear = [layer for layer in layers[::2] if type(layer) is nn.Linear and layer.bias is not None]
    has_relu = all(type(layer) in {nn.ReLU, ReLU} for layer in layers[1::2])
    is_dense = has_relu and len(layers) == 2 * len(linear) - 1
    return [layer.out_features for layer in linear[:-1]] if is_dense else None


def describe_network(network: nn.Module) -> str:
    """Say in words what a network is."""
    widths = dense_widths(network)
    if widths is None:
        size = sum(parameter.numel() for parameter in network.parameters())
        return f"{type(network).__name__}, a network of {size:,} parameters"
    hidden = "-".join(map(str, widths))
    return f"a network of {hidden} hidden units" if widths else "a linear model"


def formula(features: Sequence[str], target: str, coefficients: Sequence[float]) -> str:
    """Write a linear model, such as ``y = 0.7003·x + 0.2998``; the intercept comes first."""
    if len(features) > MAX_FORMULA_FEATURES:
        return f"a linear model from {len(features)} features to {target}"
    intercept, *slopes = coefficients
    products = [f"{slope:.4g}·{name}" for slope, name in zip(slopes, features, strict=True)]
    return f"{target} = {' + '.join([*products, f'{intercept:.4g}'])}".replace(" + -", " − ")
