"""The processes that play one run together, as ``torchrun`` starts them, and everything that they tell each other.

What a step makes is the mean over its micro-batches by one binary tree of a fixed shape. A process sums a subtree, then
the processes sum the rest in pairs. So 1, 2, 4, ... processes get the same bits.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rivals.base.errors import ProcessLost, UserError

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT = 1800.0  # seconds that a process waits for the others
POLL_SECONDS = 0.1
FAREWELL_SECONDS = 10.0


class ProcessGroup:
    """The processes of a run. One alone takes the same path: what it is told is what it said.

    Attributes:
        rank: Of this process; the first, 0, writes the run.
        size: Number of processes.
        reduction: How they average: ``tree``, the same bits for any number of processes, or ``ring``, faster.
    """

    rank = 0
    size = 1
    reduction = "tree"

    @property
    def first(self) -> bool:
        """Whether this process writes the run and talks to the user."""
        return self.rank == 0

    def share_of(self, parts: int) -> range:
        """Those of a step's micro-batches that this process plays."""
        each = parts // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def mean(self, parts: Iterable[list[Tensor]], count: int) -> list[Tensor]:
        """The mean over all ``count`` micro-batches of lists of tensors, of which this process makes its share.

        The tensors may be overwritten.

        Args:
            parts: One list for each micro-batch of :meth:`share_of`, in order.
            count: Number of micro-batches of all processes, a power of two.
        """
        import torch

        total = self._sum_over_processes(_tree_sum(parts))
        if count > 1:
            torch._foreach_mul_(total, 1 / count)  # a power of two: exact
        return total

    def _sum_over_processes(self, total: list[Tensor]) -> list[Tensor]:
        return total

    def agree(self, *numbers: float, error: Exception | None = None) -> list[float]:
        """The largest of each of the ``numbers`` over all processes.

        Raises:
            Exception: the ``error``.
            UserError: the same, of another process.
            ProcessLost: an error of another process that the user cannot fix.
        """
        if error is not None:
            raise error
        return list(numbers)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is done inside, all processes do, or none goes on: see :meth:`agree`."""
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        self.agree(error=failure)

    @contextlib.contextmanager
    def one_per_node_first(self) -> Iterator[None]:
        """What is done inside, as :meth:`together`, the first process of each machine does before the others there.

        It may leave something for them, such as a cache.
        """
        yield

    @contextlib.contextmanager
    def outlast_first(self) -> Iterator[None]:
        """Leave what is inside no earlier than the first process does.

        Launchers stop all processes as soon as one has failed, and the first may still be writing.
        """
        yield

    def leave(self) -> None:
        """Say farewell at the end of a process."""

    def share(self, value: Any) -> Any:
        """What the first process passes, in all processes: anything that JSON can hold."""
        return value

    def share_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the first process passes, in all processes."""
        return tensors

    def gather(self, value: Any) -> list[Any]:
        """What each process passes, by rank: anything that JSON can hold. Waits for the slowest, however long."""
        return [value]

    def hand_out(self, count: int) -> Iterator[int]:
        """Those of ``count`` pieces of work that this process takes, in order: each the next one that is left."""
        yield from range(count)


ALONE = ProcessGroup()


