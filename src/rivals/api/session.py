"""One run under way: a game in its folder, from the first round to the page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api import surroundings
from rivals.api.networks import keep
from rivals.base import devices
from rivals.base.errors import Interrupted, UserError
from rivals.base.spans import Span
from rivals.recipes import ClassifierConfig, Config
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    from torch import nn

    from rivals.data.imageset import ImageSet
    from rivals.game.best import Best
    from rivals.game.checkpoint import Checkpoints
    from rivals.game.game import Batches, Game
    from rivals.game.guard import Guard
    from rivals.game.health import Health
    from rivals.game.play import Interlude, Moment
    from rivals.reports.terminal import Live


def about(
    verb: str,
    recipe: str,
    config: Config | ClassifierConfig,
    source: Record,
    images: ImageSet,
    game: Game,
    seed: int,
    **facts: Any,
) -> Record:
    """What ``run.json`` says of a new run: what every verb's has, and the ``facts`` of this one."""
    return {
        "verb": verb,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["rivals", *sys.argv[1:]]) if Path(sys.argv[0]).name == "rivals" else "",
        "seed": seed,
        "device": str(game.device),
        "recipe": recipe,
        "config": config.written(),
        "data": {
            "name": images.name,
            "split": images.split,
            "n": len(images),
            "size": images.size,
            "channels": images.channels,
            "classes": list(images.classes),
            "hash": images.hash,
            "source": source,
        },
        "players": {
            name: {"net": config.net, "parameters": sum(w.numel() for w in player.net.parameters())}
            for name, player in game.players.items()
        },
        **facts,
        "versions": surroundings.versions(),
        "hardware": surroundings.hardware(game.device),
        "git": surroundings.git_state(),
    }


@dataclass
class Session:
    """What a run is made of.

    Attributes:
        run: Its folder.
        game: The players and their turns.
        batches: What they play on.
        until: How long.
        seed: What all randomness follows from.
        keeps: The player whose network is kept at the end, as ``PLAYER.safetensors``.
        kept: What is written beside it.
        interludes: What is done between rounds.
        watch: What raises alarms, if anything does.
        quiet: Print nothing on the way.
        best: The best state so far, to end with; the last one if none is kept.
        last: What is measured of the network that is kept, once the game is over; it says what it found.
        drawn: What is drawn of the network that is kept, however the game ended.
    """

    run: Run
    game: Game
    batches: Batches
    until: Span
    seed: int
    keeps: str
    kept: Record
    interludes: Sequence[Interlude]
    watch: Health | Guard | Best | None
    quiet: bool
    best: Checkpoints | None = None
    last: Callable[[nn.Module], str] | None = None
    drawn: Callable[[nn.Module, Moment], None] | None = None

    def play(self, saves: Span, *, resume: bool, rollback: bool) -> None:
        """Play the game; leave the network, the page and the end's facts in the folder, however it ends.

        Raises:
            UserError: the game went wrong, and could not go back or was not to.
            Interrupted: the user asked to stop.
        """
        from rivals.game.checkpoint import Checkpoints
        from rivals.game.interrupt import asked_to_stop
        from rivals.game.ledger import Setback
        from rivals.game.play import Moment, Saving, play
        from rivals.reports.terminal import Live

        run = self.run
        checkpoints = Checkpoints(run.checkpoints)
        live = Live(self.until, self.batches.n, quiet=self.quiet)
        with asked_to_stop() as stop, live, devices.enough_memory():
            try:
                end = play(
                    self.game,
                    self.batches,
                    until=self.until,
                    seed=self.seed,
                    journal=run,
                    saving=Saving(checkpoints, saves, resume),
                    interludes=self.interludes,
                    watch=self.watch,
                    show=live,
                    stop=stop,
                    rollback=rollback,
                )
            except Setback as error:
                tensors, facts = checkpoints.load()
                self.game.restore(tensors)
                end = Moment(**facts["moment"])
                self._keep(end)
                self._finish(end, "stopped", says=str(error))
                fix = "" if rollback else "go on with --resume and --on-nonfinite rollback, or "
                raise UserError(
                    f"{error}; the last good state, of step {facts['step']}, is kept: {fix}start anew with lower "
                    "learning rates"
                ) from None
            self._keep(end)
            stopped = stop() or not self._measure(live, end) or stop()
            self._finish(end, "interrupted" if stopped else "finished")
        if stopped:
            raise Interrupted(f"stopped and saved at {end.images:,} images: go on with --resume --out {run.folder}")

    def _keep(self, end: Moment) -> None:
        """Write the network that the run is for: the best there was, or the last."""
        kept = {**self.kept, "images": end.images, "seed": self.seed}
        if self.best is not None and self.best.paths():
            tensors, told = self.best.load()
            self.game.restore(tensors)
            kept |= {"images": told["moment"]["images"], "step": told["step"]}
        network = self.game.players[self.keeps].shown
        keep(network, self.run.folder / f"{self.keeps}.safetensors", kept)
        if self.drawn is not None:
            self.drawn(network, end)

    def _measure(self, live: Live, end: Moment) -> bool:
        """What is measured last; False if the user broke it off."""
        if self.last is None:
            return True
        try:
            says = self.last(self.game.players[self.keeps].shown)
        except KeyboardInterrupt:  # the attack inside listens to signals itself
            return False
        live({"images": end.images, "says": says})
        return True

    def _finish(self, end: Moment, state: str, **facts: str) -> None:
        """Write down where the run ended, with its curves and its page."""
        from rivals.reports.curves import draw_curves
        from rivals.reports.page import write_report

        active = {} if self.watch is None else self.watch.active
        self.run.update(
            state=state,
            images=end.images,
            step=end.step,
            epochs=round(end.epochs, 3),
            seconds=round(end.seconds, 1),
            alarms=[{key: alarm[key] for key in ("alarm", "says", "remedy")} for alarm in active.values()],
            **facts,
        )
        draw_curves(self.run)
        write_report([self.run], self.run.report)
