"""Options that are not a recipe: of the data, of a run, of an evaluation. One dataclass for each concern."""

from __future__ import annotations

from dataclasses import dataclass

from rivals.base.duration import Duration
from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.seeds import parse_seeds
from rivals.base.size import Size, check_size
from rivals.recipes.base import Settings, check_range, flag

CERTIFICATES = ("smoothing", "ibp", "crown-ibp", "crown", "alpha-crown", "beta-crown")
BOUNDED_NORMS = ("linf", "l2")
BOUNDS_ONLY = ("norm", "eps", "attack")
SMOOTHING_ONLY = ("sigma", "samples", "guesses", "alpha", "radii", "draws", "steps")
DENSE_NORMS = ("linf", "l2", "l1")
NORMS = (*DENSE_NORMS, "l0")
EOT_AVERAGES = ("logits", "losses")
SEARCH_PRECISIONS = ("fp32", "bf16")
SAVE_FORMATS = ("npz", "png", "none")
TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
REDUCTIONS = ("tree", "ring")
NONFINITE_POLICIES = ("stop", "rollback")
MAX_IMAGES = 10_000_000  # to generate at once
MAX_SIGMA = 10.0  # images run from 0 to 1


def _check_durations(**durations: str | None) -> None:
    for name, text in durations.items():
        if text is not None:
            Duration.parse(text, f"a value of --{name.replace('_', '-')}")


@dataclass(frozen=True)
class DataOptions(Settings):
    """How images are read."""

    size: Size | None = None
    """Resize images to N pixels square, as 64, or to WIDTHxHEIGHT, as 96x64; by default their own size, or the size
    that the model takes."""
    crop: bool = False
    """Crop images around their center to the proportions of --size, or without it to squares."""
    skip_bad: bool = False
    """Skip unreadable images instead of stopping."""
    white: int | None = None
    """The value of white in gray images of more than 8 bits; by default the model's, or by their largest value."""

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.white is not None:
            check_range(self, "white", 1, 2**32 - 1)

    def with_default_white(self, white: int | None) -> DataOptions:
        """These options, with this white level if they have none."""
        return self if self.white is not None else self.changed(white=white)


@dataclass(frozen=True)
class RunOptions(Settings):
    """What a training run does besides training."""

    checkpoint_every: str | None = None
    """Time between checkpoints, written like --until; 1 minute by default."""
    keep_every: str | None = None
    """Time between milestones, written like --until: networks that are kept in the run's milestones/."""
    track: str | None = None
    """Also log to tensorboard, trackio, wandb or mlflow, or to several with commas between them."""
    time_limit: str | None = None
    """Save and stop after N minutes or hours of this process, as after SIGTERM; continue with --resume."""
    reduction: str = "tree"
    """How several processes average gradients: tree (the same bits for any number of them) or ring (faster)."""
    deterministic: bool = False
    """Use deterministic kernels only: the same bits on each run, on a GPU too, where it is slower."""

    def __post_init__(self) -> None:
        _check_durations(checkpoint_every=self.checkpoint_every, keep_every=self.keep_every)
        if self.reduction not in REDUCTIONS:
            raise unknown("reduction", self.reduction, REDUCTIONS)
        for name in self.trackers:
            if name not in TRACKERS:
                raise unknown("tracker", name, TRACKERS)
        if self.time_limit is not None:
            Duration.parse(self.time_limit, "a value of --time-limit", ("minutes",))

    @property
    def trackers(self) -> list[str]:
        """The names in ``track``."""
        return [] if self.track is None else [name.strip() for name in self.track.split(",")]


