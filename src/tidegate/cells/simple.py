"""Simple recurrent networks."""

from tidegate.equations import cell, identity, linear, normal, relu, tanh


@cell(states="h", source="Elman 1990, doi:10.1207/s15516709cog1402_1; tanh as in torch.nn.RNN")
def elman(x, h):
    h = tanh(linear("h", x, h))  # hidden state
    return h


@cell(states="h", source="Elman 1990, doi:10.1207/s15516709cog1402_1; ReLU as in torch.nn.RNN(nonlinearity='relu')")
def elman_relu(x, h):
    h = relu(linear("h", x, h))  # hidden state
    return h


@cell(states="h", source="Le, Jaitly & Hinton 2015, arXiv:1504.00941, sections 3 and 4")
def irnn(x, h):
    h = relu(linear("h", x, h, init={"x": normal(0.0, 0.001), "h": identity()}))  # hidden state, kept at the start
    return h
