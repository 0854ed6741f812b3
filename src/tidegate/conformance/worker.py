"""One process of the check in `processes`: `python -m tidegate.conformance.worker FOLDER RANK`."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from tidegate.equations import Cell
from tidegate.nn import Recurrent


def work(folder: Path, rank: int) -> None:
    """Find the gradient of one share of the batch, averaged over all processes, and save it in the folder."""
    task = torch.load(folder / "task", weights_only=True)
    input_size, hidden_size, letters = task["sizes"]
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(task["shares"])
    )
    try:
        layer = Recurrent(Cell.from_json(json.loads(task["cell"])), input_size, hidden_size, **letters).double().eval()
        layer.load_state_dict(task["weights"])
        whole = DistributedDataParallel(layer, find_unused_parameters=task["unused"])
        whole(task["shares"][rank])[0].square().sum().backward()
        torch.save({n: p.grad for n, p in layer.named_parameters()}, folder / str(rank))
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