@dataclass(frozen=True)
class GanRunOptions(RunOptions):
    """What the training of a GAN does besides training."""

    sample_every: str | None = None
    """Time between sample grids, written like --until; a fortieth of the run by default."""
    score_every: str | None = None
    """Time between scores, written like --until; the best-scoring state is kept. No scores by default."""
    score_seconds: float | None = None
    """Time budget of one score, in seconds; 10 by default."""
    on_nonfinite: str = "stop"
    """When a value is not finite: stop, or rollback to the last checkpoint with halved learning rates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_durations(sample_every=self.sample_every, score_every=self.score_every)
        if self.on_nonfinite not in NONFINITE_POLICIES:
            raise unknown("value of --on-nonfinite", self.on_nonfinite, NONFINITE_POLICIES)
        if self.score_seconds is not None and self.score_every is None:
            raise UserError("--score-seconds is the time budget of a score, and there are none: add --score-every")


@dataclass(frozen=True)
class EvalConfig(Settings):
    """What every evaluation of a classifier has."""

    n: int | None = None
    """Number of images, taken from one fixed permutation of the data; all if the data have fewer."""
    split: str | None = None
    """Split of the data: train, test or all; test by default, or all if the data have no test split."""
    mean: tuple[float, ...] = ()
    """Mean of each channel that the model's normalization subtracts; the model's own by default."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel that the model's normalization divides by; the model's own by default."""
    classes: str = ""
    """File of the model's class names, one a line in the order of its logits; the model's own by default."""
    seed: int = 0
    """Seed of everything random."""
    batch_size: int = 128
    """Largest number of images in one forward pass."""
    deterministic: bool = False
    """Use deterministic kernels only: the same bits on each run, on a GPU too, where it is slower."""

    def __post_init__(self) -> None:
        check_range(self, "batch_size", 1, 1_000_000)


