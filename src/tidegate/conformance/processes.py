"""The promise about training in several processes: together they find the gradient of the whole batch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tidegate.conformance.subject import CheckedCell, H, expect_near
from tidegate.equations import Cell
from tidegate.nn import Recurrent

T, B, COUNT = 4, 4, 2


def distributed(subject: CheckedCell) -> None:
    """DistributedDataParallel with two processes on this machine."""
    layer, x = subject.layer(), subject.inputs(T, B)
    layer(x)[0].square().sum().backward()
    with tempfile.TemporaryDirectory() as folder:
        shares = [subject.rows(x, slice(rank * B // COUNT, (rank + 1) * B // COUNT)) for rank in range(COUNT)]
        told = (subject.cell.to_json(), subject.input_size, subject.letters, layer.state_dict(), shares, folder)
        torch.multiprocessing.spawn(_part, told, nprocs=COUNT)
        for rank in range(COUNT):
            found = torch.load(Path(folder) / str(rank), weights_only=True)
            for name, p in layer.named_parameters():
                if p.grad is not None:
                    expect_near(f"process {rank}, gradient of {name!r}", found[name], p.grad / COUNT)


def _part(
    rank: int,
    cell: Any,
    input_size: int,
    letters: Any,
    weights: dict[str, Tensor],
    shares: list[dict[str, Tensor]],
    folder: str,
) -> None:
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=COUNT)
    try:
        torch.set_num_threads(1)
        layer = Recurrent(Cell.from_json(cell), input_size, H, **letters).double().eval()
        layer.load_state_dict(weights)
        whole = DistributedDataParallel(layer, find_unused_parameters=True)
        whole(shares[rank])[0].square().sum().backward()
        torch.save({n: p.grad for n, p in layer.named_parameters()}, Path(folder) / str(rank))
    finally:
        torch.distributed.destroy_process_group()
