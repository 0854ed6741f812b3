"""What to write instead of functions and methods of torch and numpy, which cannot take values of a cell."""

SAME = ["absolute", "cos", "exp", "expm1", "floor", "log", "log1p", "log_sigmoid"]
SAME += ["mean", "relu", "sigmoid", "silu", "sin", "softplus", "sqrt", "tanh"]
ELSEWHERE = {
    "abs(v)": "abs",
    "exp(v) / total(exp(v))": "softmax",
    "hard_sigmoid(v)": "hardsigmoid",
    "hard_tanh(v)": "hardtanh",
    "layer_norm(name, v)": "layer_norm",
    "linear(name, a, b), which reads several": "cat concat concatenate hstack stack",
    "linear(name, x, h), or matrix(name) @ v": "einsum linear matmul mm mv",
    "log_sigmoid(v)": "logsigmoid",
    "maximum(a, b)": "amax max maximum",
    "minimum(a, b)": "amin min minimum",
    "minimum(maximum(v, low), high)": "clamp clip",
    "numbers, weight(name) and matrix(name) in the place of tensors": "add div mul pow rsub sub",
    "one linear(...) for each part": "chunk split tensor_split",
    "sqrt(total(v * v))": "norm",
    "stop(v)": "detach",
    "total(a * b)": "dot inner vdot",
    "total(v)": "sum",
    "v ** 2": "square",
    "where(condition, a, b)": "where",
}
INSTEAD = {word: f"{word}(v)" for word in SAME} | {
    name: way for way, names in ELSEWHERE.items() for name in names.split()
}


def refusal(name: str) -> str:
    """The error text for a function, such as `torch.tanh`, or a method, such as `.tanh`."""
    usual = "words of tidegate.equations, such as tanh(v), where(a, b, c), total(v)"
    return f"{name} cannot be applied to a value of a cell: write {INSTEAD.get(name.rpartition('.')[2], usual)}"
