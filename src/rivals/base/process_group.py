"""The processes that play one run together, and everything that they tell each other.

What a step makes is the mean over its micro-batches by one binary tree of a fixed shape. A process sums a subtree, then
the processes sum the rest in pairs. So 1, 2, 4, ... processes get the same bits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class ProcessGroup:
    """The processes of a run. One alone takes the same path: what it is told is what it said.

    Attributes:
        rank: Of this process; the first, 0, writes the run.
        size: Number of processes.
        reduction: How they average: ``tree``, the same bits for any number of processes, or ``ring``, faster.
        remedy: What to do after a process was lost, the end of the error's line.
        patience: Seconds that a process waits for another one that does not move.
    """

    rank = 0
    size = 1
    reduction = "tree"
    remedy = "start again"
    patience = math.inf

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

        total = self._sum_over_processes(tree_sum(parts))
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

    def beat(self) -> None:
        """Tell the others that this process makes progress, so that they go on waiting for it. Cheap.

        Raises:
            KeyboardInterrupt: another process was told to :meth:`stop`.
            UserError: another process has failed.
            ProcessLost: the same, by an error that the user cannot fix.
        """

    def stop(self) -> None:
        """Let the others stop too, amid the pieces that are handed out, since this process was told to."""

    @contextlib.contextmanager
    def together(self, *, patient: bool = False, fatal: bool = False) -> Iterator[None]:
        """What is done inside, all processes do, or none goes on: see :meth:`agree`.

        Args:
            patient: Wait for the slowest process as long as it beats.
            fatal: An error ends the group: the others learn of it while they are inside, which may take hours.
        """
        failure = None
        try:
            yield
        except Exception as error:
            failure = error
        if fatal and failure is not None:
            self.tell(failure)
            raise failure
        if patient:
            self.gather(None)
        self.agree(error=failure)

    @contextlib.contextmanager
    def one_per_node_first(self) -> Iterator[None]:
        """What is done inside, as :meth:`together`, the first process of each machine does before the others there.

        It may leave something for them, such as a cache.
        """
        yield

    @contextlib.contextmanager
    def outlast_first(self, *, patient: bool = True, common: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Leave what is inside no earlier than the first process does.

        Launchers stop all processes as soon as one has failed, and the first may still be writing. But a process that
        fails by itself tells the others, which wait for it in vain, and leaves: each of them raises its error when it
        finds the contact gone.

        Args:
            patient: Wait for the first however long it takes, not only as long as it beats.
            common: Errors that all processes raise together, besides those of :meth:`agree`.
        """
        yield

    def tell(self, error: Exception) -> None:
        """Tell the others the error by which this process ends, unless all have it."""

    def leave(self) -> None:
        """Say farewell at the end of a process."""

    def share(self, value: Any) -> Any:
        """What the first process passes, in all processes: anything that JSON can hold. Waits as long as it beats."""
        return value

    def share_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the first process passes, in all processes."""
        return tensors

    def gather(self, value: Any) -> list[Any]:
        """What each process passes, by rank: anything that JSON can hold. Waits as long as they beat."""
        return [value]

    def hand_out(self, count: int) -> Iterator[int]:
        """Those of ``count`` pieces of work that this process takes, in order: each the next one that is left."""
        yield from range(count)

    def compute(
        self, count: int, make: Callable[[int], list[Tensor]], *, everywhere: bool = True
    ) -> list[list[Tensor]]:
        """What ``make`` makes of the numbers 0 to ``count - 1``, in order: tensors on the CPU.

        Each number is taken by the next process that is free.

        Args:
            count: Number of pieces of work.
            make: Makes one piece, the same in any process.
            everywhere: Whether all processes need the tensors; else only the first gets them, and the others nothing.

        Raises:
            Exception: what ``make`` raises here.
            UserError: what it raises in another process.
            ProcessLost: another process died, or did not make a piece in time.
        """
        return [make(piece) for piece in range(count)]


ALONE = ProcessGroup()


def tree_sum(parts: Iterable[list[Tensor]]) -> list[Tensor]:
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
