"""One evaluation, from the first look at the model to its page: alarms, the attack itself, the report."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api import surroundings
from rivals.api.orders import is_blind
from rivals.base.errors import Interrupted, UserError
from rivals.base.seeds import derive
from rivals.reports.run import Record, Run, foreign

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rivals.api.battery import Battery
    from rivals.api.models import Named
    from rivals.api.pool import Pool
    from rivals.attacks.ensemble import Part
    from rivals.attacks.frozen import Frozen
    from rivals.base.balls import Ball
    from rivals.metrics.masking import Alarm
    from rivals.metrics.robustness import Robustness, Tally

PROBES = 50  # images that the alarms look at
LOOKS = 10  # passes by which the judge decides on a randomised model, or as many as --eot if those are more
STEPS, DRAWS, QUERIES = 20, 20, 100  # budgets of the alarms' PGD, noise and square


@dataclasses.dataclass
class Examination:
    """One evaluation, with what it was asked."""

    model: nn.Module
    named: Named
    pool: Pool
    ball: Ball
    radii: list[float]
    parts: tuple[Part, ...]
    config: Record
    notes: list[str]
    note: Callable[[str], None]
    quiet: bool
    verb: str = "attack"

    def about(self, place: torch.device) -> Record:
        """What ``run.json`` says of a new run."""
        from rivals.api.models import fingerprint

        return {
            "verb": self.verb,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["rivals", *sys.argv[1:]]) if Path(sys.argv[0]).name == "rivals" else "",
            "seed": self.config["seed"],
            "device": str(place),
            "config": self.config,
            "data": self.pool.about,
            "model": {
                "name": self.named.name,
                "parameters": sum(weights.numel() for weights in self.model.parameters()),
                "hash": fingerprint(self.model),
                "mean": list(self.named.mean),
                "std": list(self.named.std),
            },
            "versions": surroundings.versions(),
            "hardware": surroundings.hardware(place),
            "git": surroundings.git_state(),
        }

    def resumed(self, folder: Path) -> Run:
        """The run to go on with.

        Raises:
            UserError: something else is asked now, or another verb made the run.
        """
        from rivals.api.models import fingerprint

        run = Run.open(folder)
        kept = run.about
        if kept.get("verb") != self.verb:
            raise foreign(folder, self.verb)
        for key, value in self.config.items():
            if key in kept["config"] and kept["config"][key] != value:
                raise UserError(
                    f"cannot resume with another {key}: it was {kept['config'][key]}, now {value}: leave it out, or "
                    "start anew"
                )
        if kept["data"]["hash"] != self.pool.about["hash"]:
            raise UserError(f"the images of '{self.config['data']}' have changed since: restore them to resume")
        if kept["model"]["hash"] != fingerprint(self.model):
            raise UserError(f"the weights of '{self.named.name}' have changed since: restore them to resume")
        return run

    def run(self, run: Run | None, place: torch.device) -> Robustness:
        """Everything from the first look at the model to the page."""
        import torch

        from rivals.api.battery import Battery, terminable
        from rivals.api.trophies import Trophies
        from rivals.attacks.checks import check_classes
        from rivals.attacks.frozen import freeze
        from rivals.metrics.robustness import Tally
        from rivals.nets.wrapped import Averaged
        from rivals.reports.progress import LiveAttack

        seed, pool = self.config["seed"], self.pool
        kept, seconds = self._kept(run)
        tally = Tally(pool.labels, self.radii)
        attacked = Averaged(self.model, self.config["eot"]) if self.config["eot"] > 1 else self.model
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        sample = pool.take(_first(pool, 2)).to(place, dtype)
        trophies = Trophies(None if run is None else run.folder, self.config["save"], pool.order, pool.labels)
        trophies.resume(max(kept, default=0))
        with warnings.catch_warnings(record=True) as heard, explained(sample), contextlib.ExitStack() as stack:
            warnings.simplefilter("always")
            judge = stack.enter_context(freeze(self.model, sample, fold=False, channels_last=False))
            frozen = stack.enter_context(freeze(attacked, sample, compiled=self.config["compiled"]))
            check_classes(torch.from_numpy(pool.labels), judge.classes)
            if pool.classes and len(pool.classes) != judge.classes:
                raise UserError(
                    f"the model tells {judge.classes} classes apart and '{pool.about['name']}' has "
                    f"{len(pool.classes)}: give it the data it was made for"
                )
            live = stack.enter_context(LiveAttack(len(pool), lambda: frozen.forwards, quiet=self.quiet))
            battery = Battery(
                *(pool, judge, frozen, self.ball, self.radii, self.parts, seed, self.config["batch_size"]),
                draws=self._looks(judge, sample),
                run=run,
                trophies=trophies,
                show=live,
                dtype=dtype,
                device=place,
            )
            probe = kept.pop(0, None)
            if probe is None:
                probe = self._probe(battery, [str(each.message) for each in heard])
                if run is not None:
                    run.append([probe])
            else:
                for text in probe["notes"]:
                    self.note(text)
            if probe["blind"]:
                battery.parts = blind_only(self.parts)
            for alarm in probe["alarms"]:
                live.say(f"{alarm['says']}: {alarm['remedy']}")
            if run is not None:
                run.update(state="running")
            try:
                with terminable():
                    battery.play(tally, kept, seconds)
            except KeyboardInterrupt:
                if run is None:
                    raise
                self._finish(run, battery, tally, probe, "interrupted")
                raise Interrupted(
                    f"stopped and saved after {tally.done:,} of {len(pool):,} images: go on with --resume --out "
                    f"{run.folder}"
                ) from None
            return self._finish(run, battery, tally, probe, "finished")

    def _kept(self, run: Run | None) -> tuple[dict[int, Record], float]:
        """The records of an earlier part of the run by step, the probes' under 0, and the time it took."""
        if run is None:
            return {}, 0.0
        records = {record["step"]: record for record in run.records() if "part" in record or "probe" in record}
        whole = 0
        while whole + 1 in records:
            whole += 1
        if 0 not in records:
            records = {}
        run.rewind(whole if records else -1)
        kept = {step: record for step, record in records.items() if step <= whole}
        return kept, max((record["seconds"] for record in kept.values()), default=0.0)

    def _looks(self, judge: Frozen, sample: Tensor) -> int:
        """How often the judge is to look: often if two passes of the same images differ."""
        import torch

        from rivals.attacks.streams import own_randomness

        answers = []
        for turn in ("first", "second"):
            with own_randomness(derive(self.config["seed"], turn), sample.device):
                answers.append(judge.logits(sample))
        if torch.allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5):
            if self.config["eot"] > 1:
                self.note(f"the model is not randomised: --eot {self.config['eot']} only costs time")
            return 1
        looks = max(LOOKS, int(self.config["eot"]))
        eot = self.config["eot"]
        how = f"attacked by the mean of {eot} draws" if eot > 1 else "attacked one draw at a time"
        self.note(f"the model is randomised: {how}, and judged by the class that most of {looks} passes say")
        return looks

    def _probe(self, battery: Battery, heard: Sequence[str]) -> Record:
        """What a few images tell of the model's gradients, before the attack begins."""
        from rivals.metrics import masking

        known = len(self.notes)
        chunk = battery.read(0, min(PROBES, len(self.pool)))
        right = (chunk.said == chunk.y).nonzero()[:, 0]
        x, y = chunk.x[right], chunk.y[right]
        record: Record = {"images": 0, "step": 0, "seconds": 0.0, "probe": {"n": len(x)}, "blind": False}
        found: list[Alarm] = []
        gradient = self._gradient(battery, x, y) if len(x) else None
        if not len(x):
            self.note("none of the first images is classified rightly, so the alarms have nothing to look at")
        elif gradient is None:
            found.append(masking.Alarm("no-gradient", "the model gives no gradient for its images at all"))
            record["blind"] = True
        elif bool(masking.without_direction(gradient).all()):
            record["blind"] = True
        if record["blind"]:
            names = ", ".join(part.name for part in blind_only(self.parts))
            self.note(f"no image has a gradient to follow, so only what needs none is used: {names}")
        if gradient is not None and self.config["alarms"]:
            signs = self._signs(battery, x, y, gradient)
            record["probe"] = signs.as_dict()
            found += masking.read(signs)
        if battery.draws > 1 and self.config["eot"] == 1:
            found.append(masking.Alarm("randomised", "the model is randomised: two passes of one image differ"))
        if any("probabilities" in text for text in heard):
            found.append(masking.Alarm("probabilities", "the model answers with probabilities, not logits"))
        # What was heard counts even if no looking was asked for: it costs nothing.
        record["alarms"] = [alarm.as_dict() for alarm in found]
        record["notes"] = self.notes[known:]
        return record

    def _gradient(self, battery: Battery, x: Tensor, y: Tensor) -> Tensor | None:
        """Of the cross-entropy at the images; None if the model has none to give."""
        import torch

        from rivals.attacks.objectives import cross_entropy
        from rivals.attacks.streams import own_randomness

        found = []
        try:
            with own_randomness(self.config["seed"], x.device):
                for some, labels in zip(
                    torch.split(x, battery.batch_size), torch.split(y, battery.batch_size), strict=True
                ):
                    leaf, logits = battery.frozen.trace(some)
                    with torch.enable_grad():
                        values = cross_entropy(logits, labels)
                    found.append(battery.frozen.gradient(values, leaf))
        except UserError as error:
            if "gradient" not in str(error):
                raise
            return None
        return torch.cat(found)

    def _signs(self, battery: Battery, x: Tensor, y: Tensor, gradient: Tensor) -> Any:
        from rivals.attacks.ensemble import ATTACKS
        from rivals.attacks.streams import own_randomness
        from rivals.metrics import masking
        from rivals.metrics.robustness import predict

        shared = {"seed": self.config["seed"], "batch_size": battery.batch_size}
        budgets: dict[str, tuple[str, dict[str, int]]] = {
            masking.STEPS: ("pgd", {"steps": STEPS}),
            masking.ONE: ("fgsm", {}),
            masking.NOISE: ("noise", {"trials": DRAWS}),
            masking.BLIND: ("square", {"queries": QUERIES}),
        }
        attacks = {
            role: partial(ATTACKS[name], battery.frozen, **knobs, **shared)
            for role, (name, knobs) in budgets.items()
            if name != "square" or x.ndim == 4
        }

        def judge(x_adv: Tensor, labels: Tensor) -> Tensor:
            with own_randomness(derive(self.config["seed"], "probe"), x.device):
                said, _ = predict(battery.judge.logits, x_adv, batch_size=battery.batch_size, draws=battery.draws)
            return said != labels

        ball = self.ball.sized(_scalar(self.radii[-1], x))
        return masking.look(x, y, ball, attacks, judge, gradient)

    def _finish(self, run: Run | None, battery: Battery, tally: Tally, probe: Record, state: str) -> Robustness:
        """The report; in a run folder also on its page, with the adversarial images in one file."""
        from rivals.metrics import masking

        alarms = list(probe["alarms"])
        felled = {True: 0, False: 0}
        for part in battery.parts:
            if part.name in tally.parts:
                felled[is_blind(part)] += tally.parts[part.name].felled
        if self.config["alarms"] and not all(is_blind(part) for part in battery.parts):
            late = masking.blind_parts_beat(felled[True], felled[False], tally.done)
            names = {alarm["alarm"] for alarm in alarms}
            alarms += [alarm.as_dict() for alarm in late if alarm.alarm not in names]
        lost = sum(count.unverified for count in tally.parts.values())
        if lost:
            self.note(f"{lost:,} successes that an attack claimed were not confirmed, and do not count")
        if state == "interrupted":
            self.notes.append(
                f"interrupted: these numbers are of the first {tally.done:,} of {len(self.pool):,} images"
            )
        records = [] if run is None else [record["seconds"] for record in run.records() if "seconds" in record]
        spent = max(records, default=sum(count.seconds for count in tally.parts.values()))
        report = tally.report(
            self.pool.classes,
            alarms=alarms,
            notes=list(dict.fromkeys(self.notes)),
            protocol=self._protocol(battery),
            seconds=spent,
        )
        if run is None:
            return report
        from rivals.reports.page import write_report

        saved = battery.trophies.merge() if state == "finished" else None
        last = max((record["step"] for record in run.records()), default=0)
        run.update(
            state=state,
            images=tally.done,
            step=last,
            seconds=round(spent, 1),
            alarms=alarms,
            results=report.as_dict(),
            adversarial=saved.name if saved is not None else None,
        )
        if state == "finished":
            battery.trophies.clear()
        write_report([run], run.report)
        return dataclasses.replace(report, run=str(run.folder))

    def _protocol(self, battery: Battery) -> Record:
        """How the numbers were made."""
        return {
            "attack": self.config["attack"],
            "parts": [part.name for part in battery.parts],
            "norm": type(self.ball).__name__,
            "eps": self.radii,
            "bounds": list(self.ball.bounds),
            "seed": self.config["seed"],
            "model": self.named.name,
            "data": self.pool.about["name"],
            "split": self.pool.about.get("split"),
            "hash": self.pool.about["hash"],
            "of": self.pool.about["of"],
            "batch_size": battery.batch_size,
            "device": str(battery.device),
            "dtype": str(battery.dtype).removeprefix("torch."),
            "folded": battery.frozen.folded,
            "eot": self.config["eot"],
            "looks": battery.draws,
            "alarms": self.config["alarms"],
            "versions": surroundings.versions(),
        }


@contextlib.contextmanager
def explained(sample: Tensor) -> Iterator[None]:
    """One line for what a model says of images that it was not made for, and for too little memory."""
    import torch

    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise UserError("there is not enough memory for this batch: lower --batch-size") from None
        shaped = ("shape", "size", "channels", "dimension", "expected")
        if not any(word in str(error).lower() for word in shaped):
            raise
        shape = " x ".join(map(str, sample.shape[1:]))
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the model cannot take images of {shape} ({reason}): give images of the size and channels it was "
            "made for, as by --size"
        ) from error


def blind_only(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Of an ensemble the parts that need no gradient; square, if it has none."""
    from rivals.attacks.ensemble import ATTACKS, Part

    return tuple(part for part in parts if is_blind(part)) or (Part("square", ATTACKS["square"]),)


def _scalar(eps: float, x: Tensor) -> Tensor:
    import torch

    return torch.tensor(eps, dtype=x.dtype, device=x.device)


def _first(pool: Any, count: int) -> Any:
    import numpy as np

    return np.arange(min(count, len(pool)))
