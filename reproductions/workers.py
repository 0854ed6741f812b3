"""Jobs done one after another in this process, or several at a time in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

import torch

Result = TypeVar("Result")


def finish(jobs: Sequence[Callable[[], Result]], processes: int | None) -> Iterator[Result]:
    """What each job gives, as it is done; `processes` at a time, one for each core if None, with 1 in this process.

    Jobs may set torch's number of threads. What they raise is raised here, and ends the other processes.
    """
    wanted = min(len(jobs), processes or os.cpu_count() or 1)
    if wanted > 1:
        yield from _in_parallel(jobs, wanted)
        return
    threads = torch.get_num_threads()
    try:
        yield from (job() for job in jobs)
    finally:
        torch.set_num_threads(threads)


def _in_parallel(jobs: Sequence[Callable[[], Result]], processes: int) -> Iterator[Result]:
    """Spawned, because a fork of a process that has used torch's threads may hang."""
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
    try:
        with _deaf_to_interrupts(), _unnamed_main():
            futures = [pool.submit(job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    pool.shutdown()


@contextmanager
def _unnamed_main() -> Iterator[None]:
    """Processes begun here do not run the main module again, which may be a script of the user's without a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes begun here ignore an interrupt, even while they import: it is ours to end them, without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
