import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from stages.training.batches import ScaledRows, joined
from stages.training.gradient import mean_loss
from stages.training.ranks import Ranks


def problem(num_blocks, dtype):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8, dtype=dtype), nn.ReLU(), nn.Linear(8, 1, dtype=dtype))
    blocks = [
        ScaledRows(torch.randn(50 + i, 3, dtype=dtype), torch.randn(50 + i, 1, dtype=dtype))
        for i in range(num_blocks)
    ]

    def block_loss(block):
        return functional.mse_loss(network(block.inputs), block.targets)

    return blocks, list(network.parameters()), block_loss


def gradients(blocks, parameters, block_loss):
    """The loss, and the gradients that its `backward()` leaves at the parameters."""
    for parameter in parameters:
        parameter.grad = None
    loss = mean_loss(block_loss, blocks, parameters, Ranks())
    loss.backward()
    return loss.item(), [parameter.grad for parameter in parameters]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_blocks", [1, 2, 9])
def test_loss_and_gradient_by_blocks_equal_those_of_all_rows_together(num_blocks, dtype):
    blocks, parameters, block_loss = problem(num_blocks, dtype)
    expected_loss = block_loss(joined(blocks))
    expected = torch.autograd.grad(expected_loss, parameters)
    loss, found = gradients(blocks, parameters, block_loss)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13  # autograd rounds at every addition
    assert loss == pytest.approx(expected_loss.item(), rel=tolerance)
    for ours, gradient in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert torch.allclose(ours, gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("num_blocks", [1, 9])
def test_without_gradients_the_loss_is_the_same_and_needs_none(num_blocks):
    blocks, parameters, block_loss = problem(num_blocks, torch.float32)
    expected, _ = gradients(blocks, parameters, block_loss)
    with torch.inference_mode():
        loss = mean_loss(block_loss, blocks, parameters, Ranks())
    assert loss.item() == expected
    assert not loss.requires_grad


@pytest.mark.parametrize("num_blocks", [1, 9])
def test_gradients_add_up_until_they_are_cleared_and_scale_as_pytorchs_do(num_blocks):
    blocks, parameters, block_loss = problem(num_blocks, torch.float64)
    _, once = gradients(blocks, parameters, block_loss)
    once = [gradient.clone() for gradient in once]
    (mean_loss(block_loss, blocks, parameters, Ranks()) * 2).backward()
    for parameter, gradient in zip(parameters, once, strict=True):
        assert torch.allclose(parameter.grad, 3 * gradient, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_changes_no_bit(use_threads, dtype):
    found = set()
    for num_threads in (1, 2, 3, 4, 8):
        use_threads(num_threads)
        loss, parts = gradients(*problem(140, dtype))
        found.add((loss, *(gradient.numpy().tobytes() for gradient in parts)))
    assert len(found) == 1


def test_a_block_that_is_not_finite_makes_the_loss_not_finite():
    blocks, parameters, block_loss = problem(3, torch.float32)
    blocks[1].targets[7] = torch.inf
    loss, _ = gradients(blocks, parameters, block_loss)
    assert not math.isfinite(loss)


@pytest.mark.parametrize("num_blocks", [1, 9])
def test_a_second_backward_is_refused_as_in_pytorch(num_blocks):
    blocks, parameters, block_loss = problem(num_blocks, torch.float32)
    loss = mean_loss(block_loss, blocks, parameters, Ranks())
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
