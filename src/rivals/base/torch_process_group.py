"""The processes of ``torch.distributed``: collectives for tensors, and a store for messages."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rivals.base.devices import is_out_of_memory
from rivals.base.errors import Interrupted, ProcessLost, UserError
from rivals.base.process_group import ProcessGroup

if TYPE_CHECKING:
    from torch import Tensor

POLL_SECONDS = 0.1  # between two looks for a message, at most
BEAT_SECONDS = 5.0  # between two signs of life, or a tenth of the timeout
FAREWELL_SECONDS = 10.0
FAILURE = "failure"  # the message of a process that fails by itself, which ends the group
ACCELERATORS = {"cuda": "nccl", "xpu": "xccl"}  # and their collectives


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
        self.patience = timeout.total_seconds()
        self._turn = 0  # numbers the messages
        self._pieces = 0  # the turn in which they began to be handed out
        self._beats = 0
        self._next_beat = 0.0
        self._agreed: BaseException | None = None  # the last error that all processes have raised together
        self._store: Any = None
        self._group: Any = None  # the default one
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        self._devices = {"cpu"} | ({accelerator.type} & ACCELERATORS.keys() if accelerator else set())
        backend = ",".join(f"{kind}:{ACCELERATORS.get(kind, 'gloo')}" for kind in sorted(self._devices))
        with self._contact():
            if not dist.is_initialized():
                dist.init_process_group(backend, timeout=timeout)
            else:  # by a launcher, perhaps for GPUs alone
                self._group = dist.new_group(backend=backend, timeout=timeout)
            # The store is where messages of any length are left for the others.
            self._store = dist.distributed_c10d._get_default_store()

    def _sum_over_processes(self, total: list[Tensor]) -> list[Tensor]:
        """A butterfly: partners at distance 1, 2, 4, ... exchange their sums, and both add the same two numbers."""
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.reshape(-1) for tensor in total])
        if flat.device.type not in self._devices:
            flat = flat.cpu()
        received = torch.empty_like(flat) if self.reduction == "tree" else flat
        with self._contact():
            if self.reduction == "ring":
                dist.all_reduce(flat, group=self._group)
            else:
                for bit in range(self.size.bit_length() - 1):
                    partner = self.rank ^ (1 << bit)
                    exchange = [
                        dist.P2POp(dist.isend, flat, partner, self._group),
                        dist.P2POp(dist.irecv, received, partner, self._group),
                    ]
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
            self._put(f"{key} {self.rank}", _written(error))
        # The lowest rank that failed is the largest of these numbers.
        largest = torch.tensor([*numbers, 0 if error is None else self.size - self.rank], dtype=torch.float64)
        with self._contact():
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._group)
        *agreed, failed = largest.tolist()
        if not failed:
            return agreed
        rank = self.size - int(failed)
        self._agreed = error or _error_of(rank, self._get(f"{key} {rank}"))
        raise self._agreed

    def tell(self, error: Exception) -> None:
        if error is not self._agreed and not isinstance(error, ProcessLost | Interrupted):
            with contextlib.suppress(ProcessLost):
                self._put(FAILURE, json.dumps([self.rank, _written(error)]))
            _hang_up()

    def _heed_failure(self) -> None:
        if (error := self._told()) is not None:
            raise error

    def _told(self) -> UserError | ProcessLost | None:
        """The error of another process that has failed by itself, if one has told it."""
        with contextlib.suppress(RuntimeError):
            if self._store is not None and self._store.check([f"rivals {FAILURE}"]):
                rank, written = json.loads(self._store.get(f"rivals {FAILURE}"))
                if rank != self.rank:
                    _hang_up()
                    self._agreed = _error_of(rank, written)
                    return self._agreed
        return None

    def beat(self) -> None:
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + min(BEAT_SECONDS, self.patience / 10)
            self._beats += 1
            self._put(f"beat {self.rank}", str(self._beats))
            self._heed_stop()
            self._heed_failure()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLost):
            self._put(f"stop {self._pieces}", "")

    def _heed_stop(self) -> None:
        if self._has(f"stop {self._pieces}"):
            raise KeyboardInterrupt

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
    def outlast_first(self, *, patient: bool = True, common: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        self._turn += 1
        key, of = f"end {self._turn}", None if patient else 0
        try:
            yield
        except ProcessLost:
            raise
        except Exception as error:
            together = error is self._agreed or isinstance(error, (Interrupted, *common))
            if not together:
                self.tell(error)
            if together or self.first:
                self._end(key, of)
            else:
                with contextlib.suppress(UserError, ProcessLost):
                    self._wait_for(key, seconds=FAREWELL_SECONDS)  # the first, which speaks, finds out
            raise
        except BaseException:
            self._end(key, of)
            raise
        self._end(key, of)

    def _end(self, key: str, of: int | None) -> None:
        if self.first:
            self._put(key, "")
        else:
            self._wait_for(key, of)

    def share(self, value: Any) -> Any:
        self._turn += 1
        if self.first:
            self._put(f"value {self._turn}", json.dumps(value))
        self._wait_for(f"value {self._turn}", of=0)
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
            dist.broadcast(data, 0, group=self._group)
        return tensors if self.first else load(data.numpy().tobytes())

    def gather(self, value: Any) -> list[Any]:
        self._turn += 1
        keys = [f"part {self._turn} {rank}" for rank in range(self.size)]
        self._put(keys[self.rank], json.dumps(value))
        for rank, key in enumerate(keys):
            self._wait_for(key, of=rank, stoppable=True)
        return [json.loads(self._get(key)) for key in keys]

    def hand_out(self, count: int) -> Iterator[int]:
        self._turn += 1
        self._pieces = self._turn
        key = f"rivals pieces {self._turn}"
        while True:
            with self._contact():
                piece: int = self._store.add(key, 1) - 1
            if piece >= count:
                return
            self.beat()
            yield piece

    def compute(
        self, count: int, make: Callable[[int], list[Tensor]], *, everywhere: bool = True
    ) -> list[list[Tensor]]:
        made: dict[int, list[Tensor]] = {}
        with self.together():
            for piece in self.hand_out(count):
                made[piece] = [tensor.contiguous() for tensor in make(piece)]
        known = self.gather([[piece, [_form(tensor) for tensor in tensors]] for piece, tensors in made.items()])
        makers = {piece: (rank, forms) for rank, part in enumerate(known) for piece, forms in part}
        found = []
        for piece in range(count):
            rank, forms = makers[piece]
            if rank == self.rank:
                tensors = made.pop(piece)
            elif everywhere or self.first:
                tensors = [_empty(form) for form in forms]
            else:
                continue
            for tensor in tensors:
                self._hand_over(tensor, rank, everywhere)
            found.append(tensors)
        return found if everywhere or self.first else []

    def _hand_over(self, tensor: Tensor, rank: int, everywhere: bool) -> None:
        """Send a tensor of one process to all, or to the first. The others pass one to receive it in."""
        import torch.distributed as dist

        with self._contact():
            if everywhere:
                dist.broadcast(tensor, rank, group=self._group)
            elif rank != 0 and self.first:
                dist.recv(tensor, rank, group=self._group)
            elif rank != 0:
                dist.send(tensor, 0, group=self._group)

    def leave(self) -> None:
        """The first process, which may hold the store, lets the others read what is theirs, if they still live."""
        with contextlib.suppress(ProcessLost, UserError):  # it is the end, whatever the others say
            if not self.first:
                self._put(f"left by {self.rank}", "")
                return
            for rank in range(1, self.size):
                self._wait_for(f"left by {rank}", seconds=FAREWELL_SECONDS)

    def _put(self, key: str, value: str) -> None:
        with self._contact():
            self._store.set(f"rivals {key}", value)

    def _get(self, key: str) -> str:
        with self._contact():
            value: bytes = self._store.get(f"rivals {key}")
        return value.decode()

    def _wait_for(self, key: str, of: int | None = None, seconds: float = math.inf, *, stoppable: bool = False) -> None:
        """Wait for a message, by default however long it takes: to decode the images may take hours.

        Args:
            key: Its key.
            of: The process that sends it: it is waited for as long as it beats.
            seconds: The longest wait.
            stoppable: Whether another process that was told to stop ends the wait.

        Raises:
            KeyboardInterrupt: it was, and this is stoppable.
            ProcessLost: the process has not been heard of for as long as the timeout.
        """
        begun = heard = time.monotonic()
        pause, beats = 0.001, ""
        while not self._has(key):
            now = time.monotonic()
            if now - begun > seconds:
                return
            self._heed_failure()
            if stoppable:
                self._heed_stop()
            if of is not None:
                latest = self._get(f"beat {of}") if self._has(f"beat {of}") else ""
                if latest != beats:
                    beats, heard = latest, now
                elif now - heard > self.patience:
                    raise ProcessLost(
                        f"process {of} of {self.size} made no progress for {self.patience:g} seconds "
                        f"(RIVALS_TIMEOUT), so it was given up: {self.remedy}"
                    )
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS)

    def _has(self, key: str) -> bool:
        with self._contact():
            found: bool = self._store.check([f"rivals {key}"])
        return found

    @contextlib.contextmanager
    def _contact(self) -> Iterator[None]:
        """Tell a lost process from a bug: the errors of ``torch.distributed`` are plain ``RuntimeError`` in part."""
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            if (told := self._told()) is not None:
                raise told from None
            raise ProcessLost(
                f"process {self.rank} of {self.size} lost contact with another one, which died or cannot be reached "
                f"({_cause(error)}): {self.remedy}"
            ) from error


def _cause(error: RuntimeError) -> str:
    """What a library says first, without the place in its code."""
    lines = re.sub(r"\[\S+:\d+\]", "", str(error)).split("\n")
    return " ".join(lines[0].partition(". ")[0].split())[:200] or type(error).__name__


def _hang_up() -> None:
    """Let those that wait for this process find the contact gone; messages still reach them."""
    import torch.distributed as dist

    with contextlib.suppress(RuntimeError, AssertionError, ValueError):
        dist.destroy_process_group()


def _written(error: Exception) -> str:
    return json.dumps([isinstance(error, UserError), type(error).__name__, str(error)])


def _error_of(rank: int, written: str) -> UserError | ProcessLost:
    """What an error of another process is here."""
    by_user, kind, text = json.loads(written)
    return UserError(f"process {rank}: {text}") if by_user else ProcessLost(f"process {rank} failed: {kind}: {text}")


def _form(tensor: Tensor) -> list[Any]:
    """The shape and the dtype of a tensor, as JSON can hold them."""
    return [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]


def _empty(form: list[Any]) -> Tensor:
    import torch

    shape, dtype = form
    return torch.empty(shape, dtype=getattr(torch, dtype))
