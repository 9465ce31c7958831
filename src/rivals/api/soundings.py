"""The measures behind ``equilibrium``: what a game's players answer and draw, and what either could still gain."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals import recipes
from rivals.api.assemble import build_game
from rivals.api.equilibrium import LEAST
from rivals.api.judging import Jury, answers, draws, hold_aside, levels, pixel_entropy, seen
from rivals.api.models import find_model
from rivals.api.networks import load
from rivals.api.sources import images_of, unchanged
from rivals.base import devices, seeds
from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.base.schedules import Schedule
from rivals.base.spans import Span
from rivals.data.holdout import chosen
from rivals.data.load import to_stderr
from rivals.data.stream import Batches
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game
from rivals.game.ledger import Setback
from rivals.game.play import Interlude, Moment, play
from rivals.game.players import Player, adam
from rivals.losses.gan import GanLoss, make_loss
from rivals.metrics import equilibrium as measure
from rivals.metrics.modes import label_entropy
from rivals.reports import sheet
from rivals.reports.page import write_report
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet

FILE = "equilibrium.json"
LOOKS = 10  # at a player that learns on alone, to keep its best state


@dataclass(frozen=True)
class Hall:
    """A game as it stood at its last checkpoint, the generator that it left, and images that nobody has learnt from."""

    run: Run
    config: recipes.Config
    loss: GanLoss
    game: Game
    finished: Any
    images: ImageSet
    held: ImageSet
    seed: int
    steps: int

    @property
    def seen(self) -> int:
        """Images that the game has seen."""
        return int(self.run.about.get("images", 0))

    def protocol(self, n: int, **facts: Any) -> Record:
        """What every value is told with."""
        return {"n_real": n, "n_fake": n, "split": f"{self.held.name} {self.held.split}", "seed": self.seed, **facts}


def sound(
    run: Run, steps: int, n: int, real: str | None, classifier: str | None, seed: int, device: str, quiet: bool
) -> Record:
    """Measure, write ``equilibrium.json`` into the run, and its report anew."""
    say = (lambda text: None) if quiet else to_stderr
    hall = _hall(run, steps, n, real, seed, device, quiet)
    values = _as_played(hall)
    say(f"a fresh discriminator learns for {steps} steps")
    values += _fresh(hall)
    say(f"each player learns on alone for {steps} steps")
    values.append(_gap(hall))
    values += _pixels(hall)
    along: list[Record] = []
    if classifier is not None:
        told, along = _classes(hall, classifier)
        values += told
    found: Record = {"run": str(run.folder), "images": hall.seen, "values": values, "along": along}
    write_atomically(run.folder / FILE, json.dumps(found, indent=2).encode() + b"\n")
    write_report([run], run.report)
    return found


def _hall(run: Run, steps: int, n: int, real: str | None, seed: int, device: str, quiet: bool) -> Hall:
    """The game as it stood at the last checkpoint, and images to judge it by."""
    about = run.about
    if about.get("verb") != "train":
        raise UserError(f"'{run.folder}' is no run of 'rivals train', so there is no game in it: name one that is")
    config = recipes.Config().changed(**about["config"])
    source = about["data"]["source"]
    whole = images_of(source, quiet)
    unchanged(about, whole)
    images, held = hold_aside(whole, source, config.hold_out, about["seed"], quiet)
    if real is not None:
        held = images_of({**source, "data": real}, quiet)
    if held is None:
        raise UserError(
            f"all images of '{images.name}' were learnt from, and those prove nothing: name others by --real, or train "
            "with --hold-out 500"
        )
    shapes = held.images.shape[1:], images.images.shape[1:]
    if shapes[0] != shapes[1]:
        raise UserError(f"the images of '{held.name}' are {shapes[0]}, the run's {shapes[1]}: give such images")
    if len(held) < LEAST:
        raise UserError(f"'{held.name}' has {len(held)} images to judge by, too few: give {LEAST} or more")
    if config.conditional and (held.labels is None or held.classes != images.classes):
        raise UserError(f"the run knows classes, and '{held.name}' has not the same ones: give images of those classes")
    order = np.random.default_rng(seeds.derive(seed, "judge by")).permutation(len(held))
    held = chosen(held, order[:n])  # mixed, as halves of them are to be alike
    shape = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    game = build_game(config, **shape, device=devices.pick(device), seed=about["seed"])
    tensors, _ = Checkpoints(run.checkpoints).load()
    game.restore(tensors)
    loss = make_loss(config.loss, config.smoothing)
    # That may be an earlier one, if the best was kept; a run that was killed has left none yet.
    left = (run.folder / "generator.safetensors").exists()
    finished = load(run.folder, device=str(game.device)) if left else game.players["generator"].shown
    return Hall(run, config, loss, game, finished, images, held, seed, steps)


def _value(name: str, found: measure.Estimate | float, protocol: Record, **facts: Any) -> Record:
    told = found.as_dict() if isinstance(found, measure.Estimate) else {"value": found, "low": None, "high": None}
    return {"name": name, **told, **facts, **protocol}


def _as_played(hall: Hall) -> list[Record]:
    """What the discriminator of the game tells of its rival's images: no learning, no budget."""
    player, rival = hall.game.players["discriminator"], hall.game.players["generator"]
    jury = Jury(rival.net, hall.images, hall.held, len(hall.held), hall.seed)
    train, real, fake = jury.ask(player.net, rival.net)
    protocol = hall.protocol(len(real), generator="as it plays", discriminator="as it plays", budget="")
    n_train = {"n_train": len(train)}
    values = []
    if hall.loss.unit == "probability":
        values += [
            _value("D's loss", measure.cross_entropy_loss(real, fake), protocol, unit="nats", draw=2 * np.log(2)),
            _value("JSD bound", measure.jsd_bound(real, fake), protocol, unit="nats", draw=0.0),
        ]
    level = levels(hall.loss)
    if level is not None:
        told = measure.accuracy(real, fake, level)
        values += [
            _value("accuracy", told, protocol, unit="share", draw=0.5),
            _value("TV bound", measure.tv_bound(told), protocol, unit="share", draw=0.0),
            _value("r_t", measure.sureness(train, level), protocol | n_train, unit="", draw=0.0),
        ]
    values.append(_value("r_v", measure.overfitting(train, real, fake), protocol | n_train, unit="", draw=None))
    protocol |= {"discriminator": "as it plays, read out by logistic regression"}
    return values + _bounds(*measure.readout(real, fake), protocol)


