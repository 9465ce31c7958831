"""One run under way: a game in its folder, from the first sheet to the page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api import surroundings
from rivals.api.networks import keep
from rivals.base.errors import Interrupted, UserError
from rivals.base.spans import Span
from rivals.recipes import Config
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.game import Game
    from rivals.game.play import Moment

SHEETS = 40  # sample sheets over a run, if nothing else was asked for


def about(recipe: str, config: Config, source: Record, images: ImageSet, game: Game, seed: int) -> Record:
    """What ``run.json`` says of a new run."""
    from rivals.losses.gan import make_loss

    loss = make_loss(config.loss, config.smoothing)
    return {
        "verb": "train",
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
        "equilibrium": loss.equilibrium,
        "d_unit": loss.unit,
        "versions": surroundings.versions(),
        "hardware": surroundings.hardware(game.device),
        "git": surroundings.git_state(),
    }


@dataclass
class Session:
    """What a run is made of."""

    run: Run
    game: Game
    images: ImageSet
    config: Config
    seed: int
    quiet: bool

    def play(self, sheets: Span | None, saves: Span, *, resume: bool, rollback: bool) -> None:
        """Play the game; leave generator, page and the end's facts in the folder, however it ends.

        Raises:
            UserError: a value stopped being finite.
            Interrupted: the user asked to stop.
        """
        import torch

        from rivals.data.stream import Batches
        from rivals.game.checkpoint import Checkpoints
        from rivals.game.health import Health
        from rivals.game.interrupt import asked_to_stop
        from rivals.game.ledger import NonFinite
        from rivals.game.play import Interlude, Moment, Saving, play
        from rivals.reports.terminal import Live

        run, length = self.run, Span.parse(self.config.until)
        sheets = sheets or Span(length.amount / SHEETS, length.unit)
        health = Health(run.about["equilibrium"])
        checkpoints = Checkpoints(run.checkpoints)
        live = Live(length, len(self.images), quiet=self.quiet)
        with asked_to_stop() as stop, live:
            try:
                end = play(
                    self.game,
                    Batches(self.images, self.config.batch, seed=self.seed, flip=self.config.flip),
                    until=length,
                    seed=self.seed,
                    journal=run,
                    saving=Saving(checkpoints, saves, resume),
                    interludes=[Interlude(sheets, self._sheets())],
                    watch=health,
                    show=live,
                    stop=stop,
                    rollback=rollback,
                )
            except RuntimeError as error:
                # The CPU's allocator has no error of its own, only its words.
                if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                    raise
                raise UserError("there is not enough memory for this game: lower --batch or the widths") from None
            except NonFinite as error:
                tensors, facts = checkpoints.load()
                self.game.restore(tensors)
                self._finish(Moment(**facts["moment"]), health.active, "stopped", says=str(error))
                fix = "" if rollback else "go on with --resume and --on-nonfinite rollback, or "
                raise UserError(
                    f"{error}; the last good state, of step {facts['step']}, is kept: {fix}start anew with lower "
                    "learning rates"
                ) from None
            self._finish(end, health.active, "interrupted" if stop() else "finished")
        if stop():
            raise Interrupted(f"stopped and saved at {end.images:,} images: go on with --resume --out {run.folder}")

    def _sheets(self) -> Callable[[Moment], Iterator[Record]]:
        """What draws the sample sheet of a moment: the same latents each time, and their diversity."""
        import torch

        from rivals.metrics.diversity import Diversity
        from rivals.reports import sheet

        generator: Any = self.game.players["generator"].shown
        count = self.config.sheet
        latents = generator.latents(count, self.seed)
        labels = torch.arange(count) % generator.classes if generator.classes else None
        diversity = Diversity(self.images.images, count)

        def draw(moment: Moment) -> Iterator[Record]:
            drawn = generator.draw(latents, labels)
            path = self.run.samples / f"{moment.images:09d}.png"
            sheet.save_png(sheet.grid(drawn.numpy()), path)
            place = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
            yield place | {"sheet": f"samples/{path.name}", "diversity": diversity(drawn)}

        return draw

    def _finish(self, end: Moment, alarms: dict[str, Record], state: str, **facts: str) -> None:
        """Write down where the run ended, with its generator, its curves and its page."""
        from rivals.reports.curves import draw_curves
        from rivals.reports.page import write_report

        keep(
            self.game.players["generator"].shown,
            self.run.folder / "generator.safetensors",
            {
                "data": self.images.name,
                "classes": list(self.images.classes),
                "images": end.images,
                "seed": self.seed,
            },
        )
        self.run.update(
            state=state,
            images=end.images,
            step=end.step,
            epochs=round(end.epochs, 3),
            seconds=round(end.seconds, 1),
            alarms=[{key: alarm[key] for key in ("alarm", "says", "remedy")} for alarm in alarms.values()],
            **facts,
        )
        draw_curves(self.run)
        write_report([self.run], self.run.report)