@dataclass(frozen=True)
class AttackConfig(EvalConfig):
    """How a classifier is attacked."""

    norm: str = "linf"
    """Norm of the ball around each image: linf, l2, l1 or l0 (how many values change, as --eps 10)."""
    pixels: bool = False
    """In l0, count changed pixels instead of values: all channels of a pixel change at the price of one."""
    eps: str = "8/255"
    """Radius of the ball, for images in [0, 1], such as 8/255; several, such as 0,1/255,2/255, give a curve."""
    mask: str = ""
    """Image file of the images' size, white where they may change; everywhere by default."""
    attack: str = "autoattack"
    """One attack or several in order, as fgsm, pgd(steps=100,restarts=5), apgd,square or generator:RUN; the standard is
    autoattack."""
    surrogate: str = ""
    """Run the attack on another model, or on the mean of several as A,B, and transfer the results to this one."""
    target: str | None = None
    """Class, by name or number, that the attack has to reach; its own images are left out. None by default."""
    n: int | None = 1000
    """Number of images, taken from one fixed permutation of the data; all if the data have fewer."""
    defense: str = ""
    """Purifier in front of the model, attacked through as well: jpeg(quality=50), bit-depth(bits=3),
    defense-gan:RUN or gan-inversion:RUN."""
    adaptive_steps: int = 40
    """Steps of the attacks through --defense."""
    eot: int = 1
    """Expectation over transformation: average a randomized model over this many forward passes."""
    eot_average: str = "logits"
    """What --eot averages: logits, or losses and so their gradients, as AutoAttack's version for randomized models."""
    alarms: bool = True
    """Look for signs of gradient masking first."""
    compiled: bool = False
    """Attack a model made by torch.compile, which pays on an accelerator and in long attacks."""
    precision: str = "fp32"
    """Precision of the attack's gradients: fp32, or bf16, faster on some processors; fp32 decides success."""
    save: str = "npz"
    """Save the adversarial examples as npz (one file), png (images) or none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in NORMS:
            raise unknown("norm", self.norm, NORMS)
        if self.save not in SAVE_FORMATS:
            raise unknown("way to save", self.save, SAVE_FORMATS)
        if self.precision not in SEARCH_PRECISIONS:
            raise unknown("precision of an attack", self.precision, SEARCH_PRECISIONS)
        check_range(self, "eot", 1, 10_000)
        if self.eot_average not in EOT_AVERAGES:
            raise unknown("average of --eot", self.eot_average, EOT_AVERAGES)
        if self.eot == 1 and self.eot_average != "logits":
            raise UserError(f"--eot-average {self.eot_average} averages nothing over one forward pass: add --eot 20")
        if self.pixels and self.norm != "l0":
            raise UserError(f"--pixels counts in l0, and the norm is {self.norm}: leave --pixels out, or add --norm l0")
        for word in self.eps.split(","):
            eps = parse_eps(word)
            if self.norm == "l0" and eps != round(eps):
                raise UserError(
                    f"an l0 eps of {word.strip()} is no whole number: say how many may change, such as --eps 10"
                )
        check_range(self, "adaptive_steps", 1, 10**5)
        if self.adaptive_steps != AttackConfig.adaptive_steps and not self.defense:
            raise UserError("--adaptive-steps attacks through a defense, and there is none: add --defense")
        if self.defense and self.surrogate:
            raise UserError("--defense is attacked through its own gradient, and --surrogate needs none: leave one out")
        if self.defense and len({parse_eps(word) for word in self.eps.split(",")} - {0.0}) > 1:
            raise UserError(f"--eps {self.eps}: a naive figure beside the honest one needs one radius: give one")


@dataclass(frozen=True)
class CertifyConfig(EvalConfig):
    """How a classifier is certified: by randomized smoothing (Cohen et al. 2019), or by bounds through the network."""

    method: str = "smoothing"
    """smoothing, or bounds of the network itself: ibp, crown-ibp, crown, alpha-crown or beta-crown; for a property
    alpha-crown by default."""
    norm: str = "linf"
    """Norm of the ball of bounds: linf or l2. Smoothing certifies l2."""
    eps: str = ""
    """Radius of the ball of bounds, for images in [0, 1], such as 8/255."""
    attack: str = "autoattack"
    """Attack on images that bounds do not certify, or several in order, as for rivals attack."""
    sigma: float = 0.25
    """Standard deviation of the Gaussian noise, for images in [0, 1]; it should be that of the model's training."""
    n: int | None = 500
    """Number of images, taken from one fixed permutation of the data; all if the data have fewer."""
    samples: int = 1000
    """Noise samples that bound the radius of each image (n in the paper); more give larger radii."""
    guesses: int = 100
    """Noise samples that select the class of each image (n0 in the paper)."""
    alpha: float = 0.001
    """Probability that a certificate, or a reported failure, is wrong."""
    radii: str = "0,0.25,0.5,0.75"
    """L2 radii to report, such as 0,0.25,0.5; 0 is always included."""
    upper: bool = True
    """Attack the images that are not certified, for an upper bound (Salman et al. 2019)."""
    draws: int = 16
    """Noise samples that the attack averages over at each step."""
    steps: int = 20
    """Steps of the attack at each radius."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in CERTIFICATES:
            raise unknown("method of certification", self.method, CERTIFICATES)
        if self.norm not in BOUNDED_NORMS:
            raise unknown("norm of certificates", self.norm, BOUNDED_NORMS)
        smoothing = self.method == "smoothing"
        for name in BOUNDS_ONLY if smoothing else SMOOTHING_ONLY:
            if getattr(self, name) != getattr(CertifyConfig, name):
                other = "it certifies --radii in l2" if smoothing else "its bounds need no samples"
                raise UserError(f"{flag(name)} has no meaning for --method {self.method}: leave it out, as {other}")
        if self.eps and parse_eps(self.eps) == 0:
            raise UserError("an eps of 0 certifies nothing but the image itself: give one above 0, such as 8/255")
        if not 0 < self.sigma <= MAX_SIGMA:
            raise UserError(
                f"a sigma of {self.sigma:g} cannot be: give the noise's deviation for images in [0, 1], above 0 and at "
                f"most {MAX_SIGMA:g}, such as 0.25"
            )
        if not 0 < self.alpha < 0.5:
            raise UserError(f"an alpha of {self.alpha:g} certifies nothing: take a small probability, such as 0.001")
        for name, most in (("samples", 10**8), ("guesses", 10**8), ("draws", 10**5), ("steps", 10**5)):
            check_range(self, name, 1, most)


@dataclass(frozen=True)
class ScoreConfig(Settings):
    """What generated images are scored by."""

    metrics: str = "fd,kid,prdc"
    """Metrics, as fd,kid,prdc; also fid, is, fd-infinity, fid-infinity, cmmd, authenticity."""
    extractor: str = "auto"
    """Feature extractor: inception, lite0, dinov2, clip, vgg16, any with :PATH to its weights, or classifier:RUN."""
    n: int = 10_000
    """Number of images to generate, or to take from a folder."""
    n_real: int | None = None
    """Number of real images to compare with; as many as --n by default."""
    split: str = "train"
    """Split of the real images: train, test or another."""
    seed: int = 0
    """Seed of the generated images and of everything else random."""
    deterministic: bool = False
    """Use deterministic kernels only: the same bits on each run, on a GPU too, where it is slower."""

    def __post_init__(self) -> None:
        for name, value in (("-n", self.n), ("--n-real", self.n_real)):
            if value is not None and value < 2:
                raise UserError(f"{name} {value} cannot work, as one image has no spread: give 2 or more")


@dataclass(frozen=True)
class SampleConfig(Settings):
    """Which images are generated."""

    n: int = 64
    """Number of images; for a gif, how many it passes through."""
    seed: int = 0
    """Seed of the latents: the first images are the same for every n."""
    seeds: str | None = None
    """One image for each of these seeds in place of n and seed, such as 3,17,40-50: the first one that it gives."""
    truncation: float = 1.0
    """Truncation: below 1 the latents are closer to the mean, so images are less varied, often cleaner."""
    label: str | None = None
    """Generate only this class, by name or number (conditional generators)."""

    def __post_init__(self) -> None:
        check_range(self, "n", 1, MAX_IMAGES)
        if self.seeds is None:
            return
        parse_seeds(self.seeds)
        for name in ("n", "seed"):
            if getattr(self, name) != getattr(SampleConfig, name):
                raise UserError(f"--seeds {self.seeds} already says which images: leave {flag(name)} out")


@dataclass(frozen=True)
class ExploreConfig(Settings):
    """What is explored in a latent space. Each command has a use for some of these; the others must be left out."""

    n: int = 8
    """Number of latents, or of images at most."""
    seed: int = 0
    """Seed of the latents: the first ones are the same for every n."""
    images: str | None = None
    """A folder or a zip of images to invert, cropped to the proportions of the generator's (invert only)."""
    skip_bad: bool = False
    """Skip images that cannot be read (invert only)."""
    truncation: float | None = None
    """Truncation: below 1 the latents are closer to the mean; 1 by default."""
    label: str | None = None
    """Generate only this class, by name or number (conditional generators)."""
    interpolation: str | None = None
    """How a walk interpolates: sphere (the default), as normal latents lie near one, or line."""
    count: int | None = None
    """Number of directions; 6 by default."""
    reach: float | None = None
    """How far a direction is followed to both sides, in standard deviations of the latent; 3 by default."""
    depth: int | None = None
    """Layer whose activations pca takes, 0 for the first; 1 by default."""
    starts: int | None = None
    """Random starts per image (invert only); 8 by default."""
    steps: int | None = None
    """Optimization steps per start (invert only); 300 by default."""


@dataclass(frozen=True)
class EquilibriumConfig(Settings):
    """How the distance of a GAN from its equilibrium is measured."""

    steps: int = 300
    """Training steps of a fresh discriminator, and of either player alone: the budget of three values."""
    n: int = 2000
    """Number of held-out real images, and of generated ones."""
    data: str | None = None
    """The place of the run's own data now, if they were moved."""
    real: str | None = None
    """Held-out real images: a name, a folder, a zip or shards; by default the test images, or those of --hold-out."""
    classifier: str | None = None
    """A classifier of the data, for the entropy of classes: as for rivals attack."""
    seed: int = 0
    """Seed of the generated images and of everything else random."""

    def __post_init__(self) -> None:
        check_range(self, "steps", 1, 10**6)
        check_range(self, "n", 50, 10**8)
