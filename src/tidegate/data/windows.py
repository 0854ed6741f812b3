"""Windows: which rows of which series go into a batch."""

import torch
from torch import Tensor


def draw_windows(counts: list[int], batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`batch` windows drawn at random, each start of each series being equally likely.

    `counts[s]` is the number of places at which a window may start in series s. Returns the series `[batch]` and the
    starts `[batch]`, both int64.
    """
    ends = torch.tensor(counts).cumsum(0)
    drawn = torch.randint(int(ends[-1]), (batch,), generator=generator)
    series = torch.searchsorted(ends, drawn, right=True)
    return series, drawn - (ends - torch.tensor(counts))[series]


def window_rows(offsets: Tensor, series: Tensor, starts: Tensor, length: int) -> Tensor:
    """Rows `[length, batch]` of windows in series laid end to end, `offsets[s]` being the first row of series s."""
    return (offsets[series] + starts)[None] + torch.arange(length)[:, None]
