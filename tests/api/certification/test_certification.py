"""``rivals certify`` as a user runs it, and from Python: valid bounds, refusals in one line, resuming."""

import pytest
import torch

import rivals
from rivals.base.errors import UserError
from rivals.base.rng import generator
from rivals.defenses import BitDepth, PurifiedModel
from rivals.metrics.certified_curve import certified_robustness
from rivals.metrics.randomized_smoothing import ABSTAIN, min_samples, outvoted, sample_under_noise
from rivals.nets.wrappers import SmoothedClassifier

RADII = (0.1, 0.2, 0.3, 0.5)


class Linear(torch.nn.Module):
    """Two classes, on the two sides of a plane with a normal of length 1."""

    def __init__(self, dimensions=12, classes=2):
        super().__init__()
        weights = torch.randn(dimensions, generator=generator("w"), dtype=torch.float64)
        self.weights = torch.nn.Parameter(weights / weights.norm())
        self.classes = classes

    def forward(self, x):
        lead = (x.flatten(1) - 0.5) @ self.weights
        rest = torch.full((len(x), self.classes - 2), -9.0, dtype=x.dtype)
        return torch.cat([-lead[:, None], lead[:, None], rest], dim=1)


def images(count=30):
    """Images near the middle of the box, so that its walls are no help to the classifier, and their labels."""
    model = Linear()
    # Along the normal each image has its own distance from the plane; of the sides, one label is wrong.
    distances = torch.linspace(-0.6, 0.6, count, dtype=torch.float64)
    x = (0.5 + distances[:, None] * model.weights.detach()).view(count, 3, 2, 2)
    y = (distances > 0).long()
    y[0] = 1 - y[0]
    assert x.min() > 0
    assert x.max() < 1
    return x, y, distances.abs()


@pytest.fixture(scope="module")
def linear():
    """A linear classifier's bounds, with the images' exact radii."""
    x, y, exact = images()
    return rivals.certify(Linear(), (x, y), sigma=0.25, radii=RADII, quiet=True), exact, y


def test_the_robust_accuracy_of_a_linear_classifier_lies_between_the_bounds(linear):
    """The smoothed classifier has the same plane, so an image's exact radius is its distance from it."""
    report, exact, _ = linear
    open_ = []
    for point in report.curve:
        truth = int((exact[1:] > point.radius).sum())  # the first label is wrong
        assert point.lower.count <= truth <= point.upper.count
        open_.append(point.upper.count - point.lower.count)
    assert max(open_) <= 6  # 30 images, 1.2 / 29 apart: what 1,000 samples and 500 confirmation samples leave undecided
    assert report.curve[0].lower.count >= 25
    assert report.curve[-1].upper.count < report.curve[0].upper.count


def test_a_purified_model_is_certified_as_one_that_clips_its_images():
    """Denoised smoothing: noise far out of the range is clipped, but images of another range are refused."""
    y = torch.arange(6) % 2
    x = (0.3 + 0.4 * y.float()).view(-1, 1, 1, 1).expand(-1, 1, 4, 4) + torch.arange(6).view(-1, 1, 1, 1) / 100

    class Brightness(torch.nn.Module):
        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return 20 * torch.stack([0.5 - mean, mean - 0.5], 1)

    class Clipped(Brightness):
        def forward(self, x):
            return super().forward((x.clamp(0, 1) * 7).round() / 7)

    how = {"sigma": 0.5, "radii": (0.1, 0.5), "samples": 200, "quiet": True}
    purified = PurifiedModel(Brightness(), BitDepth(3), "bpda")
    found, clipped = (rivals.certify(model, (x, y), **how) for model in (purified, Clipped()))
    assert [point.lower for point in found.curve] == [point.lower for point in clipped.curve]
    assert found.curve[0].lower.count > 0
    with pytest.raises(UserError, match="give PurifiedModel their bounds"):
        purified(4 * x - 2)


