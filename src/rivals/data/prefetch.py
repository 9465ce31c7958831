"""The next batches, prepared by a thread while the present ones are learned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from torch import Tensor

Batch = tuple[Tensor, Tensor | None]


class Drawn(Protocol):
    """Batches that are functions of their index: :class:`rivals.data.batches.Batches` and what is made from them."""

    n: int
    batch_size: int
    micro_batches: int

    def draw(self, index: int, stream: int = 0, part: int = 0) -> Batch: ...


class PrefetchedBatches:
    """The same batches, each prepared when the one before it is taken.

    A batch depends on its index alone, so it is the same whenever and wherever it is made: what was prepared for
    another index, before a rollback, is dropped. One thread draws all of them, also those that nobody foresaw. An error
    in it is raised where the batch that it belongs to is taken.

    Args:
        batches: Those to prepare.
        pool: One thread.
        pin: Put them into page-locked memory, from which a GPU copies while the processor goes on.
    """

    def __init__(self, batches: Drawn, pool: ThreadPoolExecutor, *, pin: bool) -> None:
        self.batches, self.pin = batches, pin
        self.n, self.batch_size, self.micro_batches = batches.n, batches.batch_size, batches.micro_batches
        self._pool = pool
        self._next: dict[tuple[int, int], tuple[int, Future[Batch]]] = {}

    def draw(self, index: int, stream: int = 0, part: int = 0) -> Batch:
        """As :meth:`rivals.data.batches.Batches.draw`."""
        expected, prepared = self._next.pop((stream, part), (None, None))
        if prepared is None or expected != index:
            if prepared is not None:
                prepared.cancel()
            prepared = self._pool.submit(self._make, index, stream, part)
        batch = prepared.result()
        self._next[stream, part] = index + 1, self._pool.submit(self._make, index + 1, stream, part)
        return batch

    def _make(self, index: int, stream: int, part: int) -> Batch:
        images, labels = self.batches.draw(index, stream, part)
        return self._pinned(images), None if labels is None else self._pinned(labels)

    def _pinned(self, values: Tensor) -> Tensor:
        # A generator makes its images on the device.
        return values.pin_memory() if self.pin and values.device.type == "cpu" else values


@contextlib.contextmanager
def prefetched(batches: Drawn, *, pin: bool) -> Iterator[PrefetchedBatches]:
    """Batches that are prepared by a thread, which ends with the context, however that ends."""
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        yield PrefetchedBatches(batches, pool, pin=pin)
    finally:
        pool.shutdown(cancel_futures=True)
