"""Adam on one vector, against torch's."""

import torch

from tidegate.online.adam import Adam


def test_it_is_that_of_torch() -> None:
    weights = torch.randn(7, dtype=torch.float64)
    theirs = weights.clone().requires_grad_()
    optimiser, adam = torch.optim.Adam([theirs], lr=0.02), Adam(weights, 0.02)
    for _ in range(50):
        gradient = torch.randn(7, dtype=torch.float64) * torch.tensor([1e-6, 1e-3, 1, 1, 10, 100, 0])
        theirs.grad = gradient.clone()
        optimiser.step()
        adam.step(weights, gradient)
    torch.testing.assert_close(weights, theirs.detach(), rtol=1e-12, atol=1e-14)
    assert adam.steps == 50
