"""The training of a translator: data, game, evaluations, judgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rivals.api.common.network_io import load
from rivals.api.common.resume import TrainingInfo, note_printer
from rivals.api.training.job import Request, TrainingJob
from rivals.base import devices
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.run_folder import Record, Run
from rivals.base.size import Size
from rivals.recipes.translation import TranslateConfig, TranslateRunOptions

if TYPE_CHECKING:
    from torch import nn

    from rivals.api.translation.image_pairs import ImagePairs
    from rivals.game.callbacks import Callback
    from rivals.game.game import Batches, Game
    from rivals.nets.translator import Translator

EVALUATIONS = 10  # over a run
PICTURE, IN_PICTURE = "triples.png", 16
ARCHITECTURE = ("net", "widths", "blocks")
OF_THE_DISCRIMINATOR = ("loss", "discriminator_widths", "discriminator_lr", "penalty_every")


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
    movable = ("weights", "lpips", "perceptual")
    run_options: TranslateRunOptions

    pairs: ImagePairs
    held_out: ImagePairs
    all_pairs: ImagePairs
    start: Translator | None = None
    extractor: Any = None
    lpips: Any = None

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if not self.resuming:
            self.config = self.default_config.changed(**self.config_settings)
            self.recipe = self.config.kind
            resolved = self.config.resolved()
            if self.config.gan_weight == 0:
                plain = TranslateConfig(gan_weight=0.0).resolved()
                resolved.refuse_changes(plain, OF_THE_DISCRIMINATOR, "with --gan-weight 0")
            if not (resolved.r1 and resolved.r1.peak):
                resolved.refuse_changes(TranslateConfig(), ["penalty_every"], "without --r1")

    @property
    def rollback(self) -> bool:
        """Whether to return to a checkpoint at a value that is not finite, as ``--on-nonfinite`` says."""
        return self.run_options.on_nonfinite == "rollback"

    @property
    def white(self) -> int | None:
        """That of the inputs: the targets' may be another."""
        return self.all_pairs.whites[0]

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
        self.pairs, self.held_out = load_held_out(
            self.all_pairs, self.source, self.config, self.data_options, self.seed, note
        )
        self.loaded, self.images = self.all_pairs.targets, self.pairs.targets
        if self.start is not None:
            self._check_start(self.start)
        if self.config.perceptual:
            self._load_extractor()
        if self.config.lpips:
            from rivals.base.hashing import sha256
            from rivals.extractors.lpips import LPIPS

            file = expand_user(self.config.lpips)
            self.lpips = LPIPS(file).to(self.device)
            self.note_content("lpips", self.config.lpips, sha256(file)[:16])

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
        config, size = self.config.resolved(), self.patch_size.shorter
        most = self.images.size.shorter
        if size > most or size % config.scale:
            raise UserError(
                f"--patch-size {size} does not fit images of {self.images.size} px at a scale of {config.scale}: take "
                f"at most {most}, a multiple of {config.scale}"
            )
        if config.precision == "auto":
            config = config.changed(precision=devices.fastest_precision(self.device))
        if config.gan_weight and not config.discriminator_widths:
            widths = (48, 96) if size < 64 else (64, 128, 256) if size < 256 else (64, 128, 256, 512)
            config = config.changed(discriminator_widths=widths)
        self.config = config
        name, colon, place = config.perceptual.partition(":")
        if colon:  # in full, so that the run resumes from any folder
            self.config = config.changed(perceptual=f"{name}:{expand_user(place).resolve()}")
        self._check_patches()
        until, step = Duration.parse(config.until), config.batch_size
        images = until.amount * {"images": 1, "epochs": len(self.pairs), "steps": step}.get(until.unit, float("inf"))
        if images < step:
            raise UserError(
                f"--until '{config.until}' is {images:,.0f} images, less than one step of {step:,}: give a longer "
                "--until or a smaller --batch-size"
            )

    @property
    def patch_size(self) -> Size:
        """Size of the images in training."""
        return self.images.size if self.config.patch_size is None else Size.parse(self.config.patch_size)

    def _check_patches(self) -> None:
        """Refuse a discriminator that halves the images to nothing."""
        from rivals.nets.patchgan import PatchDiscriminator

        widths, size = self.config.discriminator_widths, self.patch_size
        if self.config.gan_weight and (least := PatchDiscriminator(1, widths).least_size) > size.shorter:
            larger = "--size" if self.config.patch_size is None else "--patch-size"
            fewer = "fewer of them, " if len(widths) > 2 else ""
            raise UserError(
                f"--discriminator-widths {' '.join(map(str, widths))} halve images of {size} px to nothing: take "
                f"{fewer}a {larger} of {least} or more, or --gan-weight 0 for no discriminator"
            )

    def build_game(self) -> Game:
        """The translator against a PatchGAN, and who else plays."""
        from rivals.api.translation.translation_game import TranslationGame

        game = TranslationGame(
            self.config, self.pairs, self.patch_size, self.device, self.seed, self.start, self.extractor
        )
        return game.build()

    def make_batches(self) -> Batches:
        """Batches of the pairs."""
        return self.pairs.batches(self.config, self.seed, self.micro_batches)

    def make_callbacks(self) -> Sequence[Callback]:
        """Grids of triples and evaluations on held-out images, alarms."""
        from rivals.api.translation.judgement import find_judge
        from rivals.api.translation.triples import MAX_SHARE, HeldOutTriples
        from rivals.game.translation_health import TranslationMonitor
        from rivals.losses.gan import make_loss

        given = self.run_options.sample_every
        every = Duration.parse(given) if given else Duration(self.until.amount / EVALUATIONS, self.until.unit)
        net = self.game.players["generator"].eval_net
        # Pixels say nothing without a target, and features are worth their time only there.
        extractor = None if self.config.paired else find_judge("auto", self.device)[0]
        share, n = None if given else MAX_SHARE, self.config.sample_grid
        return [
            HeldOutTriples(every, Run(self.folder), net, self.held_out, n, extractor, share),
            TranslationMonitor(make_loss(str(self.config.loss)).equilibrium["loss/discriminator"]),
        ]

    def open_run(self) -> Run:
        from rivals.api.training.held_out import check_unchanged

        run = super().open_run()
        check_unchanged(self.stored, "held_out", self.held_out.hash)
        return run

    def run_facts(self) -> Record:
        """The unit of the discriminator, the kind of the translation, the held-out images."""
        from rivals.losses.gan import make_loss

        held = self.held_out
        return {
            "d_unit": make_loss(str(self.config.loss)).unit,
            "pairs_hash": self.all_pairs.hash,
            "held_out": {"split": held.targets.split, "n": len(held), "hash": held.hash},
            **self.network_facts(),
        }

    def net_of(self, player: str) -> str:
        """The architecture of a player."""
        return {"discriminator": "patchgan", "inverse_discriminator": "patchgan", "head": "mlp"}.get(
            player, str(self.config.net)
        )

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
            values = judge(sides, held, n=n, device=self.device, extractor=extractor, lpips=self.lpips, show=show)
        images = triples(net, held, IN_PICTURE)
        save_png(triple_grid(images, 3 if held.paired else 2), run.folder / PICTURE)
        notes = [missing] if missing else []
        if extractor is not None and self.extractor is not None and self.extractor.name == extractor.name:
            notes.append(f"PD and FD are by {extractor.name}, which the translator was trained with: they flatter it")
            note_printer(self.request.quiet)(notes[-1])
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
