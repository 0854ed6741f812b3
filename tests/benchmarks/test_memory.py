"""What is there of activations at a time, by hand."""

import torch

from benchmarks.memory import Activations


def test_what_autograd_keeps_and_what_is_held() -> None:
    weight, x = torch.ones(5, 3, requires_grad=True), torch.ones(100, 3)

    def call() -> None:
        y = watch.hold(x @ weight.T).sigmoid()  # the product, which goes; sigmoid keeps its result, 100 x 5 numbers
        torch.autograd.grad((y * y).sum(), weight)
        assert watch.bytes == 0

    watch = Activations([weight, x])
    assert watch.during(call) == 2 * 100 * 5 * 4
    assert watch.bytes == 0


def test_weights_and_data_are_apart() -> None:
    weight, x = torch.ones(3, requires_grad=True), torch.ones(7, 3)
    assert Activations([weight, x]).during(lambda: (x[2:5] * weight).sum().backward()) == 0
    assert Activations([weight]).during(lambda: (x * weight).sum().backward()) == 7 * 3 * 4
