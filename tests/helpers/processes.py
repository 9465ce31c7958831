"""Functions in several processes that know of each other, as ``torchrun`` starts them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rivals.base.torch_process_group import TorchProcessGroup

SECONDS = 60  # that a test waits at most


def run_in_processes(size: int, function: Callable[[TorchProcessGroup], Any], timeout: float = SECONDS) -> list[Any]:
    """What ``function`` returns in each of ``size`` forked processes: for an exception its text, None if it died."""
    port = free_port()
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(size):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(rank, size, port, function, send, timeout))
        process.start()
        send.close()
        pipes.append(receive)
        processes.append(process)
    try:
        return [_received(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _received(pipe: Any) -> Any:
    try:
        return pipe.recv() if pipe.poll(SECONDS) else None
    except EOFError:  # it died without a word
        return None


def _child(rank: int, size: int, port: int, function: Callable[..., Any], send: Any, timeout: float) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"LOCAL_RANK": str(rank)}
    processes = TorchProcessGroup(rank, size, timedelta(seconds=timeout))
    try:
        result = function(processes)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    if not str(result).startswith("ProcessLost"):
        processes.leave()
    send.send(result)
    send.close()
    os._exit(0)
