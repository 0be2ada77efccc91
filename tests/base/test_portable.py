"""The bits of the line search; test_train.py shows that it learns."""

import numpy as np
import pytest
import torch

from stages.base.portable import LBFGS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_square_roots_in_a_step_are_correctly_rounded(dtype):
    values = torch.linspace(0.01, 2.0, 3700, dtype=dtype)
    parameter = torch.nn.Parameter(torch.ones(1))
    roots = []

    def closure():
        roots.extend([values.sqrt(), torch.stack([value.sqrt() for value in values])])
        parameter.grad = 2 * parameter.detach()
        return parameter.detach().square().item()

    LBFGS([parameter], lr=0.1).step(closure)
    assert len(roots) > 2, "the line search computes the loss too"
    expected = np.sqrt(values.numpy())
    assert expected.dtype == roots[0].numpy().dtype
    assert {root.numpy().tobytes() for root in roots} == {expected.tobytes()}
