"""Training in several processes: accelerate finds them by the variables that launchers set.

`worker_processes` is the launcher of `--processes`; `torchrun` and `accelerate launch` are others, for several
machines too. On a processor, a convolution's backward pass gains little from a second thread, and a second process
nearly doubles the images a second (`benchmarks/training_throughput.py`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from typing import TYPE_CHECKING

import torch

from edgemtl.errors import UserError
from edgemtl.signals import end_with_parent
from edgemtl.train.speed import training_speed

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Launched", "join_group", "leave_group", "training_processes", "worker_processes"]

_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Launched:
    """This process among those that a launcher has started: its number, that on its machine, and how many there are."""

    rank: int
    local_rank: int
    processes: int

    @classmethod
    def here(cls) -> Launched:
        """As the launcher's variables say; alone where there is none."""
        rank, local_rank, processes = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
        return cls(rank, local_rank, processes)


_VARIABLES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))


def training_processes() -> int:
    """A process for each of at most two cores; one where a GPU trains, or where torch is given one thread."""
    return 1 if torch.cuda.is_available() else min(2, torch.get_num_threads())


def join_group() -> Accelerator:
    """Join the processes that a launcher has started, if any, each with a GPU of its own where the machine has them."""
    from accelerate import Accelerator

    return Accelerator(cpu=Launched.here().processes > 1 and not torch.cuda.is_available())


def leave_group() -> None:
    """Leave the processes that trained together: what follows is this one's own, and another training may join others.

    Accelerate would otherwise take them for those of the next training.
    """
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def worker_processes(work: Callable[[], None], processes: int) -> Iterator[None]:
    """Run `work` in `processes` - 1 further processes while the block does the same here; cores are shared out.

    `work` must be picklable. Helpers leave Ctrl-C and SIGTERM to this process and end with it, however it ends. Raises
    `UserError` where one of them ended with an error, and for more processes than the machine has GPUs, where it has
    any.
    """
    if processes == 1:
        yield
        return
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(f"--processes {processes}: this machine has {torch.cuda.device_count()} GPUs, one for each")
    if not torch.cuda.is_available():
        training_speed()  # measured before they share the cores: each reads it then
    threads = max(1, torch.get_num_threads() // processes)
    port = _free_port()
    context = multiprocessing.get_context("spawn")
    begun = context.Semaphore(0)
    helpers = [
        context.Process(target=_help, args=(work, rank, processes, port, threads, os.getpid(), begun), daemon=True)
        for rank in range(1, processes)
    ]
    for helper in helpers:
        helper.start()
    before = dict(os.environ), torch.get_num_threads()
    leave_group()
    try:
        _wait(helpers, begun)
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
        leave_group()
        os.environ.clear()
        os.environ.update(before[0])
        torch.set_num_threads(before[1])


def _wait(helpers: Sequence[BaseProcess], begun: Semaphore) -> None:
    """Wait until all helpers have begun: one that ended before it joins the others would be waited for half an hour."""
    for _ in helpers:
        while not begun.acquire(timeout=_LOOK_SECONDS):
            if ended := [helper.exitcode for helper in helpers if helper.exitcode is not None]:
                raise UserError(
                    f"a training process ended as it started (status {ended[0]}): where memory ran out, take fewer "
                    "--processes; a script that trains in several stands under `if __name__ == '__main__':`"
                )


def _help(
    work: Callable[[], None],
    rank: int,
    processes: int,
    port: int,
    threads: int,
    parent: int,
    begun: Semaphore,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent)
    _join(rank, processes, port, threads)
    begun.release()
    try:
        work()
    except UserError as error:
        raise SystemExit(str(error)) from error


def _join(rank: int, processes: int, port: int, threads: int) -> None:
    """Set what a launcher would, before accelerate reads it; without a number of threads it warns and takes its own."""
    torch.set_num_threads(threads)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    numbers["OMP_NUM_THREADS"] = threads
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