def test_the_curves_fall_and_never_cross(linear):
    report, _, _ = linear
    lower = [point.lower.count for point in report.curve]
    upper = [point.upper.count for point in report.curve]
    assert lower == sorted(lower, reverse=True)
    assert upper == sorted(upper, reverse=True)
    assert all(below <= above for below, above in zip(lower, upper, strict=True))
    assert [point.radius for point in report.curve] == [0.0, *RADII]


def test_the_bounds_are_counted_from_the_records():
    records = [
        {"label": 1, "prediction": 1, "radius": 0.4, "adversarial_radius": None},
        {"label": 1, "prediction": 1, "radius": 0.2, "adversarial_radius": 0.4},
        {"label": 1, "prediction": 0, "radius": 0.9, "adversarial_radius": 0.0},
        {"label": 1, "prediction": ABSTAIN, "radius": 0.0, "adversarial_radius": None},
    ]
    found = certified_robustness(records, [0.0, 0.2, 0.4], upper=True, largest=1.0, protocol={}, seconds=0)
    assert [(point.lower.count, point.upper.count) for point in found.curve] == [(2, 3), (2, 3), (1, 2)]
    assert (found.abstained.count, found.average_certified_radius) == (1, pytest.approx(0.15))
    alone = certified_robustness(records, [0.0], upper=False, largest=1.0, protocol={}, seconds=0)
    assert alone.curve[0].upper is None
    assert alone.as_dict()["curve"][0]["upper"] is None


def test_results_depend_neither_on_order_nor_on_batches(linear):
    report, _, y = linear
    x = images()[0]
    turned = rivals.certify(Linear(), (x.flip(0), y.flip(0)), sigma=0.25, radii=RADII, batch_size=50, quiet=True)
    assert turned.curve == report.curve
    assert turned.abstained == report.abstained
    assert turned.average_certified_radius == pytest.approx(report.average_certified_radius)
    other = rivals.certify(Linear(), (x, y), sigma=0.25, radii=RADII, seed=1, quiet=True)
    assert other.average_certified_radius != report.average_certified_radius


def test_the_model_and_the_random_state_come_back_as_they_were():
    model = Linear(classes=3).train()
    state = torch.random.get_rng_state()
    x, y, _ = images(4)
    report = rivals.certify(model, (x, y), sigma=0.25, samples=50, quiet=True)
    assert report.n == 4
    assert model.training
    assert model.weights.requires_grad
    assert model.weights.grad is None
    assert torch.equal(state, torch.random.get_rng_state())


def test_smoothing_is_the_log_of_the_mean_probability():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    smoothed = SmoothedClassifier(model, 0.5, 8, seed=3)
    x = torch.rand(5, 3, 2, 2, generator=generator("x"))
    with torch.no_grad():
        noise = 0.5 * torch.randn((8, 3, 2, 2), generator=generator(3, "smoothed"))
        wanted = torch.stack([model(x + each).softmax(1) for each in noise]).mean(0)
        torch.testing.assert_close(smoothed(x).exp(), wanted)
        torch.testing.assert_close(smoothed(x[1:2]), smoothed(x)[1:2])
        torch.testing.assert_close(smoothed.double()(x.double()).exp().sum(1), torch.ones(5, dtype=torch.float64))


def test_misclassification_needs_a_clear_vote():
    assert outvoted(torch.tensor([30, 70, 0]), 0, 0.001)
    assert not outvoted(torch.tensor([40, 60, 0]), 0, 0.001)
    assert outvoted(torch.tensor([40, 60, 0]), 0, 0.06)
    assert not outvoted(torch.tensor([70, 30, 0]), 0, 0.4)
    assert not outvoted(torch.tensor([50, 50]), 0, 0.4)


def test_a_label_that_wins_is_outvoted_as_rarely_as_alpha_says():
    """Exactly at the draw, where it is hardest: two classes have the same probability."""
    middle = torch.full((1, 12), 0.5, dtype=torch.float64)
    model = Linear()
    wrong = 0
    with torch.no_grad():
        for seed in range(200):
            counts = sample_under_noise(model, middle[0][None], 0.25, 100, generator("tie", seed))
            assert int(counts.sum()) == 100
            wrong += outvoted(counts, 0, 0.1)
    assert 0 < wrong <= 20  # half of alpha on this side: 10 are to be expected


