"""How far from the draw, against games whose distance is known: Gaussians, and tiny runs from end to end."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import integrate, stats
from torch import nn
from torch.nn.functional import softplus

import rivals
from rivals.api.common.model_zoo import NamedModel, find_model
from rivals.api.equilibrium import estimation
from rivals.base.errors import UserError
from rivals.base.run_folder import Run
from rivals.base.size import Size
from rivals.losses.gan import LOSSES, make_loss, nonsaturating, relativistic
from rivals.metrics.equilibrium import (
    ConfidenceInterval,
    balanced_accuracy,
    calibrate,
    cross_entropy_loss,
    duality_gap,
    game_value,
    jsd_bound,
    overfitting_rt,
    overfitting_rv,
    platt_scaling,
    tv_bound,
)
from rivals.reports.history import History
from rivals.reports.image_grid import make_grid, save_png, split_grid

N = 20_000


def gaussians(shift, n=N, seed=0):
    """Real points of N(0, 1) and generated ones of N(shift, 1)."""
    draw = torch.randn(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draw[0], draw[1] + shift


def best(x, shift):
    """The logit of the best discriminator, ``log p(x) - log g(x)``."""
    return shift**2 / 2 - shift * x


def true_jsd(shift):
    """By quadrature: E over p of softplus(-logit), and the like over g."""
    p, g = stats.norm(0), stats.norm(shift)

    def inside(x):
        logit = p.logpdf(x) - g.logpdf(x)
        return p.pdf(x) * np.logaddexp(0, -logit) + g.pdf(x) * np.logaddexp(0, logit)

    return math.log(2) - integrate.quad(inside, -12, 12 + shift, limit=200)[0] / 2


def true_tv(shift):
    return 2 * stats.norm.cdf(shift / 2) - 1


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0, 4.0])
def test_the_best_discriminator_reaches_both_bounds(shift):
    x, g = gaussians(shift)
    real, fake = best(x, shift), best(g, shift)
    bound, accuracy = jsd_bound(real, fake), balanced_accuracy(real, fake)
    assert bound.low < true_jsd(shift) < bound.high
    assert bound.value == pytest.approx(true_jsd(shift), rel=0.1)
    tv = tv_bound(accuracy)
    assert tv.low < true_tv(shift) < tv.high
    assert cross_entropy_loss(real, fake).value == pytest.approx(2 * math.log(2) - 2 * bound.value)


@settings(max_examples=40, deadline=None)
@given(st.floats(-6, 6), st.floats(-4, 4), st.floats(0, 3), st.integers(0, 100))
def test_no_discriminator_proves_more_than_there_is(slope, bias, shift, seed):
    x, g = gaussians(shift, 4000, seed)
    real, fake = slope * x + bias, slope * g + bias
    # Three of the interval's arms, for there are many examples.
    assert jsd_bound(real, fake).value - true_jsd(shift) <= 3 * (
        jsd_bound(real, fake).high - jsd_bound(real, fake).value
    )
    tv = tv_bound(balanced_accuracy(real, fake))
    assert tv.value - true_tv(shift) <= 3 * (tv.high - tv.value) + 1e-12


def test_the_interval_covers_as_often_as_it_says():
    inside, truths = [0, 0], (true_jsd(1.0), true_tv(1.0))
    for seed in range(200):
        x, g = gaussians(1.0, 300, seed)
        real, fake = best(x, 1.0), best(g, 1.0)
        found = jsd_bound(real, fake), tv_bound(balanced_accuracy(real, fake))
        for place, (each, truth) in enumerate(zip(found, truths, strict=True)):
            inside[place] += each.low <= truth <= each.high
    assert all(180 <= count <= 199 for count in inside), inside


def test_at_the_draw_and_where_nothing_is_in_common():
    nothing = torch.zeros(100)
    assert jsd_bound(nothing, nothing).value == pytest.approx(0, abs=1e-12)
    assert balanced_accuracy(nothing, nothing).value == 0.5  # a tie is half right
    assert cross_entropy_loss(nothing, nothing).value == pytest.approx(2 * math.log(2))
    sure = torch.full((100,), 50.0)
    assert jsd_bound(sure, -sure).value == pytest.approx(math.log(2))
    accuracy = balanced_accuracy(sure, -sure)
    assert (accuracy.value, accuracy.high) == (1, 1) and 0.9 < accuracy.low < 1
    assert jsd_bound(-sure, sure).value < -40  # wrong for certain: it proves nothing


def test_accuracy_is_balanced_and_uses_its_threshold():
    real, fake = torch.tensor([2.0, 2, 2, -1]), torch.tensor([-1.0, -1])
    assert balanced_accuracy(real, fake).value == pytest.approx((3 / 4 + 1) / 2)
    assert balanced_accuracy(real, fake, threshold=-2.0).value == pytest.approx((1 + 0) / 2)


def test_scores_of_any_scale_are_read_out():
    x, g = gaussians(1.5)
    for scale, offset in ((1.0, 0.0), (-0.01, 3.0), (500.0, -7000.0)):
        real, fake = calibrate(scale * x + offset, scale * g + offset)
        assert jsd_bound(real, fake).value == pytest.approx(true_jsd(1.5), rel=0.06)
        assert tv_bound(balanced_accuracy(real, fake)).value == pytest.approx(true_tv(1.5), rel=0.05)
    slope, bias = platt_scaling(x, g)
    assert (slope, bias) == (pytest.approx(-1.5, rel=0.05), pytest.approx(1.125, rel=0.08))


def test_calibration_of_random_scores_gives_no_bound():
    values = []
    for seed in range(40):
        real, fake = calibrate(*gaussians(0.0, 200, seed))
        values.append(jsd_bound(real, fake).value)
    assert np.mean(values) < 0  # what it was fitted on would give a value above 0
    same = calibrate(torch.ones(10), torch.ones(10))
    assert torch.equal(same[0], same[1]) and same[0].abs().max() < 1e-6
    apart = calibrate(torch.arange(10.0) + 100, torch.arange(10.0))
    assert all(bool(side.isfinite().all()) for side in apart) and balanced_accuracy(*apart).value == 1


def test_overfitting_differs_from_generalization():
    draw = lambda mean, seed: mean + torch.randn(2000, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    healthy = overfitting_rv(draw(2, 0), draw(2, 1), draw(-2, 2))
    assert healthy.low < 0 < healthy.high and healthy.high - healthy.low < 0.1
    memorized = overfitting_rv(draw(2, 0), draw(-2, 1), draw(-2, 2))
    assert memorized.value == pytest.approx(1, abs=0.05)
    half = overfitting_rv(draw(2, 0), draw(0, 1), draw(-2, 2))
    assert half.low < 0.5 < half.high
    unknowing = overfitting_rv(draw(0, 0), draw(0, 1), draw(0, 2))
    assert unknowing.high - unknowing.low > 1
    assert overfitting_rt(draw(50, 0)).value == 1
    assert overfitting_rt(draw(0, 0)).low < 0 < overfitting_rt(draw(0, 0)).high


@pytest.mark.parametrize("name", LOSSES)
def test_at_the_draw_each_games_value_is_minus_its_loss_and_its_gap_is_0(name):
    loss = LOSSES[name]
    d = loss.equilibrium["d"] or 0.0
    at = math.log(d / (1 - d)) if loss.unit == "probability" else d
    answers = torch.full((100,), at)
    value = game_value(loss.discriminator, answers, answers)
    assert value.tolist() == pytest.approx([-loss.equilibrium["loss/discriminator"]] * 25)
    assert duality_gap(value, value) == ConfidenceInterval(0, 0, 0)


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_the_gap_of_a_generator_that_is_off_against_a_coin(shift):
    # M(D', G) with the best D' is 2 JSD - 2 log 2; against D = 1/2, G can gain nothing: M(D, G') = -2 log 2.
    x, g = gaussians(shift)
    up = game_value(nonsaturating().discriminator, best(x, shift), best(g, shift))
    down = game_value(nonsaturating().discriminator, torch.zeros(N), torch.zeros(N))
    gap = duality_gap(up, down)
    assert gap.low < 2 * true_jsd(shift) < gap.high
    assert gap.value == pytest.approx(2 * true_jsd(shift), rel=0.1)


def test_a_pairing_loss_reads_pairs():
    real, fake = torch.arange(50.0), torch.arange(50.0) - 1
    value = game_value(relativistic.discriminator, real, fake)
    assert value.tolist() == pytest.approx([-softplus(torch.tensor(-1.0)).item()] * 25)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: jsd_bound(torch.zeros(1), torch.zeros(5)), "2 images or more"),
        (lambda: jsd_bound(torch.zeros(5, 2), torch.zeros(5)), r"give \(n,\)"),
        (lambda: balanced_accuracy(torch.tensor([0.0, math.nan]), torch.zeros(2)), "is not finite"),
        (lambda: calibrate(torch.zeros(3), torch.zeros(9)), "too few"),
        (lambda: game_value(make_loss("hinge").discriminator, torch.zeros(9), torch.zeros(9)), "25 parts"),
        (lambda: rivals.equilibrium("nowhere"), "is not a run"),
        (lambda: rivals.equilibrium("nowhere", steps=0), "--steps 0 cannot work: take 1"),
        (lambda: rivals.equilibrium("nowhere", n=3), "-n 3 cannot work: take 50"),
    ],
)
def test_impossible_input_is_refused_in_one_line(call, word):
    with pytest.raises(UserError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """160 pictures of 8 px: dark cats and bright dogs."""
    from rivals.reports.image_grid import save_folder

    home = tmp_path_factory.mktemp("photos")
    for place, name in enumerate(("cats", "dogs")):
        pixels = np.random.default_rng(place).integers(100 * place, 100 * place + 100, (80, 1, 8, 8))
        save_folder(pixels.astype(np.uint8), home / name)
    return home


SMALL = {
    "recipe": "quick",
    "generator_widths": (8,),
    "discriminator_widths": (8,),
    "batch_size": 8,
    "latent_dim": 4,
    "sample_grid": 6,
    "quiet": True,
}


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A run of 20 steps with images kept aside, evaluated however long that takes."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rivals.api.training.gan.MAX_SHARE", None)
        return rivals.train(str(photos), until="20 steps", out=out, hold_out=60, **SMALL)


def test_a_run_is_evaluated_on_held_out_images(run):
    evaluations = [record for record in run.records() if "equilibrium/accuracy" in record]
    assert [record["step"] for record in evaluations] == list(range(21))
    assert all(0 <= record["equilibrium/accuracy"] <= 1 for record in evaluations)
    bounds = [record["equilibrium/jsd_bound"] for record in evaluations if "equilibrium/jsd_bound" in record]
    assert all(bound <= math.log(2) for bound in bounds)
    grids = [record for record in run.records() if "sample_grid" in record]
    assert all(0 <= record["entropy/pixels"] <= 8 for record in grids)
    assert run.info["held_out"]["n"] == 60 and run.info["data"]["n"] == 160
    assert 6 < run.info["data_entropy"] < math.log2(200)


def test_evaluation_and_resuming_do_not_change_the_run(photos, run, tmp_path):
    again = rivals.train(str(photos), until="9 steps", out=tmp_path / "run", hold_out=60, **SMALL)
    again = rivals.train(out=again.folder, resume=True, until="20 steps", quiet=True)
    names = ("generator.safetensors",)
    assert all((run.folder / name).read_bytes() == (again.folder / name).read_bytes() for name in names)
    last = [[r for r in each.records() if "equilibrium/accuracy" in r][-1] for each in (run, again)]
    assert {k: v for k, v in last[0].items() if k != "seconds"} == {k: v for k, v in last[1].items() if k != "seconds"}


@pytest.fixture(scope="module")
def found(run, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "classifier"
    widths = (8,)
    rivals.classify(str(photos), recipe="cnn", widths=widths, until="2 epochs", batch_size=16, out=out, quiet=True)
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    found = rivals.equilibrium(run.folder, steps=4, n=60, classifier=str(out), quiet=True)
    changed = {name for name, content in before.items() if (run.folder / name).read_bytes() != content}
    assert changed == {"report.html"}
    return found


def test_every_value_is_reported_with_its_protocol(found, run):
    values = {(record["name"], record["discriminator"]): record for record in found.values}
    for record in values.values():
        assert record["n_real"] == record["n_fake"] > 0 and record["split"] and record["seed"] == 0
        assert math.isfinite(record["value"])
        if record["low"] is not None:
            assert record["low"] <= record["value"] <= record["high"]
    assert values["accuracy", "fresh"]["budget"] == "4 steps of 8, the best of 10 evaluations"
    assert values["duality gap", "trained further"]["unit"] == "D's loss (relativistic)"
    # A relativistic score is no probability and has no zero: so no value says that it had.
    assert not {name for name, who in values if who == "as trained"} - {"r_v"}
    said = str(found)
    assert all(f"{record['name']}: {record['value']:.4g}" in said for record in found.values)
    assert "budget: 4 steps of 8" in said and "split: " in said and "n real: 60" in said
    assert values["class entropy of the data", ""]["value"] <= math.log(2)
    assert len(found.history) == len(list(run.samples.glob("*.png")))
    assert json.loads((run.folder / "equilibrium.json").read_text()) == json.loads(json.dumps(found.as_dict()))


def test_measuring_again_gives_the_same(found, run):
    again = rivals.equilibrium(run.folder, steps=4, n=60, quiet=True)
    kept = [record for record in found.values if "classifier" not in record]
    assert again.values == kept


def test_the_command_gives_the_same_values(run_rivals, found, run):
    status, out, err = run_rivals(
        "score", str(run.folder), "--equilibrium", "--steps", "4", "-n", "60", "--quiet", "--json"
    )
    assert status == 0, err
    result = json.loads(out)
    assert result["values"] == [record for record in found.values if "classifier" not in record]


def test_an_interval_without_ends_is_null(run, monkeypatch):
    """A discriminator that gives all images the same logit: r_v is 0 / 0."""
    (run.folder / "equilibrium.json").unlink(missing_ok=True)
    monkeypatch.setattr(estimation.ProbeSet, "logits", lambda *_: (torch.zeros(60),) * 3)
    found = rivals.equilibrium(run.folder, steps=1, n=60, quiet=True)
    text = (run.folder / "equilibrium.json").read_text()
    written = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (r_v,) = (record for record in written["values"] if record["name"] == "r_v")
    assert (r_v["value"], r_v["low"], r_v["high"]) == (0, None, None)
    assert "r_v: 0\n" in str(found)
    assert "r_v" in (run.folder / "report.html").read_text()


class Said(nn.Module):
    """What a classifier returns in place of its logits."""

    def __init__(self, net, how):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x):
        return self.how(self.net(x))


def entropies(found):
    return [record["value"] for record in found.values if "classifier" in record]


def test_a_classifier_is_read_as_an_attack_reads_it(found, run, photos, tmp_path, monkeypatch, capsys):
    net = rivals.load(found.values[-1]["classifier"])
    trained = []
    monkeypatch.setattr(estimation, "train_alone", lambda *_: trained.append(1))

    def measured(how, quiet=True):
        given = dataclasses.replace(find_model(net), model=Said(net, how))
        monkeypatch.setattr(estimation, "find_model", lambda name: given)
        return rivals.equilibrium(run.folder, steps=1, n=60, classifier="given", quiet=quiet)

    for how in (lambda z: z.softmax(1), lambda z: SimpleNamespace(logits=z), lambda z: {"logits": z}):
        other = measured(how)
        assert entropies(other) == pytest.approx(entropies(found), rel=1e-4)
        for one, two in zip(other.history, found.history, strict=True):
            assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
    assert entropies(measured(lambda z: z[:, :1] - z[:, 1:])) == pytest.approx(entropies(found), rel=1e-4)
    measured(lambda z: z[:, 0], quiet=False)
    assert "one logit per image" in capsys.readouterr().err


def test_a_classifier_that_does_not_fit_costs_no_training(run, monkeypatch):
    monkeypatch.setattr(estimation, "train_alone", lambda *_: pytest.fail("trained before the classifier was read"))
    wrong = {
        "takes images of 9 px": NamedModel(nn.Identity(), "given", Size(9, 9)),
        "returns a set": NamedModel(Said(nn.Identity(), lambda z: {1}), "given"),
        "the model fails on images": NamedModel(nn.Linear(5, 2), "given"),
    }
    for said, model in wrong.items():
        monkeypatch.setattr(estimation, "find_model", lambda name, model=model: model)
        with pytest.raises(UserError, match=said):
            rivals.equilibrium(run.folder, steps=1, n=60, classifier="given", quiet=True)


@pytest.mark.parametrize(("n", "size", "channels"), [(6, "8", 1), (7, "28", 3), (1, "300", 1), (5, "24x9", 3)])
def test_a_sample_grid_is_cut_into_its_images(n, size, channels, tmp_path):
    size = Size.parse(size)
    images = np.random.default_rng(n).integers(0, 256, (n, channels, *size), dtype=np.uint8)
    path = tmp_path / "grid.png"
    save_png(make_grid(images), path)
    assert (split_grid(path, n, size) == images).all()
    with pytest.raises(UserError, match="has another size"):
        split_grid(path, n, Size(size.height + 200, size.width))


def test_the_page_is_made_from_files_alone(found, run, tmp_path):
    (run.folder / "equilibrium.json").write_text(json.dumps(found.as_dict()))
    from rivals.reports.plots.equilibrium import panels
    from rivals.reports.sections.equilibrium import section, summary

    history = History(Run.open(run.folder))
    assert [panel.title for panel in panels(history, found.as_dict())] == [
        "Who is ahead",
        "Divergence of real and generated images, lower bounds",
        "Entropy of generated images",
    ]
    page = section(history)
    for word in ("D ahead", "fresh D", "real data", "duality gap", "classes"):
        assert word in page
    assert len(summary(history, found.as_dict())) >= 3
    (run.folder / "equilibrium.json").write_text("broken")
    assert "D ahead" in section(history) and "Duality gap" not in section(history)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_can_be_measured(name, photos, tmp_path, monkeypatch):
    for place in ("report.write_report", "plots.training.save_curves"):  # which take longer than all the rest
        monkeypatch.setattr(f"rivals.reports.{place}", lambda *_: None)
    monkeypatch.setattr(estimation, "write_report", lambda *_: None)
    extra = {"gp": 10} if name == "wasserstein" else {}
    out = tmp_path / "run"
    kept = {**SMALL, "recipe": "dcgan", "loss": name, "hold_out": 60, **extra}
    rivals.train(str(photos), until="2 steps", out=out, conditional=name == "hinge", **kept)
    found = rivals.equilibrium(out, steps=1, n=60, quiet=True)
    names = {(record["name"], record["discriminator"]) for record in found.values}
    assert (("D's loss", "as trained") in names) == (name in ("minimax", "nonsaturating"))
    assert (("accuracy", "as trained") in names) == (name not in ("wasserstein", "relativistic", "hinge"))


def test_a_run_without_held_out_images_has_none_for_evaluation(photos, tmp_path):
    run = rivals.train(str(photos), until="2 steps", out=tmp_path / "run", **SMALL)
    assert not [record for record in run.records() if "equilibrium/accuracy" in record]
    assert run.info["held_out"] is None
    with pytest.raises(UserError, match="--hold-out 500"):
        rivals.equilibrium(run.folder, quiet=True)
    with pytest.raises(UserError, match=r"take 50 to half of them"):
        rivals.train(str(photos), until="2 steps", out=tmp_path / "other", **SMALL, hold_out=100)
    with pytest.raises(UserError, match="was trained on 160 of the 160 images of --real"):
        rivals.equilibrium(run.folder, real=str(photos), steps=1, n=60, quiet=True)
    for name in ("cats", "dogs"):
        (tmp_path / "others" / name).mkdir(parents=True)
        for picture in (photos / name).iterdir():
            pixels = np.asarray(Image.open(picture))
            Image.fromarray(pixels[::-1].copy()).save(tmp_path / "others" / name / picture.name)
    given = rivals.equilibrium(run.folder, real=str(tmp_path / "others"), steps=1, n=60, quiet=True)
    assert given.values[0]["n_real"] == 60


def test_images_that_were_trained_on_are_left_out_of_those_given(tmp_path, capsys):
    """Less than half of the images given are training images: those bound nothing."""
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (150, 8, 8), dtype=np.uint8)
    for folder, chosen in (("photos", range(60)), ("mixed", range(20, 150)), ("rest", range(60, 150))):
        (tmp_path / folder).mkdir()
        for number in chosen:
            Image.fromarray(pictures[number]).save(tmp_path / folder / f"{number:03d}.png")
    tiny = {"recipe": "mlp", "generator_widths": (8,), "discriminator_widths": (8,), "sample_grid": 4, "batch_size": 8}
    run = rivals.train(str(tmp_path / "photos"), **tiny, until="2 steps", out=tmp_path / "run", quiet=True)
    capsys.readouterr()
    found = rivals.equilibrium(run.folder, real=str(tmp_path / "mixed"), steps=1, n=200)
    assert "trained on 40 images of --real" in capsys.readouterr().err
    assert found.values[-1]["n_real"] == 90 and all(each["left_out"] == 40 for each in found.values)
    alone = rivals.equilibrium(run.folder, real=str(tmp_path / "rest"), steps=1, n=200, quiet=True)
    assert "left_out" not in alone.values[0]
    assert [each["value"] for each in found.values] == [each["value"] for each in alone.values]
    for number in range(60, 101):
        (tmp_path / "mixed" / f"{number:03d}.png").unlink()
    with pytest.raises(UserError, match=r"trained on 40 of the 89 images of --real .* 49 others are too few"):
        rivals.equilibrium(run.folder, real=str(tmp_path / "mixed"), steps=1, quiet=True)


def test_few_images_that_d_separates_prove_no_certain_divergence():
    """With an overlap of 4%, 25 of each often show none of it: the lower end must stay below the truth."""
    alone = jsd_bound(torch.full((25,), 12.0), torch.full((25,), -12.0))
    assert alone.value == pytest.approx(math.log(2), abs=1e-4) and alone.low < 0.95 * alone.value
    truth, above, source = 0.96 * math.log(2), 0, torch.Generator().manual_seed(0)
    for _ in range(400):
        # The optimal D: sure outside the overlap, and at 0 in it, where both densities are equal.
        logits = [12.0 * (torch.rand(25, generator=source) >= 0.04) for _ in range(2)]
        above += jsd_bound(logits[0], -logits[1]).low > truth
    assert above <= 18  # 10 of 400 are expected at most


def test_a_run_is_not_evaluated_on_its_own_training_images(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for number in range(60):
            pixels = np.random.default_rng(number + 100 * (split == "test")).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / split / f"{number}.png")
    tiny = {"recipe": "mlp", "generator_widths": (8,), "discriminator_widths": (8,), "sample_grid": 4, "batch_size": 8}
    run = rivals.train(str(tmp_path / "photos"), **tiny, until="2 steps", out=tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="was trained on 60 of the 60 images of --real"):
        rivals.equilibrium(run.folder, real=str(tmp_path / "photos" / "train"), steps=1, n=60, quiet=True)
    assert rivals.equilibrium(run.folder, real=str(tmp_path / "photos" / "test"), steps=1, n=60, quiet=True).values
