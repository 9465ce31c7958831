"""The training of a translator: data, game, evaluations, judgement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from rivals.api.common.network_io import load
from rivals.api.common.resume import TrainingInfo, note_printer
from rivals.api.training.job import Request, TrainingJob
from rivals.base import devices, rng
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.recipes.translation import TranslateConfig, TranslateRunOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rivals.api.translation.image_pairs import ImagePairs
    from rivals.game.callbacks import Callback
    from rivals.game.game import Batches, Game, Turn
    from rivals.game.player import Player
    from rivals.losses.gan import GanLoss
    from rivals.nets.translator import Translator

EVALUATIONS = 10  # over a run
PICTURE, IN_PICTURE = "triples.png", 16
ARCHITECTURE = ("net", "widths", "blocks")


class TranslateInfo(TrainingInfo):
    """What ``run.json`` must hold to resume the training of a translator."""

    pairs_hash: str


class TranslateJob(TrainingJob[TranslateConfig]):
    """A run of ``rivals translate``."""

    command = "translate"
    network = "generator"
    recipes: ClassVar[Any] = {}
    default_config = TranslateConfig()
    default_run_options = TranslateRunOptions()
    stored_schema = TranslateInfo
    run_options: TranslateRunOptions

    pairs: ImagePairs
    held_out: ImagePairs
    all_pairs: ImagePairs
    start: Translator | None = None
    extractor: Any = None

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if not self.resuming:
            self.config = self.default_config.changed(**self.config_settings)
            self.recipe = self.config.kind

    @property
    def rollback(self) -> bool:
        """Whether to return to a checkpoint at a value that is not finite, as ``--on-nonfinite`` says."""
        return self.run_options.on_nonfinite == "rollback"

    def load_data(self) -> None:
        """Load the pairs, and those that are held out; the start weights; the extractor of the perceptual loss."""
        from rivals.api.translation.image_pairs import load_held_out, load_image_pairs

        if self.config.weights:
            self._load_start()
        note = note_printer(self.request.quiet)
        self.all_pairs = load_image_pairs(self.source, self.config, self.data_options, "train", note)
        if self.resuming and self.stored["pairs_hash"] != self.all_pairs.hash:
            raise UserError(
                f"the images of '{self.all_pairs.targets.name}' are not those that the run began with: restore them, "
                "or name their place now, to resume"
            )
        white = self.all_pairs.targets.white if self.all_pairs.inputs is None else self.all_pairs.inputs.white
        self.data_options = self.data_options.with_default_white(white)
        self.pairs, self.held_out = load_held_out(
            self.all_pairs, self.source, self.config, self.data_options, self.seed, note
        )
        self.loaded, self.images = self.all_pairs.targets, self.pairs.targets
        if self.start is not None:
            self._check_start(self.start)
        if self.config.perceptual:
            self._load_extractor()

    def _load_start(self) -> None:
        """The translator to start from. A new run takes its architecture."""
        from rivals.api.training.start_weights import adopt_architecture
        from rivals.base.hashing import weights_hash

        weights = self.config.weights
        self.start = translator_of(weights, option="weights")
        self.note_content("weights", weights, weights_hash(self.start))
        if not self.resuming:
            theirs = {name: self.start.spec[name] for name in ARCHITECTURE}
            self.config_settings = adopt_architecture(weights, theirs, self.config_settings, self.default_config)
            self.config = self.config.changed(**self.config_settings)

    def _check_start(self, start: Translator) -> None:
        pairs = self.pairs
        ours = {"scale": pairs.scale, "in_channels": pairs.in_channels, "channels": pairs.targets.channels}
        for name, value in ours.items():
            if start.spec[name] != value:
                raise UserError(
                    f"--weights {self.config.weights} does not fit this data: its {name.replace('_', ' ')} is "
                    f"{start.spec[name]}, not {value}: give a translator of such images"
                )

    def _load_extractor(self) -> None:
        """The extractor of the perceptual loss, held constant."""
        from rivals.api.scoring.feature_passes import find_extractor
        from rivals.extractors.feature_maps import FeatureMaps

        extractor = find_extractor(self.config.perceptual, self.device)
        if extractor.channels not in (None, self.pairs.targets.channels):
            raise UserError(
                f"--perceptual {self.config.perceptual} takes images of {extractor.channels} channels, and these have "
                f"{self.pairs.targets.channels}: name another extractor"
            )
        self.note_content("perceptual", self.config.perceptual, extractor.hash)
        self.extractor = FeatureMaps(extractor)

    def resolve_config(self) -> None:
        """Choose the precision and the discriminator's widths; check that training can work."""
        config, size = self.config, self.images.size
        if config.precision == "auto":
            config = config.changed(precision=devices.fastest_precision(self.device))
        if not config.discriminator_widths:
            widths = (64, 128) if size < 64 else (64, 128, 256) if size < 256 else (64, 128, 256, 512)
            config = config.changed(discriminator_widths=widths)
        self.config = config
        self._check_patches()
        until, step = Duration.parse(config.until), config.batch_size
        images = until.amount * {"images": 1, "epochs": len(self.pairs), "steps": step}.get(until.unit, float("inf"))
        if images < step:
            raise UserError(
                f"--until '{config.until}' is {images:,.0f} images, less than one step of {step:,}: give a longer "
                "--until or a smaller --batch-size"
            )

    def _check_patches(self) -> None:
        """Refuse a discriminator whose patches are larger than the images."""
        from rivals.nets.patchgan import PatchDiscriminator

        widths, size = self.config.discriminator_widths, self.images.size
        if self.config.gan_weight and (field := PatchDiscriminator(1, widths).receptive_field) > size:
            raise UserError(
                f"--discriminator-widths {' '.join(map(str, widths))} judge patches of {field} px, and the images have "
                f"{size}: take fewer, or a larger --size"
            )

    def build_game(self) -> Game:
        """The translator against a PatchGAN; without pairs also the network that PatchNCE compares patches by."""
        from rivals.game.game import Game, Turn
        from rivals.game.translate_step import TranslateStep
        from rivals.losses.translation import head_loss, perceptual, translation

        config, pairs = self.config, self.pairs
        players = self._players()
        loss = self._loss()
        paired = config.paired
        translate = translation(
            loss.generator if config.gan_weight else None,
            gan_weight=config.gan_weight,
            l1_weight=config.l1_weight if paired else 0,
            nce_weight=0 if paired else config.nce_weight,
            identity_weight=0 if paired else config.identity_weight,
        )
        penalties = []
        if self.extractor is not None:
            penalties = [self._perceptual(perceptual(self.extractor.distance))]
        turns: list[Turn] = []
        if "discriminator" in players:
            turns.append(self._discriminator_turn(loss))
        if "head" in players:
            turns.append(Turn("head", head_loss))
        turns.append(Turn("generator", translate, penalties))
        make_step = partial(TranslateStep, split=pairs.split, condition=self._condition())
        return Game(players, turns, make_step=make_step, precision=config.precision, compile=config.compile)

    def _players(self) -> dict[str, Player]:
        import torch

        from rivals.game.player import Player, adam
        from rivals.nets.factory import build_translator
        from rivals.nets.patch_head import PatchHead
        from rivals.nets.patchgan import PatchDiscriminator

        config, pairs = self.config, self.pairs
        channels = pairs.targets.channels
        given: dict[str, Any] = {} if config.blocks is None else {"blocks": config.blocks}
        betas: Any = {"beta1": config.beta1, "beta2": config.beta2}
        with rng.fork(self.device):
            torch.manual_seed(rng.derive(self.seed, "weights"))
            translator = build_translator(
                config.net,
                size=pairs.targets.size,
                channels=channels,
                in_channels=pairs.in_channels,
                scale=pairs.scale,
                widths=config.widths,
                **given,
            )
            seen = channels + (pairs.in_channels if config.paired else 0)
            discriminator = PatchDiscriminator(seen, config.discriminator_widths or (64, 128))
            with torch.no_grad():
                maps = translator.encode(torch.zeros(1, pairs.in_channels, *[max(8, translator.multiple)] * 2))
            head = PatchHead([each.shape[1] for each in maps])
        if self.start is not None:
            translator.load_state_dict(self.start.state_dict())
        optimizer = adam(config.generator_lr, **betas)
        players = {"generator": Player(translator.to(self.device), optimizer, ema=config.ema)}
        if config.gan_weight:
            other = adam(config.discriminator_lr, **betas)
            players["discriminator"] = Player(discriminator.to(self.device), other)
        if not config.paired and (config.nce_weight or config.identity_weight):
            players["head"] = Player(head.to(self.device), adam(config.generator_lr, **betas))
        return players

    def _discriminator_turn(self, loss: GanLoss) -> Turn:
        from rivals.game.game import Turn
        from rivals.losses.penalties import r1

        config = self.config
        penalties = [r1(config.r1, config.penalty_every)] if config.r1.peak else []
        return Turn("discriminator", loss.discriminator, penalties, readings=loss.readings)

    def _perceptual(self, score: Callable[[Any], Tensor]) -> Any:
        from rivals.base.schedules import Schedule
        from rivals.losses.penalties import Penalty

        weight = Schedule.parse(self.config.perceptual_weight)
        return Penalty("perceptual", weight, score, self.config.perceptual_every, False, False)

    def _condition(self) -> Callable[[Tensor], Tensor] | None:
        """What the discriminator sees of the inputs: with pairs all, enlarged where they are smaller."""
        if not self.config.paired:
            return None
        return partial(_repeated, scale=self.pairs.scale)

    def make_batches(self) -> Batches:
        """Batches of the pairs."""
        return self.pairs.batches(self.config, self.seed, self.micro_batches)

    def make_callbacks(self) -> Sequence[Callback]:
        """Grids of triples and evaluations on held-out images."""
        from rivals.api.translation.triples import HeldOutTriples

        every = Duration(self.until.amount / EVALUATIONS, self.until.unit)
        if self.run_options.sample_every:
            every = Duration.parse(self.run_options.sample_every)
        net = self.game.players["generator"].eval_net
        return [HeldOutTriples(every, Run(self.folder), net, self.held_out, self.config.sample_grid)]

    def _loss(self) -> GanLoss:
        from rivals.losses.gan import make_loss

        return make_loss(self.config.loss)

    def run_facts(self) -> Record:
        """The unit of the discriminator, the kind of the translation, the held-out images."""
        held = self.held_out
        return {
            "d_unit": self._loss().unit,
            "pairs_hash": self.all_pairs.hash,
            "held_out": {"split": held.targets.split, "n": len(held), "hash": held.hash},
            **self.network_facts(),
        }

    def network_facts(self) -> Record:
        """What it translates."""
        return {"translates": {"kind": self.config.kind, "scale": self.config.scale, "reverse": self.config.reverse}}

    def final_evaluation(self, net: nn.Module) -> str | None:
        """Judge the saved translator on held-out images; save triples. Returns a line to print."""
        from rivals.api.translation.judgement import bicubic, described, find_judge, judge
        from rivals.api.translation.triples import triple_grid, triples
        from rivals.console.bars import PassProgress
        from rivals.reports.image_grid import save_png

        run, held = Run(self.folder), self.held_out
        sides: dict[str, Any] = {"translator": net.eval()}
        if held.scale > 1:
            sides["bicubic"] = bicubic(held)
        extractor, missing = find_judge("auto", self.device)
        n = min(self.config.judge, len(held), len(held.targets))
        with PassProgress(quiet=self.request.quiet) as show:
            values = judge(sides, held, n=n, device=self.device, extractor=extractor, show=show)
        images = triples(net, held, IN_PICTURE)
        save_png(triple_grid(images, 3 if held.paired else 2), run.folder / PICTURE)
        notes = [missing] if missing else []
        run.update(results={"n": n, "split": held.targets.split, "values": values, "notes": notes, "triples": PICTURE})
        return described(values, n)


def translator_of(path: str, *, device: str = "cpu", option: str = "") -> Translator:
    """The translator of a run or a file, as :func:`rivals.load` gives it.

    Raises:
        UserError: there is none, or the network there is another one.
    """
    net: Any = load(path, device=device)
    if net.spec["role"] != "translator":
        what = f"--{option} {path}" if option else f"'{path}'"
        raise UserError(f"{what} holds a {net.spec['role']}, not a translator: name a run of rivals translate")
    translator: Translator = net
    return translator


def _repeated(images: Tensor, scale: int) -> Tensor:
    """Images enlarged by repeating each pixel."""
    return images if scale == 1 else images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
