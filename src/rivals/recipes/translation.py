"""Settings of a translator: images to images of another kind, or to larger ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.schedules import Schedule
from rivals.recipes.base import NONE, PRECISIONS, MicroBatches, Settings, check_micro_batches, check_range, flag
from rivals.recipes.options import NONFINITE_POLICIES, RunOptions

PAIRS = ("folders", "side-by-side", "unpaired")
METHODS = ("cut", "cyclegan")
SCALES = (1, 2, 4)
WITH_PAIRS = ("l1_weight", "perceptual", "perceptual_weight", "perceptual_every", "lpips")
WITHOUT_PAIRS = ("method", "nce_weight", "cycle_weight", "identity_weight")


@dataclass(frozen=True)
class TranslateConfig(Settings):
    """What is translated into what, by which networks, and how they learn. A SCHEDULE is a number, or START -> END in N
    images."""

    scale: int = 1
    """2 or 4: learn to enlarge images by that; any data make their own pairs. 1: translate between A and B."""
    pairs: str = "folders"
    """Where A and B are: folders (A/ and B/ with equal names), side-by-side (the left and the right half of an image),
    or unpaired (A/ and B/ with any names)."""
    method: str = "cut"
    """Of learning without pairs: cut (PatchNCE, one translator) or cyclegan (there and back, two translators)."""
    reverse: bool = False
    """Translate from B to A."""
    net: str | None = None
    """The translator: resnet or unet, which also passes on its input at full resolution; by default unet with pairs of
    A and B, else resnet."""
    widths: tuple[int, ...] = ()
    """Channels of the translator's stages from the input's resolution down, each half as high; the net's own by
    default."""
    blocks: int | None = None
    """Residual blocks of the translator: of a resnet 4 by default, of a unet 1 per stage."""
    discriminator_widths: tuple[int, ...] = ()
    """Channels of PatchGAN's convolutions: two judge patches of 16 px, three of 34, four of 70, or the whole image if
    it is smaller; by default two for images below 64 px, three below 256."""
    loss: str | None = None
    """The adversarial loss: minimax, nonsaturating, least-squares, hinge, wasserstein or relativistic; by default
    relativistic with pairs and least-squares without."""
    gan_weight: float | None = None
    """Weight of the adversarial loss; by default 0.005 with pairs, and without 2 for least-squares, which has a factor
    of 1/2, and 1 for others. 0 trains without a discriminator."""
    l1_weight: float = 1.0
    """Weight of the L1 distance to the target (with pairs)."""
    perceptual: str = ""
    """Also minimize the distance to the target in the features of this extractor: lite0, vgg16 or classifier:RUN (with
    pairs)."""
    perceptual_weight: float = 0.1
    """Weight of that distance."""
    perceptual_every: int = 1
    """Compute it on every k-th step only, k times as strong."""
    nce_weight: float = 1.0
    """Weight of PatchNCE, which keeps the content (cut)."""
    cycle_weight: float = 20.0
    """Weight of the L1 distance after a way there and back (cyclegan)."""
    identity_weight: float | None = None
    """Weight of leaving targets as they are: by PatchNCE 1 (cut), by L1 10 (cyclegan) by default."""
    r1: Schedule | None = None
    """Gamma of the R1 penalty, which is gamma / 2 times the squared norm of the gradient by what the discriminator sees
    of real pairs, of the mean of its map of logits; 0.1 with pairs and 0, none, without by default."""
    penalty_every: int = 8
    """Compute R1 on every k-th step only, k times as strong."""
    patch_size: int | None = None
    """Train on random squares of this side, cut from larger images; on whole images by default."""
    flip: bool = True
    """Flip images horizontally at random, partners together."""
    batch_size: int = 32
    """Images per turn."""
    micro_batches: MicroBatches = 1
    """Equal parts of a batch, a power of two, played one after the other or by several processes; auto takes as many as
    memory needs. Gradients are averaged over them."""
    generator_lr: Schedule = Schedule(5e-4, 5e-4)  # noqa: RUF009 - frozen
    """Learning rate of the translator."""
    discriminator_lr: Schedule = Schedule(5e-4, 5e-4)  # noqa: RUF009 - frozen
    """Learning rate of the discriminator."""
    beta1: float = 0.5
    """Adam's beta1 for all players."""
    beta2: Schedule = Schedule(0.99, 0.99)  # noqa: RUF009 - frozen
    """Adam's beta2 for all players."""
    ema: Schedule = Schedule(5e3, 5e3)  # noqa: RUF009 - frozen
    """Half-life of the EMA of the translator's weights, in images; 0 for no EMA."""
    precision: str = "auto"
    """Of matrix products in training: fp32, bf16, or auto: bf16 where the hardware is faster in it."""
    compile: bool = False
    """Compile the networks by torch.compile, which takes a minute; steps with R1 stay uncompiled."""
    weights: str = ""
    """Start from this translator: a run or a .safetensors file. Its architecture is taken."""
    hold_out: int = 0
    """Training images held out to judge the translator on; by default it is judged on test images if the data have
    some, else on a tenth of the images, at most 1,000."""
    judge: int = 2000
    """Held-out images that the translator is judged on at the end, at most."""
    lpips: str = ""
    """Also judge by LPIPS, with the weights in this file (vgg.pth of its repository) and those of VGG16 (with
    pairs)."""
    sample_grid: int = 16
    """Triples of input, output and target in a sample grid."""
    until: str = "20 epochs"
    """Length of the run from its very start: N images, epochs, steps, minutes or hours, where N may end in k or M."""

    def __post_init__(self) -> None:
        Duration.parse(self.until, "a value of --until")
        if self.scale not in SCALES:
            raise UserError(f"--scale {self.scale} is not offered: take 2 or 4, or leave it out to translate A to B")
        for name, known in (("pairs", PAIRS), ("method", METHODS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise unknown(f"value of {flag(name)}", getattr(self, name), known)
        if self.scale > 1:
            for name in ("pairs", "reverse"):
                if getattr(self, name) != getattr(TranslateConfig, name):
                    raise UserError(f"{flag(name)} has no meaning with --scale, which makes its own pairs: drop one")
        for name in WITHOUT_PAIRS if self.paired else WITH_PAIRS:
            if getattr(self, name) != getattr(TranslateConfig, name):
                why = "there are pairs" if self.paired else "there are no pairs"
                raise UserError(f"{flag(name)} has no meaning where {why}: leave it out")
        for name in ("perceptual_weight", "perceptual_every"):
            if getattr(self, name) != getattr(TranslateConfig, name) and not self.perceptual:
                raise UserError(f"{flag(name)} has no meaning without an extractor: add --perceptual lite0")
        other = "cycle_weight" if self.method == "cut" else "nce_weight"
        if getattr(self, other) != getattr(TranslateConfig, other):
            raise UserError(f"{flag(other)} has no meaning for --method {self.method}: leave it out")
        for name in ("gan_weight", "l1_weight", "perceptual_weight", "nce_weight", "cycle_weight", "identity_weight"):
            if getattr(self, name) is not None:
                check_range(self, name, 0, 1e6)
        for name, least, most in (
            ("perceptual_every", 1, 100_000),
            ("penalty_every", 1, 100_000),
            ("batch_size", 2, 65536),
            ("sample_grid", 1, 256),
            ("hold_out", 0, 1_000_000),
            ("judge", 2, 1_000_000),
        ):
            check_range(self, name, least, most)
        if self.patch_size is not None:
            check_range(self, "patch_size", 8, 1024)
        if self.hold_out == 1:
            raise UserError("--hold-out 1 is too few to judge a translator on: take 2 or more, or leave it out")
        check_micro_batches(self.batch_size, self.micro_batches)
        for name in ("r1", "ema"):
            schedule = getattr(self, name) or NONE
            if min(schedule.start, schedule.end) < 0:
                raise UserError(f"{flag(name)} {schedule} is negative: take 0 (none) or more")
        if self.gan_weight == 0:
            if not self.paired:
                raise UserError("--gan-weight 0 leaves nothing that knows the images of B: take more than 0")
            if self.r1 and self.r1.peak:
                raise UserError("--r1 penalizes a discriminator, and with --gan-weight 0 there is none: leave it out")
            if not self.l1_weight:
                raise UserError("--gan-weight 0 and --l1-weight 0 leave nothing to learn from in each step: raise one")
        if not all(0 < width <= 65536 for width in self.widths + self.discriminator_widths):
            raise UserError("widths must be integers from 1 to 65536, such as --widths 32 64 96")

    @property
    def paired(self) -> bool:
        """Whether each input has its target."""
        return self.scale > 1 or self.pairs != "unpaired"

    @property
    def kind(self) -> str:
        """upscale, paired or unpaired."""
        return "upscale" if self.scale > 1 else "paired" if self.paired else "unpaired"

    def resolved(self) -> Self:
        """With the weights that are left to the kind of translation."""
        settings: dict[str, float | str | Schedule] = {}
        if self.net is None:
            settings["net"] = "unet" if self.kind == "paired" else "resnet"
        # Without a target to hold on to, the loss of CUT and CycleGAN, which needs no gradient penalty.
        loss = self.loss or ("relativistic" if self.paired else "least-squares")
        settings["loss"] = loss
        if self.gan_weight is None:
            # pix2pix's 1 to 100 for images in [-1, 1] is 1 to 200 for those in [0, 1] (Isola et al. 2017, sec. 3.3).
            # CUT and CycleGAN minimize (D - 1)^2 (Zhu et al. 2017, sec. 4), and LSGAN's loss has half of it.
            settings["gan_weight"] = 0.005 if self.paired else 2.0 if loss == "least-squares" else 1.0
        if self.identity_weight is None and not self.paired:
            # CycleGAN's 10 and 5, too, are for images in [-1, 1] (Zhu et al. 2017, sec. 5.2): here 20 and 10.
            settings["identity_weight"] = 1.0 if self.method == "cut" else 10.0
        if self.r1 is None:
            settings["r1"] = Schedule.parse(0.1) if self.paired and self.gan_weight != 0 else NONE
        return self.changed(**settings)

    def changed(self, **settings: Any) -> Self:
        """As :meth:`Settings.changed`; another net resets the settings that belong to the one before."""
        if self.net is not None and settings.get("net", self.net) != self.net:
            settings = {"widths": (), "blocks": None} | settings
        return super().changed(**settings)


@dataclass(frozen=True)
class TranslateRunOptions(RunOptions):
    """What the training of a translator does besides training."""

    sample_every: str | None = None
    """Time between sample grids and evaluations on held-out images, written like --until; a tenth of the run by
    default."""
    on_nonfinite: str = "stop"
    """When a value is not finite: stop, or rollback to the last checkpoint with halved learning rates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_every is not None:
            Duration.parse(self.sample_every, "a value of --sample-every")
        if self.on_nonfinite not in NONFINITE_POLICIES:
            raise unknown("value of --on-nonfinite", self.on_nonfinite, NONFINITE_POLICIES)


@dataclass(frozen=True)
class ApplyConfig(Settings):
    """How a trained translator is applied to images of any size."""

    tile: int = 256
    """Translate larger images in tiles of this side, in pixels of the input."""
    overlap: int | None = None
    """Overlap of neighboring tiles, in pixels of the input; by default a little more than twice as far as the network
    looks, but at most half a tile, where tiles are blended."""

    def __post_init__(self) -> None:
        check_range(self, "tile", 16, 65536)
        if self.overlap is not None:
            check_range(self, "overlap", 0, 65536)
