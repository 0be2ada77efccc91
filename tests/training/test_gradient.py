import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.training.batches import ScaledRows, joined
from stages.training.gradient import backward, mean_loss
from stages.training.ranks import Ranks


def problem(num_blocks, dtype):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8, dtype=dtype), nn.ReLU(), nn.Linear(8, 1, dtype=dtype))
    blocks = [
        ScaledRows(torch.randn(50 + i, 3, dtype=dtype), torch.randn(50 + i, 1, dtype=dtype))
        for i in range(num_blocks)
    ]

    def loss_of(block):
        return functional.mse_loss(network(block.inputs), block.targets)

    return blocks, list(network.parameters()), loss_of


def bits(loss, parameters):
    return [loss, *(parameter.grad.numpy().tobytes() for parameter in parameters)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_blocks", [1, 2, 9])
def test_loss_and_gradient_by_blocks_equal_those_of_all_rows_together(num_blocks, dtype):
    blocks, parameters, loss_of = problem(num_blocks, dtype)
    mean = loss_of(joined(blocks))
    expected = torch.autograd.grad(mean, parameters)
    loss = backward(loss_of, blocks, parameters, Ranks())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13  # autograd rounds at every addition
    assert loss == pytest.approx(mean.item(), rel=tolerance)
    assert mean_loss(loss_of, blocks, Ranks()) == loss
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad.dtype == dtype
        assert torch.allclose(parameter.grad, gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neither_threads_nor_the_order_of_blocks_change_a_bit(use_threads, dtype):
    blocks, parameters, loss_of = problem(40, dtype)
    expected = bits(backward(loss_of, blocks, parameters, Ranks()), parameters)
    for num_threads in (1, 2, 3, 4, 8):
        use_threads(num_threads)
        order = torch.randperm(40).tolist()
        shuffled = [blocks[i] for i in order]
        assert bits(backward(loss_of, shuffled, parameters, Ranks()), parameters) == expected


def test_a_block_that_is_not_finite_makes_loss_and_gradient_nan():
    blocks, parameters, loss_of = problem(3, torch.float32)
    blocks[1].targets[7] = torch.inf
    loss = backward(loss_of, blocks, parameters, Ranks())
    assert math.isnan(loss)
    assert all(parameter.grad.isnan().all() for parameter in parameters)
