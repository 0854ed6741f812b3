"""Memory blocks whose cells share their gates, unit by unit as the papers of 1997 and 2000 write them."""

from .common import Tensor, Tensors, affine, logistic


def cells_of(block: int, cells: int, blocks: int) -> range:
    """The cells of a block: they stand side by side."""
    size = cells // blocks
    return range(block * size, (block + 1) * size)


def lstm_blocks_1997(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Hochreiter & Schmidhuber 1997, section 4 and eqs. 3-5: every unit sees inputs, cells and gates of t - 1."""
    sources = {"x": inputs["x"], "h": states["h"], "i": states["i"], "o": states["o"]}
    y_in = logistic(affine(w, "i", **sources))
    y_out = logistic(affine(w, "o", **sources))
    net_c = affine(w, "g", **sources)
    s, y = states["c"].clone(), states["c"].clone()
    blocks, cells = y_in.shape[1], s.shape[1]
    for j in range(blocks):
        for v in cells_of(j, cells, blocks):
            s[:, v] = states["c"][:, v] + y_in[:, j] * (4 * logistic(net_c[:, v]) - 2)
            y[:, v] = y_out[:, j] * (2 * logistic(s[:, v]) - 1)
    return y, {"h": y, "c": s, "i": y_in, "o": y_out}


def lstm_blocks_2000(w: Tensors, inputs: Tensors, states: Tensors) -> tuple[Tensor, Tensors]:
    """Gers, Schmidhuber & Cummins 2000: a forget gate for each block; units see inputs and cells of t - 1."""
    sources = {"x": inputs["x"], "h": states["h"]}
    y_in, y_f, y_out = (logistic(affine(w, gate, **sources)) for gate in ("i", "f", "o"))
    net_c = affine(w, "g", **sources)
    s, y = states["c"].clone(), states["c"].clone()
    blocks, cells = y_in.shape[1], s.shape[1]
    for j in range(blocks):
        for v in cells_of(j, cells, blocks):
            s[:, v] = y_f[:, j] * states["c"][:, v] + y_in[:, j] * (4 * logistic(net_c[:, v]) - 2)
            y[:, v] = y_out[:, j] * (2 * logistic(s[:, v]) - 1)
    return y, {"h": y, "c": s}
