"""Micro-batches and processes: how many are needed, and whether all processes play the same game."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rivals.api.common.alike import check_alike
from rivals.base.devices import is_out_of_memory
from rivals.base.errors import UserError
from rivals.base.process_group import ProcessGroup

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.game import Game


def fit_micro_batches(batch_size: int, processes: ProcessGroup, play_round: Callable[[int], object]) -> int:
    """The least number of micro-batches that fits into memory.

    Args:
        batch_size: Images per step.
        processes: Those that share the micro-batches.
        play_round: Plays a round of so many micro-batches, in which all penalties are due.

    Raises:
        UserError: not even micro-batches of 2 images fit.
    """
    count = 1 << (processes.size - 1).bit_length()
    if batch_size % count or batch_size < 2 * count:
        raise UserError(
            f"a batch of {batch_size} cannot be cut into {count} micro-batch{'es' if count > 1 else ''} of 2 images or "
            f"more: give a --batch-size of {2 * count} times a whole number"
        )
    while batch_size % count == 0 and batch_size >= 2 * count:
        try:
            play_round(count)
            return count
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        count *= 2
    raise UserError(
        f"a batch of {batch_size} does not fit into memory, not even in {count // 2} micro-batches: give a "
        "--batch-size that is a power of two, or smaller widths"
    )


def check_share(processes: ProcessGroup, micro_batches: int) -> None:
    """Check that each process plays the same number of micro-batches.

    Raises:
        UserError: their number does not divide that of the micro-batches.
    """
    if micro_batches % processes.size:
        enough = 1 << (processes.size - 1).bit_length()
        fix = "add" if enough == processes.size else f"start {enough // 2} or {enough} processes and add"
        raise UserError(
            f"{processes.size} processes cannot share {micro_batches} micro-batch{'es' if micro_batches > 1 else ''} "
            f"equally: {fix} --micro-batches {enough}"
        )


def check_same_game(processes: ProcessGroup, game: Game, images: ImageSet, used: ImageSet) -> None:
    """Check that all processes play the same game.

    Args:
        processes: Those that play it.
        game: The game.
        images: As they were loaded.
        used: Those of them to train on.

    Raises:
        UserError: their code, images or initial weights differ.
    """
    if processes.size == 1:
        return
    from rivals.base.hashing import weights_hash

    weights = " ".join(weights_hash(player.net) for player in game.players.values())
    check_alike(processes, {"images": images.hash, "number of images": str(len(used)), "weights": weights})