def _bounds(real: Tensor, fake: Tensor, protocol: Record) -> list[Record]:
    told = measure.accuracy(real, fake)
    return [
        _value("JSD bound", measure.jsd_bound(real, fake), protocol, unit="nats", draw=0.0),
        _value("accuracy", told, protocol, unit="share", draw=0.5),
        _value("TV bound", measure.tv_bound(told), protocol, unit="share", draw=0.0),
    ]


class _Still(nn.Module):
    """A player that does not learn: in evaluation mode, whatever it is told."""

    couples_batch = False

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.classes, self.latent = net.classes, getattr(net, "latent", 0)
        self.net.eval()

    def forward(self, *inputs: Any) -> Any:
        return self.net(*inputs)

    def train(self, mode: bool = True) -> _Still:
        return self


def _alone(hall: Hall, config: recipes.Config, mover: str, rival: nn.Module, start: nn.Module | None) -> Game:
    """A game in which one player alone learns, at the rates that the real one has come to; the other stands still."""
    fixed = {
        field: Schedule(value.at(hall.seen), value.at(hall.seen))
        for field, value in vars(config).items()
        if isinstance(value, Schedule)
    }
    # Noise on the images was a means to an end: what is asked about is the images as they are.
    config = config.changed(**fixed | {"ema": 0, "instance_noise": 0, "discriminator_turns": 1})
    shape = {"size": hall.images.size, "channels": hall.images.channels, "classes": len(hall.images.classes)}
    game = build_game(config, **shape, device=hall.game.device, seed=seeds.derive(hall.seed, "fresh"))
    if start is not None:
        game.players[mover].net.load_state_dict(start.state_dict())
    other = "generator" if mover == "discriminator" else "discriminator"
    players = {mover: game.players[mover], other: Player(_Still(rival), adam(1e-4))}
    return Game(players, [turn for turn in game.turns if turn.player == mover])


def _learn_alone(hall: Hall, game: Game, mover: str, judge: Callable[[], float]) -> None:
    """Let the one player learn for the budget, and leave it in the state that ``judge`` rates highest on the way."""
    net = game.players[mover].net
    best: list[Any] = [-np.inf, {}]

    def look(moment: Moment) -> Iterator[Record]:
        if (rate := judge()) > best[0]:
            best[:] = rate, {key: value.clone() for key, value in net.state_dict().items()}
        yield from ()

    batches = Batches(hall.images, hall.config.batch, seed=seeds.derive(hall.seed, "alone"), flip=hall.config.flip)
    every = Interlude(Span(max(1.0, hall.steps / LOOKS), "steps"), look)
    with contextlib.suppress(Setback):  # if it bursts, what it had found before that still counts
        play(game, batches, until=Span(hall.steps, "steps"), seed=hall.seed, interludes=[every])
    net.load_state_dict(best[1])


@dataclass(frozen=True)
class _Half:
    """Held-out images, and latents for as many generated ones, of the same classes."""

    real: Tensor
    labels: Tensor | None
    latents: Tensor

    def ask(self, discriminator: nn.Module, generator: nn.Module) -> tuple[Tensor, Tensor]:
        """The logits for both kinds, (n,) each."""
        fake = draws(generator, self.latents, self.labels)
        return answers(discriminator, self.real, self.labels), answers(discriminator, fake, self.labels)


def _halves(hall: Hall, generator: Any) -> tuple[_Half, _Half]:
    """Images to choose the best state by, and others to judge it by."""
    middle = len(hall.held) // 2
    latents: Tensor = generator.latents(2 * middle, seeds.derive(hall.seed, "halves") % 2**31)
    return tuple(  # type: ignore[return-value]
        _Half(*seen(chosen(hall.held, places)), latents[torch.from_numpy(places)])
        for places in (np.arange(middle), np.arange(middle, 2 * middle))
    )