class TorchProcessGroup(ProcessGroup):
    """The processes of ``torch.distributed``.

    Args:
        rank: Of this process.
        size: Number of processes.
        timeout: How long a process waits for the others.

    Raises:
        ProcessLost: the others cannot be reached.
    """

    def __init__(self, rank: int, size: int, timeout: timedelta) -> None:
        import torch
        import torch.distributed as dist

        self.rank, self.size = rank, size
        self._turn = 0  # numbers the messages
        with self._contact():
            if not dist.is_initialized():
                backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
                dist.init_process_group(backend, timeout=timeout)
            # The store is where messages of any length are left for the others.
            self._store = dist.distributed_c10d._get_default_store()

    def _sum_over_processes(self, total: list[Tensor]) -> list[Tensor]:
        """A butterfly: partners at distance 1, 2, 4, ... exchange their sums, and both add the same two numbers."""
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in total])
        with self._contact():
            if self.reduction == "ring":
                dist.all_reduce(flat)
            else:
                received = torch.empty_like(flat)
                for bit in range(self.size.bit_length() - 1):
                    partner = self.rank ^ (1 << bit)
                    exchange = [dist.P2POp(dist.isend, flat, partner), dist.P2POp(dist.irecv, received, partner)]
                    for request in dist.batch_isend_irecv(exchange):
                        request.wait()
                    flat += received
        for tensor, values in zip(total, torch.split(flat, [tensor.numel() for tensor in total]), strict=True):
            tensor.copy_(values.view(tensor.shape))
        return total

    def agree(self, *numbers: float, error: Exception | None = None) -> list[float]:
        import torch
        import torch.distributed as dist

        self._turn += 1
        key = f"error {self._turn}"
        if error is not None:
            self._put(
                f"{key} {self.rank}", json.dumps([isinstance(error, UserError), type(error).__name__, str(error)])
            )
        # The lowest rank that failed is the largest of these numbers.
        largest = torch.tensor([*numbers, 0 if error is None else self.size - self.rank], dtype=torch.float64)
        with self._contact():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
        *agreed, failed = largest.tolist()
        if not failed:
            return agreed
        if error is not None:
            raise error
        rank = self.size - int(failed)
        by_user, kind, text = json.loads(self._get(f"{key} {rank}"))
        raise UserError(f"process {rank}: {text}") if by_user else ProcessLost(f"process {rank} failed: {kind}: {text}")

    @contextlib.contextmanager
    def one_per_node_first(self) -> Iterator[None]:
        self._turn += 1
        key = f"node {self._turn} {os.environ.get('GROUP_RANK', 0)}"
        before_others = int(os.environ.get("LOCAL_RANK", self.rank)) == 0
        with self.together():
            if not before_others:
                self._wait_for(key)
            try:
                yield
            finally:
                if before_others:
                    self._put(key, "")

    @contextlib.contextmanager
    def outlast_first(self) -> Iterator[None]:
        self._turn += 1
        key = f"end {self._turn}"
        try:
            yield
        except ProcessLost:
            raise
        except BaseException:
            self._end(key)
            raise
        self._end(key)

    def _end(self, key: str) -> None:
        if self.first:
            self._put(key, "")
        else:
            self._wait_for(key)

    def share(self, value: Any) -> Any:
        self._turn += 1
        if self.first:
            self._put(f"value {self._turn}", json.dumps(value))
        return json.loads(self._get(f"value {self._turn}"))

    def share_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        import torch
        import torch.distributed as dist
        from safetensors.torch import load, save

        content = save(tensors) if self.first else b""
        data = torch.empty(self.share(len(content)), dtype=torch.uint8)
        if self.first:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with self._contact():
            dist.broadcast(data, 0)
        return tensors if self.first else load(data.numpy().tobytes())

    def gather(self, value: Any) -> list[Any]:
        self._turn += 1
        keys = [f"part {self._turn} {rank}" for rank in range(self.size)]
        self._put(keys[self.rank], json.dumps(value))
        for key in keys:
            self._wait_for(key)
        return [json.loads(self._get(key)) for key in keys]

    def hand_out(self, count: int) -> Iterator[int]:
        self._turn += 1
        key = f"rivals pieces {self._turn}"
        while True:
            with self._contact():
                piece: int = self._store.add(key, 1) - 1
            if piece >= count:
                return
            yield piece

    def leave(self) -> None:
        """The first process, which may hold the store, lets the others read what is theirs, if they still live."""
        with contextlib.suppress(ProcessLost):
            if not self.first:
                self._put(f"left by {self.rank}", "")
                return
            for rank in range(1, self.size):
                self._wait_for(f"left by {rank}", FAREWELL_SECONDS)

    def _put(self, key: str, value: str) -> None:
        with self._contact():
            self._store.set(f"rivals {key}", value)

    def _get(self, key: str) -> str:
        with self._contact():
            value: bytes = self._store.get(f"rivals {key}")
        return value.decode()

    def _wait_for(self, key: str, seconds: float = math.inf) -> None:
        """Wait for a message, by default however long it takes: to decode the images may take hours."""
        end = time.monotonic() + seconds
        with self._contact():
            while not self._store.check([f"rivals {key}"]) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _contact(self) -> Iterator[None]:
        """Tell a lost process from a bug: the errors of ``torch.distributed`` are plain ``RuntimeError`` in part."""
        try:
            yield
        except RuntimeError as error:
            cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ProcessLost(
                f"process {self.rank} of {self.size} lost contact with another one, which died or cannot be reached "
                f"({cause}): continue from the last checkpoint with --resume"
            ) from error


def _tree_sum(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    """The sum of lists of tensors by a binary tree: as many partial sums are alive as it has levels."""
    import torch

    sums: list[tuple[int, list[Tensor]]] = []  # level in the tree, sum of 2^level parts
    for tensors in parts:
        level, right = 0, tensors
        while sums and sums[-1][0] == level:
            _, left = sums.pop()
            torch._foreach_add_(left, right)
            level, right = level + 1, left
        sums.append((level, right))
    [(_, total)] = sums  # their number is a power of two
    return total


def environment_rank() -> int:
    """The rank that ``torchrun`` gave to this process; 0 without it."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() else 0


def environment_size() -> int:
    """How many processes ``torchrun`` started; 1 without it.

    Raises:
        UserError: ``WORLD_SIZE`` is no number.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise UserError(f"WORLD_SIZE is '{size}', which is no number of processes: unset it, or use torchrun")
    return int(size)


_acts_alone: ContextVar[bool] = ContextVar("acts_alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process is the only one: what it calls must not wait for the others."""
    token = _acts_alone.set(True)
    try:
        yield
    finally:
        _acts_alone.reset(token)


def current() -> ProcessGroup:
    """The processes that ``torchrun`` or another launcher started with this one, or this one alone.

    Raises:
        ProcessLost: the others cannot be reached.
        UserError: ``RIVALS_TIMEOUT`` is no time, or the variables of the launcher do not let the processes meet.
    """
    return ALONE if _acts_alone.get() else _started()


@functools.cache
def _started() -> ProcessGroup:
    size = environment_size()
    if size == 1:
        return ALONE
    written = os.environ.get("RIVALS_TIMEOUT", str(TIMEOUT))
    try:
        timeout = timedelta(seconds=float(written))
    except (ValueError, OverflowError):
        raise UserError(f"RIVALS_TIMEOUT is '{written}', which is no time: give seconds, such as 600") from None
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise UserError(f"WORLD_SIZE is {size}, and {name} is not set: start the processes with torchrun")
    rank, port = os.environ["RANK"], os.environ["MASTER_PORT"]
    if not rank.isdecimal() or int(rank) >= size:
        raise UserError(f"RANK is '{rank}', which is not one of {size} processes: start them with torchrun")
    if not port.isdecimal() or not 0 < int(port) < 2**16:  # at port 0 each would wait for ever at one of its own
        raise UserError(f"the processes cannot meet at port {port}: start torchrun with --standalone, or another port")
    group = TorchProcessGroup(environment_rank(), size, timeout)
    atexit.register(group.leave)
    return group
