"""Scores: values with their protocols, on known cases, from the command line, and during training."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.small_networks import small_net
from rivals.api.common.network_io import save_network
from rivals.api.scoring import feature_passes
from rivals.base.errors import UserError
from rivals.cli import main as cli
from rivals.data.imageset import ImageSet
from rivals.data.splits import hold_out
from rivals.extractors import weights
from rivals.extractors.efficientnet_lite0 import PACKAGE
from rivals.metrics.feature_set import feature_set
from rivals.metrics.generative import METRICS, MetricInput, display_name, parse_metrics
from rivals.metrics.results import Scores, Value
from rivals.nets.factory import build_generator

needs_lite0 = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="the extra lite0 is not installed")
PROTOCOL = (
    *("extractor", "extractor_hash", "resize", "real", "split", "real_size", "real_hash", "n_real", "real_of"),
    *("fake", "fake_split", "fake_size", "fake_hash", "n_fake", "fake_classes", "seed"),
)


@pytest.fixture
def eyes(tmp_path):
    """A small extractor by its name: a classifier, as it lies in a folder."""
    (tmp_path / "eyes").mkdir()
    save_network(small_net(), tmp_path / "eyes" / "classifier.safetensors", {})
    return f"classifier:{tmp_path / 'eyes'}"


def digits(n, split="train", start=0):
    """Real digits of 16 px, in a set of their own."""
    images = rivals.load_images("mnist5k", split=split, size=16, on_note=lambda note: None)
    places = np.random.default_rng(5).permutation(len(images))[start : start + n]
    return ImageSet("digits", split, images.images[places])


def scored(fake, real, eyes, metrics="fd,kid,prdc,authenticity", **how):
    return rivals.score(fake, real, metrics=metrics, extractor=eyes, quiet=True, **how)


def by_name(scores):
    return {value.metric: value.value for value in scores.values}


def test_the_same_images_are_at_no_distance(eyes):
    real = digits(150)
    same = by_name(scored(real, real, eyes))
    assert same["fd"] < 1e-6 and same["kid"] < 1e-6
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    assert same["authenticity"] == 0  # every image is its own copy


def test_known_cases_come_in_their_order(eyes):
    real = digits(200)
    fresh = by_name(scored(digits(200, start=500), real, eyes))
    source = torch.Generator().manual_seed(0)
    noise = by_name(scored(torch.randint(0, 256, (200, 1, 16, 16), dtype=torch.uint8, generator=source), real, eyes))
    repeated = by_name(scored(torch.from_numpy(real.images[:1]).repeat(200, 1, 1, 1), real, eyes))
    assert fresh["fd"] < repeated["fd"] / 10 and fresh["fd"] < noise["fd"] / 10
    assert fresh["kid"] < repeated["kid"] / 10 and fresh["kid"] < noise["kid"] / 10
    assert fresh["precision"] > 0.6 and fresh["recall"] > 0.6 and fresh["coverage"] > 0.8
    assert noise["precision"] == noise["recall"] == noise["density"] == noise["coverage"] == 0
    assert repeated["precision"] == 1 and repeated["recall"] < 0.05 and repeated["coverage"] < 0.05
    assert 0.3 < fresh["authenticity"] < 0.95 and repeated["authenticity"] == 0


def test_the_standard_error_of_the_distance_is_the_deviation_over_samples():
    source = torch.Generator().manual_seed(0)

    def view(n, shift=0.0):
        return feature_set(torch.randn(n, 4, generator=source) * 2 + shift)

    real = view(5000)
    errors, found = [], []
    for _ in range(40):
        evidence = scoring_evidence(real, view(400, 1.0))
        value = METRICS["fd"].measure(evidence)
        errors.append(value.error)
        found.append(value.value)
    assert np.mean(errors) == pytest.approx(np.std(found, ddof=1), rel=0.35)


def scoring_evidence(real, fake):
    from types import SimpleNamespace

    return MetricInput(real, fake, SimpleNamespace(name="eyes", official=True, dim=4, classes=0), 0)


def test_every_value_has_its_protocol_and_printing_drops_none_of_it(eyes):
    scores = scored(digits(60, start=100), digits(80), eyes, "fd,kid,is,prdc", n=50, n_real=70, seed=3)
    for value in scores.as_dict()["values"]:
        assert all(key in value for key in (*PROTOCOL, "name", "description", "value", "error", "settings", "notes"))
        assert (value["n_real"], value["n_fake"], value["real_of"], value["seed"]) == (70, 50, 80, 3)
        assert value["resize"] == "antialiased bilinear to 16 px" and value["extractor"] == "classifier"
        assert len(value["extractor_hash"]) == len(value["real_hash"]) == len(value["fake_hash"]) == 16
        said = str(scores)
        assert all(f"{key}: {value[key]}" in said for key in PROTOCOL)
        assert value["name"] in said and all(note in said for note in value["notes"])
        assert all(f"{key} {entry}" in said for key, entry in value["settings"].items())
    assert scores["fd"].name == "FD-classifier" and scores["is"].name == "IS-classifier"
    assert scores["kid"].settings == {"subsets": 100, "size": 50}
    assert (
        "strongly biased upward: 70 real and 50 generated images for 200 dimensions" in scores["FD-classifier"].notes[0]
    )
    assert all(value.error is not None for value in scores.values if value.metric != "density")


@pytest.mark.parametrize(
    ("metric", "extractor", "official", "name"),
    [
        ("fid", "inception", True, "FID"),
        ("fd", "inception", True, "FID"),
        ("fid", "inception", False, "FD-inception"),
        ("fd", "lite0", True, "FD-lite0"),
        ("fid-infinity", "inception", True, "FID-infinity"),
        ("fd-infinity", "dinov2", True, "FD-dinov2-infinity"),
        ("kid", "inception", True, "KID"),
        ("kid", "vgg16", True, "KID-vgg16"),
        ("is", "inception", True, "IS"),
        ("cmmd", "clip", True, "CMMD"),
        ("recall", "lite0", True, "recall"),
    ],
)
def test_fid_is_only_ever_inceptions(metric, extractor, official, name):
    from types import SimpleNamespace

    assert display_name(metric, SimpleNamespace(name=extractor, official=official, dim=1, classes=0)) == name


def test_what_has_no_weights_costs_only_its_own_metrics(eyes):
    scores = scored(digits(40), digits(40, start=40), eyes, "fid,fd,cmmd,fid-infinity")
    assert [value.metric for value in scores.values] == ["fd"]
    fid, cmmd = scores.missing
    assert fid.startswith("fid, fid-infinity: inception has no weights here: fetch https://github.com/toshas/")
    assert f"put it into {weights.home()}, or name the file as inception:PATH" in fid
    assert cmmd.startswith("cmmd: clip has no weights here: fetch https://huggingface.co/")
    with pytest.raises(UserError, match=r"^fid: inception has no weights here: fetch https"):
        scored(digits(40), digits(40), eyes, "fid")


def test_real_images_are_processed_once(eyes, tmp_path, monkeypatch):
    real, fake = digits(90), digits(90, start=90)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    looked = []
    extract_features = feature_passes.extract_features

    def counted(extractor, source, **how):
        looked.append(source.about["hash"])
        return extract_features(extractor, source, **how)

    monkeypatch.setattr(feature_passes, "extract_features", counted)
    first, second = (by_name(scored(fake, real, eyes)) for _ in range(2))
    assert first == second and looked == [real.hash, fake.hash, fake.hash]
    scored(fake, real, eyes, n_real=50)  # another number of images is another set
    assert looked.count(real.hash) == 2
    scored(fake, real, eyes, deterministic=True)  # and other kernels make other features
    monkeypatch.setattr(feature_passes, "numerics", lambda device: {"deterministic": False, "tf32": "convolutions"})
    scored(fake, real, eyes)
    assert looked.count(real.hash) == 4
    for kept in feature_passes.folder().glob("*"):
        kept.write_bytes(b"damaged")
    assert by_name(scored(fake, real, eyes)) == first


def all_of(source):
    """All images of a source."""
    return torch.cat([source.block(number) for number in range(source.n_blocks)])


def test_a_generated_image_does_not_depend_on_the_number_of_images():
    with torch.random.fork_rng():
        generator = build_generator("mlp", size=8, channels=1, classes=3, latent_dim=4, widths=(8,))
    real = ImageSet("real", "all", np.zeros((9, 1, 8, 8), np.uint8), np.arange(9) % 3, ("a", "b", "c"))
    few, many = (all_of(feature_passes.of_generator(generator, n, 5, "g", real)) for n in (70, 300))
    assert len(few) == 70 and torch.equal(few, many[:70])
    torch.testing.assert_close(many, generator.sample(300, seed=5), rtol=0, atol=1)
    source = feature_passes.of_generator(generator, 70, 5, "g", real)
    assert source.about["classes"] == "as in the real images" and source.about["seed"] == 5
    assert not torch.equal(all_of(feature_passes.of_generator(generator, 70, 6, "g", real)), few)


def test_images_of_a_sorted_set_are_taken_from_all_of_it():
    images = np.repeat(np.arange(100, dtype=np.uint8), 64).reshape(100, 1, 8, 8)
    places = feature_passes.of_set(ImageSet("sorted", "all", images), 20).indices
    assert len(set(places)) == 20 and places.max() > 80 and (np.diff(places) > 0).all()


def test_the_grid_shows_a_copy_next_to_its_original(eyes, tmp_path):
    real = digits(60)
    fake = ImageSet("copies", "all", real.images[10:30])
    scores = scored(fake, real, eyes, "fd", out=tmp_path / "out")
    picture = np.asarray(Image.open(scores.nearest_grid))
    side = 64
    assert scores.nearest_grid == str(tmp_path / "out" / "neighbors.png")
    assert np.array_equal(picture[:side, :side], picture[:side, side + 12 : 2 * side + 12])
    kept = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert kept["nearest_grid"] == "neighbors.png" and kept["values"][0]["name"] == "FD-classifier"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"metrics": "fd,kidd"}, "unknown metric 'kidd': did you mean kid"),
        ({"metrics": " , "}, "no metric is named"),
        ({"extractor": "incepton"}, "unknown extractor 'incepton': did you mean inception?"),
        ({"extractor": "classifier"}, "needs a network: write classifier:RUN"),
        ({"extractor": "classifier:nowhere"}, "no network at 'nowhere'"),
        ({"n": 1}, "-n 1 cannot work, as one image has no spread: give 2 or more"),
        ({"n_real": 0}, "--n-real 0 cannot work"),
        ({"metrics": "prdc", "n": 3}, "since each needs"),
        ({"metrics": "fd-infinity", "n": 40}, "too few to extrapolate"),
        ({"subject": ImageSet("one", "all", np.zeros((1, 1, 16, 16), np.uint8))}, "'one' has 1 image"),
        ({"data": ImageSet("one", "all", np.zeros((1, 1, 16, 16), np.uint8))}, "'one' has 1 image"),
        ({"subject": torch.zeros(0, 1, 16, 16, dtype=torch.uint8)}, "one or more"),
        ({"subject": torch.rand(5, 1, 16, 16)}, "cannot be scored: give uint8"),
        ({"subject": 3}, "a int cannot be scored"),
        ({"subject": "nowhere"}, "unknown data set 'nowhere'"),
        ({"subject": "empty"}, "empty"),
        ({"subject": "mixed"}, "mixed"),
        ({"data": None}, "no real images were named"),
        ({"data": "mnist6k"}, "unknown data set 'mnist6k': did you mean mnist5k"),
        ({"subject": torch.zeros(9, 3, 16, 16, dtype=torch.uint8)}, "made for images of 1 channels"),
    ],
)
def test_bad_input_gives_one_line(how, says, eyes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for i, size in enumerate((8, 9)):
        (tmp_path / "mixed").mkdir(exist_ok=True)
        Image.new("L", (size, size)).save(tmp_path / "mixed" / f"{i}.png")
    settings = {"subject": digits(30), "data": digits(30, start=30), "extractor": eyes, "quiet": True, "metrics": "fd"}
    settings |= how
    subject = settings.pop("subject")
    if isinstance(subject, str) and subject in ("empty", "mixed"):
        subject = tmp_path / subject
    with pytest.raises(UserError, match=says.replace("(", r"\(")) as error:
        rivals.score(subject, settings.pop("data"), **settings)
    assert "\n" not in str(error.value)


def test_a_list_of_metrics_is_read_once_each_in_order():
    assert parse_metrics("KID, prdc,recall") == ["kid", "precision", "recall", "density", "coverage"]


def test_scores_are_found_by_either_name_and_printed_with_their_error():
    scores = Scores([Value("fd", "FD-x", 1234.56, 7.0), Value("density", "density", 0.5)], ["fid: none"])
    assert scores["fd"] is scores["FD-x"] and "1,235 ± 7" in str(scores) and "missing: fid: none" in str(scores)
    with pytest.raises(KeyError):
        scores["kid"]


def run_cli(*words):
    with pytest.raises(SystemExit) as left:
        cli.main([str(word) for word in words])
    return left.value.code


FAST = ("--net", "mlp", "--generator-widths", "8", "--discriminator-widths", "8", "--latent-dim", "4", "--size", "16")
FAST += ("--sample-grid", "4", "--sample-every", "9 steps", "--quiet")


def test_a_run_is_scored_from_the_command_line_into_its_folder(eyes, tmp_path, capsys):
    out = tmp_path / "run"
    assert run_cli("train", "mnist5k", *FAST, "--until", "4 steps", "--out", out) == 0
    capsys.readouterr()
    words = ("score", out, "--metrics", "fd,kid,fid", "--extractor", eyes, "-n", 80, "--quiet", "--json")
    assert run_cli(*words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [value["name"] for value in result["values"]] == ["FD-classifier", "KID-classifier"]
    assert result["values"][0]["real"] == "mnist5k" and result["values"][0]["real_size"] == 16
    assert result["values"][0]["fake"] == str(out) and result["missing"][0].startswith("fid: inception has no weights")
    # Another metric joins; the same one takes the place of the old; the values of another generator go.
    assert run_cli("score", out, "--metrics", "kid,prdc", "--extractor", eyes, "-n", 80, "--quiet") == 0
    said = capsys.readouterr().out
    assert "precision" in said and "n_fake: 80" in said
    kept = json.loads((out / "scores.json").read_text())["values"]
    assert sorted(value["metric"] for value in kept) == ["coverage", "density", "fd", "kid", "precision", "recall"]
    page = (out / "report.html").read_text()
    assert "FD-classifier" in page and "extractor_hash" in page and "Nearest training images" in page
    assert run_cli("train", "--resume", "--out", out, "--until", "6 steps", "--quiet") == 0
    assert run_cli("score", out, "--metrics", "fd", "--extractor", eyes, "-n", 80, "--quiet") == 0
    assert [value["metric"] for value in json.loads((out / "scores.json").read_text())["values"]] == ["fd"]
    capsys.readouterr()
    assert run_cli("score", out, "--metrics", "fdd") == 2
    assert capsys.readouterr().err.startswith("rivals: unknown metric 'fdd': did you mean fd")


def test_a_run_is_compared_with_what_it_was_trained_on(eyes, tmp_path):
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 8, 8), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "photos" / f"{number:03d}.png")
    small = {"recipe": "mlp", "generator_widths": (8,), "discriminator_widths": (8,), "sample_grid": 4, "seed": 3}
    run = rivals.train(
        str(tmp_path / "photos"), **small, hold_out=50, until="2 steps", batch_size=8, out=tmp_path / "run", quiet=True
    )
    whole = rivals.load_images(str(tmp_path / "photos"))
    trained_on, held_out = hold_out(whole, 50, 3)
    assert run.info["held_out"]["hash"] == held_out.hash
    own = scored(run, None, eyes, metrics="fd", n=200)["fd"]
    assert (own.protocol["real_of"], own.protocol["real_hash"]) == (100, trained_on.hash)
    assert own.value == scored(run, trained_on, eyes, metrics="fd", n=200)["fd"].value
    named = scored(run, str(tmp_path / "photos"), eyes, metrics="fd", n=200)["fd"]
    assert named.protocol["real_of"] == 150


def test_a_run_of_a_classifier_has_no_sample_grids(tmp_path):
    save_network(small_net(), tmp_path / "classifier.safetensors", {})
    with pytest.raises(UserError, match="is not a generator"):
        rivals.score(tmp_path / "classifier.safetensors", "mnist5k", quiet=True)


@needs_lite0
def test_lite0_is_the_default_where_inception_is_not(tmp_path, capsys):
    source = torch.Generator().manual_seed(0)
    fake = tmp_path / "fake"
    from rivals.reports.image_grid import save_folder

    save_folder(torch.randint(0, 256, (20, 1, 16, 16), dtype=torch.uint8, generator=source).numpy(), fake)
    words = ("score", fake, "mnist5k", "--size", 16, "-n", 20, "--metrics", "fd", "--quiet", "--json")
    assert run_cli(*words, "--out", tmp_path / "out") == 0
    (value,) = json.loads(capsys.readouterr().out)["values"]
    assert value["name"] == "FD-lite0" and value["resize"] == "antialiased bilinear to 112 px"
    assert value["extractor_hash"] == "97a821455b596789" and (tmp_path / "out" / "neighbors.png").exists()


@pytest.mark.parametrize(("flags", "sides"), [(("--crop", "--size", 16), (16, 16)), (("--crop",), (20, 16))])
def test_generated_images_of_files_are_read_with_the_options_that_were_given(tmp_path, capsys, eyes, flags, sides):
    """Of any shape and size, and with files that cannot be read."""
    pixels = np.random.default_rng(0)
    for name, height, width in (("fake", 20, 28), ("real", 16, 16)):
        (tmp_path / name).mkdir()
        for number in range(12):
            grown = number if "--size" in flags else 0  # without a size all have to be of one
            noise = pixels.integers(256, size=(height + grown, width + grown), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{number}.png")
    (tmp_path / "fake" / "bad.png").write_text("no image")
    words = (
        "score",
        tmp_path / "fake",
        tmp_path / "real",
        "--metrics",
        "kid",
        "--extractor",
        eyes,
        "--json",
        "--quiet",
    )
    assert run_cli(*words, *flags) == 2
    assert "--skip-bad" in capsys.readouterr().err
    assert run_cli(*words, *flags, "--skip-bad") == 0
    (value,) = json.loads(capsys.readouterr().out)["values"]
    assert (value["fake_size"], value["real_size"]) == sides
    assert (value["n_fake"], value["n_real"]) == (12, 12)


def test_what_was_not_looked_at_is_said(eyes, tmp_path):
    """Copies of images beyond n_real go unseen, and Inception Scores of few images are low."""
    real = digits(150)
    (some,), (whole,) = (scored(real, real, eyes, "authenticity", n_real=n).values for n in (100, 150))
    assert "of 150 real images 100 were taken; give --n-real 150" in some.notes[0] and not whole.notes
    points = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    for n, of, says in ((400, None, ""), (400, 900, "few generated images alone"), (4, 900, "biased upward")):
        given = scoring_evidence(feature_set(points[:n]), feature_set(points))
        notes = METRICS["fd-infinity"].measure(dataclasses.replace(given, real_of=of)).notes
        assert says in " ".join(notes) and bool(notes) == bool(says)
    (few,) = scored(digits(11), real, eyes, "is").values
    assert "11 images in 10 splits" in few.notes[0]