def test_the_required_number_of_samples_is_the_smallest_that_certifies():
    for alpha in (0.4, 0.1, 0.001, 2**-10):
        least = min_samples(alpha)
        assert alpha ** (1 / least) > 0.5
        assert least == 1 or alpha ** (1 / (least - 1)) <= 0.5


class Blind(Linear):
    def forward(self, x):
        return super().forward(x.detach())


class Probable(Linear):
    def forward(self, x):
        return super().forward(x).mul(9).softmax(1)


class Restless(Linear):
    """Randomized: it draws from the global random state."""

    def forward(self, x):
        logits = super().forward(x)
        return logits + 0.01 * torch.randn(logits.shape, dtype=x.dtype)


def test_a_model_without_a_gradient_is_certified_but_not_attacked():
    x, y, exact = images(10)
    report = rivals.certify(Blind(), (x, y), sigma=0.25, samples=200, radii=RADII, quiet=True)
    assert any("no gradient" in note for note in report.notes)
    assert report.curve[0].lower.count > 5
    assert report.curve[-1].upper.count == report.curve[0].upper.count == 9
    assert (exact[1:] > 0).all()


def test_probabilities_and_randomized_models_will_do():
    x, y, _ = images(8)
    for model in (Probable(), Restless()):
        found = [
            rivals.certify(model, pair, sigma=0.25, samples=200, radii=[0.3], quiet=True)
            for pair in ((x, y), (x.flip(0), y.flip(0)))
        ]
        assert found[0].curve == found[1].curve
        assert not found[0].notes
        assert found[0].curve[1].lower.count >= 2
        assert found[0].curve[1].upper.count < 7


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"sigma": 0}, ["sigma of 0", "0.25"]),
        ({"sigma": float("nan")}, ["sigma of nan"]),
        ({"sigma": 64}, ["sigma of 64", "at most 10"]),
        ({"alpha": 0.5}, ["alpha of 0.5"]),
        ({"alpha": 0.001, "samples": 9}, ["9 samples certify nothing", "take 10 or more"]),
        ({"guesses": 0}, ["--guesses 0"]),
        ({"steps": 0}, ["--steps 0"]),
        ({"draws": 0}, ["--draws 0"]),
        ({"batch_size": 0}, ["--batch-size 0", "take 1 to"]),
        ({"n": 0}, ["0 images"]),
        ({"radii": "0,x"}, ["'x' is not a radius"]),
        ({"radii": [-0.5]}, ["'-0.5' is not a radius"]),
        ({"resume": True}, ["--resume needs the run"]),
        ({"model": None}, ["no model was named"]),
        ({"data": None}, ["no data were named"]),
        ({"data": (torch.rand(2, 5), torch.zeros(2, dtype=torch.long))}, ["the model", "images of 5"]),
        ({"data": (torch.rand(2, 12, dtype=torch.float64), torch.tensor([0, 7]))}, ["labels hold 7"]),
    ],
)
def test_impossible_settings_are_refused_in_one_line(options, parts):
    x, y, _ = images(2)
    settings = {"model": Linear(), "data": (x, y), "sigma": 0.25, "quiet": True, **options}
    with pytest.raises(UserError) as refusal:
        rivals.certify(**settings)
    assert "\n" not in str(refusal.value)
    for part in parts:
        assert part in str(refusal.value)


def test_a_model_that_fails_is_reported_in_one_line():
    class Broken(Linear):
        def forward(self, x):
            raise KeyError("weights\nof the moon")

    class Lost(Linear):
        def forward(self, x):
            return super().forward(x) * float("nan")

    for model, part in ((Broken(), "KeyError"), (Lost(), "NaN")):
        with pytest.raises(UserError, match=part) as refusal:
            rivals.certify(model, images(2)[:2], sigma=0.25, quiet=True)
        assert "\n" not in str(refusal.value)
