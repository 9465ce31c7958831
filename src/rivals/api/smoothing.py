"""A certification under way: image by image, each certified, attacked and written down before the next."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.api import surroundings
from rivals.api.battery import terminable
from rivals.api.examination import Examination, explained
from rivals.attacks.checks import check_classes
from rivals.attacks.frozen import Frozen, freeze
from rivals.attacks.steps import pgd
from rivals.attacks.streams import own_randomness
from rivals.base.errors import Interrupted, UserError
from rivals.base.seeds import streams
from rivals.metrics.bracket import Bracket, bracket
from rivals.metrics.certification import ABSTAINS, certify, outvoted, radius, votes
from rivals.nets.wrapped import Smoothed
from rivals.reports.progress import LiveAttack
from rivals.reports.run import Record, Run

LOOKS = 500  # fresh draws by which a fall is confirmed


class Certification:
    """What was asked, and the loop over its images.

    An image is certified first. Where that falls short of a radius, and no smaller one has felled it, PGD on the mean
    probabilities under a few draws looks for a point there; what it claims counts if fresh draws confirm it.

    Args:
        asked: The model, the images, the radii and all knobs.
        run: Where images are written down, or None.
        place: Where to work.
    """

    def __init__(self, asked: Examination, run: Run | None, place: torch.device) -> None:
        self.asked = asked
        self.pool = asked.pool
        self.config = asked.config
        self.run = run
        self.place = place
        self.attackable = bool(self.config["upper"])
        self.folded = False

    def play(self) -> Bracket:
        """All images that are not done yet, and the report."""
        pool, run = self.pool, self.run
        records = self._kept()
        spent = max((record["seconds"] for record in records), default=0.0)
        dtype = next((p.dtype for p in self.asked.model.parameters() if p.is_floating_point()), torch.float32)
        sample = pool.take(np.arange(min(2, len(pool)))).to(self.place, dtype)
        with self._ready(sample) as (judge, smoothed), self._live(judge, smoothed) as live:
            if run is not None:
                run.update(state="running")
            begun = time.perf_counter() - spent
            fallen = sum(record["fell"] is not None for record in records)
            try:
                with terminable():
                    for i in range(len(records), len(pool)):
                        x = pool.take(np.arange(i, i + 1)).to(self.place, dtype)
                        found = self._image(judge, smoothed, x, int(pool.labels[i]))
                        seconds = round(time.perf_counter() - begun, 3)
                        record = {"images": i + 1, "step": i + 1, "seconds": seconds, **found}
                        if run is not None:
                            run.append([record])
                        records.append(record)
                        fallen += record["fell"] is not None
                        told = f"radius {record['radius']:.3f}" if record["radius"] else "abstained"
                        live({**record, "fallen": fallen, "part": told, "eps": 0})
            except KeyboardInterrupt:
                if run is None:
                    raise
                done = self._finish(self._kept(), "interrupted").n
                raise Interrupted(
                    f"stopped and saved after {done:,} of {len(pool):,} images: go on with --resume --out {run.folder}"
                ) from None
        return self._finish(records, "finished")

    @contextlib.contextmanager
    def _ready(self, sample: Tensor) -> Iterator[tuple[Frozen, Frozen]]:
        """The model as it was given, which alone is certified and judges, and smoothed, to be attacked."""
        config = self.config
        with warnings.catch_warnings(), explained(sample), contextlib.ExitStack() as stack:
            # Only the order of a row's answers counts here, and that probabilities share with logits.
            warnings.filterwarnings("ignore", message=".*probabilities, not logits")
            try:
                judge = stack.enter_context(freeze(self.asked.model, sample, fold=False))
                inner = stack.enter_context(freeze(self.asked.model, sample))
                smooth = Smoothed(inner.run, config["sigma"], config["draws"], config["seed"])
                smoothed = stack.enter_context(freeze(smooth, sample, fold=False))
            except (UserError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever the model's own forward raises
                reason = (str(error).strip() or "no reason given").splitlines()[0]
                shape = " x ".join(map(str, sample.shape[1:]))
                raise UserError(
                    f"the model fails on images of {shape} ({type(error).__name__}: {reason}): give images that it "
                    "was made for, or mend its forward"
                ) from error
            self._check_classes(judge)
            self.folded = inner.folded
            if self.attackable:
                self._check_gradient(smoothed, sample)
            yield judge, smoothed

    def _check_classes(self, judge: Frozen) -> None:
        check_classes(torch.from_numpy(self.pool.labels), judge.classes)
        if self.pool.classes and len(self.pool.classes) != judge.classes:
            raise UserError(
                f"the model tells {judge.classes} classes apart and '{self.pool.about['name']}' has "
                f"{len(self.pool.classes)}: give it the data it was made for"
            )

    def _check_gradient(self, smoothed: Frozen, sample: Tensor) -> None:
        """A model without a gradient is certified all the same."""
        try:
            leaf, logits = smoothed.trace(sample[:1])
            smoothed.gradient(logits[:, 0], leaf)
        except UserError as error:
            if "gradient" not in str(error):
                raise
            self.attackable = False
            self.asked.note("the model gives no gradient, so nothing is attacked: the upper curve is that of radius 0")

    def _live(self, judge: Frozen, smoothed: Frozen) -> LiveAttack:
        draws = int(self.config["draws"])
        return LiveAttack(
            len(self.pool),
            lambda: judge.forwards + draws * smoothed.forwards,
            quiet=self.asked.quiet,
            first="asking about the first image",
        )

    def _image(self, judge: Frozen, smoothed: Frozen, x: Tensor, truth: int) -> Record:
        """Certificate and fall of one image (1, ...)."""
        config = self.config
        (own,) = streams(x, [0], config["seed"], "model")
        with own_randomness(own.initial_seed(), self.place):
            (found,) = certify(
                *(judge.logits, x, config["sigma"]),
                guesses=config["guesses"],
                samples=config["samples"],
                alpha=config["alpha"],
                seed=config["seed"],
                batch_size=config["batch_size"],
            )
            reach = found.radius if found.label == truth else -1.0
            fell = self._fall(judge, smoothed, x, truth, found.label, reach) if config["upper"] else None
        return {"truth": truth, "label": found.label, "radius": found.radius, "fell": fell}

    def _fall(self, judge: Frozen, smoothed: Frozen, x: Tensor, truth: int, label: int, reach: float) -> float | None:
        """The smallest radius at which the smoothed classifier is seen to be wrong; None if there is none."""
        if label not in (truth, ABSTAINS):
            return 0.0  # certainly
        for level, eps in enumerate(self.asked.radii):
            if eps <= reach:
                continue  # certainly not
            x_adv = self._attack(smoothed, x, truth, eps) if level and self.attackable else None if level else x
            if x_adv is not None and self._outvoted(judge, x, x_adv, truth, level):
                return eps
        return None

    def _attack(self, smoothed: Frozen, x: Tensor, truth: int, eps: float) -> Tensor | None:
        """Where the smoothed classifier looks most wrong at this radius; None if it looks right everywhere."""
        y = torch.tensor([truth], device=self.place)
        ball = self.asked.ball.sized(torch.tensor(eps, dtype=x.dtype))
        # It climbs on where the mean is wrong already: the vote of other draws has to be lost as well, and clearly.
        knobs: dict[str, Any] = {"seed": self.config["seed"], "batch_size": 1, "stop_when_fooled": False}
        x_adv = pgd(smoothed, x, y, ball, steps=self.config["steps"], random_start=False, **knobs)
        wrong = bool(smoothed.logits(x_adv).argmax(1) != y)
        return x_adv if wrong and bool(x_adv.isfinite().all()) and bool(ball.contains(x_adv, x)) else None

    def _outvoted(self, judge: Frozen, x: Tensor, x_adv: Tensor, truth: int, level: int) -> bool:
        (generator,) = streams(x, [level], self.config["seed"], "looks")
        tally = votes(
            *(judge.logits, x_adv[0], self.config["sigma"], LOOKS, generator), batch_size=self.config["batch_size"]
        )
        return outvoted(tally, truth, self.config["alpha"])

    def _kept(self) -> list[Record]:
        """The records of images that are done, from the first on; what comes after a gap is dropped."""
        if self.run is None:
            return []
        records = {record["step"]: record for record in self.run.records() if "truth" in record}
        whole = 0
        while whole + 1 in records:
            whole += 1
        self.run.rewind(whole)
        return [records[step] for step in range(1, whole + 1)]

    def _finish(self, records: list[Record], state: str) -> Bracket:
        """The report; in a run folder also on its page."""
        config, notes = self.config, list(self.asked.notes)
        if state == "interrupted":
            notes.append(f"interrupted: these numbers are of the first {len(records):,} of {len(self.pool):,} images")
        seconds = max((record["seconds"] for record in records), default=0.0)
        report = bracket(
            *(records, self.asked.radii),
            upper=config["upper"],
            largest=radius(config["samples"], config["samples"], config["sigma"], config["alpha"]),
            notes=list(dict.fromkeys(notes)),
            protocol=self._protocol(),
            seconds=seconds,
        )
        if self.run is None:
            return report
        from rivals.reports.page import write_report

        done = len(records)
        self.run.update(
            state=state, images=done, step=done, seconds=round(seconds, 1), alarms=[], results=report.as_dict()
        )
        write_report([self.run], self.run.report)
        return dataclasses.replace(report, run=str(self.run.folder))

    def _protocol(self) -> Record:
        """How the numbers were made."""
        told = ("sigma", "samples", "guesses", "alpha", "upper", "draws", "steps", "seed", "batch_size")
        about = self.pool.about
        return {
            **{key: self.config[key] for key in told},
            "looks": LOOKS,
            "norm": "L2",
            "radii": self.asked.radii,
            "model": self.asked.named.name,
            "data": about["name"],
            "split": about.get("split"),
            "hash": about["hash"],
            "of": about["of"],
            "device": str(self.place),
            "folded": self.folded,
            "versions": surroundings.versions(),
        }
