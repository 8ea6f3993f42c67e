"""Training in several processes on one machine: accelerate finds them by the variables that launchers set.

On a processor, a convolution's backward pass gains little from a second thread, and a second process nearly doubles
the images a second (`benchmarks/training_throughput.py`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate.state import AcceleratorState

from edgemtl.errors import UserError
from edgemtl.signals import end_with_parent

__all__ = ["training_processes", "worker_processes"]


def training_processes() -> int:
    """A process for each of at most two cores; one where a GPU trains, or where torch is given one thread."""
    return 1 if torch.cuda.is_available() else min(2, torch.get_num_threads())


@contextmanager
def worker_processes(work: Callable[[], None], processes: int) -> Iterator[None]:
    """Run `work` in `processes` - 1 further processes while the block does the same here; cores are shared out.

    `work` must be picklable. Helpers leave Ctrl-C and SIGTERM to this process and end with it, however it ends. Raises
    `UserError` where one of them ended with an error.
    """
    if processes == 1:
        yield
        return
    threads = max(1, torch.get_num_threads() // processes)
    port = _free_port()
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=_help, args=(work, rank, processes, port, threads, os.getpid()), daemon=True)
        for rank in range(1, processes)
    ]
    for helper in helpers:
        helper.start()
    before = dict(os.environ), torch.get_num_threads()
    _leave_group()
    try:
        _join(0, processes, port, threads)
        yield
    except RuntimeError as error:
        for helper in helpers:
            helper.join(5)
        ended = [helper.exitcode for helper in helpers if helper.exitcode]
        if not ended:
            raise
        raise UserError(
            f"{len(ended)} of {processes} training processes ended (status {ended[0]}): the last checkpoint is kept, "
            "go on with --resume; where memory ran out, with fewer --processes or a smaller --batch"
        ) from error
    finally:
        for helper in helpers:
            helper.kill()
        _leave_group()
        os.environ.clear()
        os.environ.update(before[0])
        torch.set_num_threads(before[1])


def _help(work: Callable[[], None], rank: int, processes: int, port: int, threads: int, parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent)
    _join(rank, processes, port, threads)
    work()


def _join(rank: int, processes: int, port: int, threads: int) -> None:
    """The rank and world size that a launcher set, read before accelerate starts."""
    torch.set_num_threads(threads)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"


def _leave_group() -> None:
    """Leave the processes of an earlier training, which accelerate would otherwise take for those of the next one."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
