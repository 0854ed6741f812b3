"""The processes that share a training run, as `torchrun` starts them."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from tidegate.errors import TrainingError

TIMEOUT = 600.0  # seconds that a process waits for the others
START = 300.0  # seconds in which all processes must have started
GRACE = 5.0  # seconds in which processes that wait in vain tell each other so


class Ranks:
    """One process alone: its `rank` is 0 of `size` 1, and there is nothing to exchange."""

    rank, size = 0, 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""

    def first(self, value: float) -> float:
        """The value of rank 0."""
        return value

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of rank 0."""

    def gather(self, data: bytes) -> list[bytes]:
        """The data of each process, by rank."""
        return [data]


class TorchrunRanks(Ranks):
    """A process among others that torch.distributed connects through gloo.

    A process that does not answer in time is named by a `TrainingError` in each of the others.
    """

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self.timeout = timeout
        store, self.rank, self.size = next(rendezvous("env://", timeout=timedelta(seconds=START)))
        here = [f"tidegate/here/{rank}" for rank in range(self.size)]
        store.set(here[self.rank], "")
        store.wait(here, timedelta(seconds=START))  # so that time-outs below do not count the start of the others
        limit = timedelta(seconds=timeout)
        dist.init_process_group("gloo", store=store, rank=self.rank, world_size=self.size, timeout=limit)
        self._waiting = dist.PrefixStore("tidegate/waiting", store)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, which is the same bits in each."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self._exchange(lambda: dist.all_reduce(flat))
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def first(self, value: float) -> float:
        """The value of rank 0."""
        held = torch.tensor(value, dtype=torch.float64)
        self._exchange(lambda: dist.broadcast(held, 0))
        return held.item()

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of rank 0."""
        for tensor in tensors:
            self._exchange(partial(dist.broadcast, tensor, 0))

    def gather(self, data: bytes) -> list[bytes]:
        """The data of each process, by rank."""
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(data)
        self.sum([sizes])
        rows = torch.zeros(self.size, int(sizes.max()), dtype=torch.uint8)
        rows[self.rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.sum([rows])
        return [row[:size].numpy().tobytes() for row, size in zip(rows, sizes.tolist(), strict=True)]

    def _exchange(self, call: Callable[[], object]) -> None:
        """Exchange with all processes. Raises TrainingError, which names those that do not answer."""
        try:
            call()
        except RuntimeError as error:
            missing = self._missing()
            named = "rank " + ", ".join(map(str, missing)) if missing else "a process"
            raise TrainingError(
                f"Rank {self.rank} of {self.size} got no answer from {named} within {self.timeout:g} s: it ended or is "
                "stuck. Look at its output, and run the same command again to continue from the last checkpoint."
            ) from error

    def _missing(self) -> list[int]:
        """The ranks that do not tell, within `GRACE`, that they are waiting too."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        with contextlib.suppress(RuntimeError):
            self._waiting.set(str(self.rank), "")
            with contextlib.suppress(RuntimeError):
                self._waiting.wait([str(rank) for rank in others], timedelta(seconds=GRACE))
            return [rank for rank in others if not self._waiting.check([str(rank)])]
        return [0]  # which keeps the store


ALONE = Ranks()


@contextmanager
def torchrun(timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """The processes that torchrun started this one among; alone where it did not.

    Raises TrainingError where a process does not answer within `timeout` seconds.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    ranks = TorchrunRanks(timeout)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
