"""The variants of the peephole LSTM that Greff et al. 2015 compare, each without one part.

Their V is `lstm_peephole`, their NP `lstm`, and their FGR `lstm_full_gate_recurrence`.
"""

from tidegate.cells.lstm import lstm_peephole
from tidegate.cells.transforms import couple, variant
from tidegate.equations import cell, linear, sigmoid, tanh, weight

SOURCE = "Greff et al. 2015, arXiv:1503.04069, section 3"

lstm_no_input_gate = variant(lstm_peephole, "lstm_no_input_gate", f"{SOURCE}: NIG", i=1.0)
lstm_no_forget_gate = variant(lstm_peephole, "lstm_no_forget_gate", f"{SOURCE}: NFG", f=1.0)
lstm_no_output_gate = variant(lstm_peephole, "lstm_no_output_gate", f"{SOURCE}: NOG", o=1.0)
lstm_no_input_activation = variant(lstm_peephole, "lstm_no_input_activation", f"{SOURCE}: NIAF", g="identity")
lstm_coupled_peephole = couple(lstm_peephole, name="lstm_coupled_peephole", source=f"{SOURCE}: CIFG")


@cell(states="h c", source=f"{SOURCE}: NOAF")
def lstm_no_output_activation(x, h, c, *, forget_bias=1.0):
    i = sigmoid(linear("i", x, h) + weight("p_i") * c)  # input gate, sees the old cell
    f = sigmoid(linear("f", x, h, bias=forget_bias) + weight("p_f") * c)  # forget gate, sees the old cell
    g = tanh(linear("g", x, h))  # candidate
    c = f * c + i * g  # cell
    o = sigmoid(linear("o", x, h) + weight("p_o") * c)  # output gate, sees the new cell
    h = o * c  # output, not squashed
    return h, c