def _fresh(hall: Hall) -> list[Record]:
    """What a discriminator that begins anew, and learns by cross-entropy, reaches against the finished generator."""
    generator = hall.finished
    plain: dict[str, Any] = {"loss": "nonsaturating", "smoothing": 0.0, "r1": 0, "r2": 0, "gp": 0}
    if getattr(hall.game.players["discriminator"].net, "couples_batch", False):
        plain["norm"] = "none"  # each image is to be judged by itself
    choose, judge = _halves(hall, generator)
    game = _alone(hall, hall.config.changed(**plain), "discriminator", generator, None)
    net = game.players["discriminator"].net
    _learn_alone(hall, game, "discriminator", lambda: -measure.cross_entropy_loss(*choose.ask(net, generator)).value)
    budget = f"{hall.steps} steps of {hall.config.batch}, the best of {LOOKS} looks"
    protocol = hall.protocol(len(judge.real), generator="finished", discriminator="fresh", budget=budget)
    return _bounds(*judge.ask(net, generator), protocol)


def _gap(hall: Hall) -> Record:
    """The duality gap: what the two players together could gain, if each learnt on alone."""
    player, rival = (hall.game.players[name].net for name in ("discriminator", "generator"))
    choose, judge = _halves(hall, rival)

    def value(half: _Half, discriminator: nn.Module, generator: nn.Module) -> Tensor:
        return measure.game_value(hall.loss.discriminator, *half.ask(discriminator, generator))

    game = _alone(hall, hall.config, "discriminator", rival, player)
    critic = game.players["discriminator"].net
    _learn_alone(hall, game, "discriminator", lambda: float(value(choose, critic, rival).mean()))
    game = _alone(hall, hall.config, "generator", player, rival)
    artist = game.players["generator"].net
    _learn_alone(hall, game, "generator", lambda: -float(value(choose, player, artist).mean()))
    gap = measure.duality_gap(value(judge, critic, rival), value(judge, player, artist))
    budget = f"{hall.steps} steps of {hall.config.batch} each, the best of {LOOKS} looks"
    protocol = hall.protocol(len(judge.real), generator="learns on", discriminator="learns on", budget=budget)
    return _value("duality gap", gap, protocol, unit=f"D's loss ({hall.config.loss})", draw=0.0)


def _finished(hall: Hall) -> Tensor:
    """As many images as there are held-out ones, uint8, of the finished generator; classes in the same shares."""
    labels = hall.held.labels if hall.finished.classes else None
    drawn: Tensor = hall.finished.sample(len(hall.held), seed=seeds.derive(hall.seed, "entropy") % 2**31, labels=labels)
    return drawn


def _pixels(hall: Hall) -> list[Record]:
    """The entropy of pixel values, of the generator's images and of real ones."""
    protocol = hall.protocol(len(hall.held), generator="finished", discriminator="", budget="")
    data = pixel_entropy(torch.from_numpy(hall.held.images))
    return [
        _value("pixel entropy", pixel_entropy(_finished(hall)), protocol, unit="bits", draw=data),
        _value("pixel entropy of the data", data, protocol | {"generator": ""}, unit="bits", draw=data),
    ]


def _classes(hall: Hall, classifier: str) -> tuple[list[Record], list[Record]]:
    """The entropy of classes, of finished images, of real ones, and of the sample sheets along the run."""
    named = find_model(classifier)
    model = named.model.to(hall.game.device).eval()
    size, channels = hall.images.size, hall.images.channels
    if (named.size or size) != size or (named.channels or channels) != channels:
        raise UserError(
            f"'{named.name}' takes images of {named.size} px and {named.channels} channels, the run's have {size} and "
            f"{channels}: give a classifier of this data"
        )

    @torch.no_grad()
    def told(images: Tensor) -> tuple[float, float]:
        said = [model(block.to(hall.game.device) / 255).softmax(1).cpu() for block in torch.split(images, 500)]
        return label_entropy(torch.cat(said))

    protocol = hall.protocol(len(hall.held), generator="finished", discriminator="", budget="")
    protocol |= {"classifier": named.name}
    (varied, unsure), (data_varied, data_unsure) = told(_finished(hall)), told(torch.from_numpy(hall.held.images))
    values = [
        _value("class entropy", varied, protocol, unit="nats", draw=data_varied),
        _value("class entropy of the data", data_varied, protocol | {"generator": ""}, unit="nats", draw=data_varied),
        _value("class entropy of an image", unsure, protocol, unit="nats", draw=data_unsure),
        _value(
            "class entropy of a real image", data_unsure, protocol | {"generator": ""}, unit="nats", draw=data_unsure
        ),
    ]
    along = []
    for record in hall.run.records():
        path = hall.run.folder / record.get("sheet", "")
        if "sheet" in record and path.is_file() and channels != 4:  # transparent images are shown over a chequerboard
            tiles = torch.from_numpy(sheet.cut(path, hall.config.sheet, size))
            overall, single = told(tiles)
            along.append({"images": record["images"], "class_entropy": overall, "class_entropy_image": single})
    return values, along
