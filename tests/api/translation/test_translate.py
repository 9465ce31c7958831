"""``rivals translate``, end to end: train, judge, resume, apply, report; what cannot work is refused."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from helpers.kill_and_resume import goes_on
from rivals.api.common.network_io import save_network
from rivals.api.translation import job, judgement
from rivals.api.translation.image_pairs import ImagePairs, load_image_pairs
from rivals.api.translation.judgement import bicubic, described, judge
from rivals.base.errors import UserError
from rivals.base.schedules import Schedule
from rivals.base.size import Size
from rivals.data.load import load
from rivals.extractors.classifier_features import open_classifier
from rivals.game.checkpoint import Checkpoints
from rivals.nets.factory import build_classifier, build_translator
from rivals.nets.translator import Translator
from rivals.recipes import DataOptions, TranslateConfig
from rivals.recipes.base import NONE

ALONE = ("--batch-size", "4", "--widths", "8", "--blocks", "1", "--quiet")
QUICK = (*ALONE, "--discriminator-widths", "4", "8")
SIZE = 20


def picture(i, size=SIZE):
    """A colored disk before a gradient."""
    rng = np.random.default_rng(i)
    row, column = np.mgrid[:size, :size] / size
    disk = (row - rng.uniform(0.3, 0.7)) ** 2 + (column - rng.uniform(0.3, 0.7)) ** 2 < 0.06
    image = np.stack([row, column, 1 - row], 2) * 200
    image[disk] = rng.uniform(0, 255, 3)
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Pictures in gray (A) and in color (B), and the same side by side."""
    home = tmp_path_factory.mktemp("translate")
    for folder in ("pairs/A", "pairs/B", "beside"):
        (home / folder).mkdir(parents=True)
    for i in range(24):
        color = picture(i)
        gray = color.mean(2).astype(np.uint8)
        Image.fromarray(gray).save(home / "pairs" / "A" / f"{i}.png")
        Image.fromarray(color).save(home / "pairs" / "B" / f"{i}.png")
        Image.fromarray(np.concatenate([np.stack([gray] * 3, 2), color], 1)).save(home / "beside" / f"{i}.png")
    return home


@pytest.fixture(scope="module", autouse=True)
def no_extractor():
    """Judge by pixels alone: an ImageNet network would take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rivals.api.translation.judgement.find_judge", lambda name, device: (None, "no extractor here"))
        yield


@pytest.fixture(scope="module")
def run(home):
    """A translator that enlarges twice."""
    return rivals.translate(
        str(home / "pairs" / "B"),
        scale=2,
        gan_weight=0.001,
        generator_lr="3e-3",
        ema=0,
        widths=(16,),
        blocks=1,
        discriminator_widths=(4, 8),
        batch_size=8,
        hold_out=6,
        until="150 steps",
        out=home / "run",
        quiet=True,
    )


def test_it_learns_to_enlarge_better_than_bicubic_interpolation(run):
    result = run.result()
    assert result["n_held_out"] == 6
    assert result["held_out"]["psnr"] > result["bicubic"]["psnr"] + 0.3
    assert result["held_out"]["ssim"] > result["bicubic"]["ssim"]
    records = list(run.records())
    assert {"loss/generator/gan", "loss/generator/l1", "d_real", "loss/discriminator"} <= records[-2].keys()
    assert [record["quality/psnr"] for record in records if "quality/psnr" in record][-1] > 0
    assert len(list(run.samples.glob("*.png"))) >= 2


def test_the_report_shows_the_judgement_and_the_triples(run):
    page = run.report.read_text()
    assert "Held-out images" in page and "bicubic" in page and "Input, output and" in page
    assert page.count("data:image/png;base64") >= 2
    assert "no extractor here" in page.lower()


def test_large_images_are_translated_in_tiles_as_the_whole(run, home, run_rivals, tmp_path, monkeypatch):
    sides, forward = [], Translator.forward
    monkeypatch.setattr(Translator, "forward", lambda net, x: sides.append(max(x.shape[2:])) or forward(net, x))
    large = np.concatenate([np.concatenate([picture(i), picture(i + 1)], 1) for i in range(0, 6, 2)])
    (tmp_path / "in" / "sub").mkdir(parents=True)
    Image.fromarray(large).save(tmp_path / "in" / "sub" / "large.bmp")
    Image.fromarray(picture(3)[..., 0]).save(tmp_path / "in" / "gray.png")
    words = ("translate", run.folder, tmp_path / "in", "--quiet")
    result = run_rivals(*words, "--out", tmp_path / "tiles", "--tile", "32", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out) == {"folder": str(tmp_path / "tiles"), "n": 2, "turned_gray": 0}
    assert len(sides) > 2 and max(sides) <= 32
    assert run_rivals(*words, "--out", tmp_path / "whole").status == 0
    tiled, whole = (
        np.asarray(Image.open(tmp_path / name / "sub" / "large.png")).astype(int) for name in ("tiles", "whole")
    )
    assert tiled.shape == (6 * SIZE, 4 * SIZE, 3)
    assert abs(tiled - whole).max() <= 1  # of 255: a rounding that tips
    x = torch.from_numpy(large).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        own = run.translator(x)[0].mul(255).round().permute(1, 2, 0)
    assert abs(own.numpy() - whole).max() <= 1
    result = run_rivals("translate", run.folder, tmp_path / "in" / "gray.png", "--quiet")
    assert result.status == 0, result.err
    assert np.asarray(Image.open(run.folder / "translated-gray.png")).shape == (2 * SIZE, 2 * SIZE, 3)


@pytest.mark.parametrize(
    ("data", "words", "shape"),
    [
        ("pairs", ("--net", "unet", "--blocks", "1"), (1, 3)),
        ("beside", ("--pairs", "side-by-side", "--reverse", "--gan-weight", "0"), (3, 3)),
        ("pairs", ("--pairs", "unpaired", "--loss", "hinge", "--r1", "0.1", "--patch-size", "16"), (3, 3)),
        ("pairs", ("--pairs", "unpaired", "--method", "cyclegan"), (3, 3)),
    ],
)
def test_kinds_of_pairs_are_learned_and_translate(home, run_rivals, tmp_path, data, words, shape):
    quick = ALONE if "--gan-weight" in words else QUICK
    result = run_rivals("translate", home / data, *quick, "--until", "3 steps", *words, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    net = rivals.load(tmp_path / "run")
    assert (net.in_channels, net.channels) == shape
    assert net(torch.rand(1, shape[0], 9, 14)).shape == (1, shape[1], 9, 14)
    info = rivals.Run.open(tmp_path / "run").info
    expected = {"generator"} | (set() if "--gan-weight" in words else {"discriminator"})
    if "unpaired" in words:
        expected |= {"inverse", "inverse_discriminator"} if "cyclegan" in words else {"head"}
    assert set(info["players"]) == expected
    assert (tmp_path / "run" / "triples.png").exists()


def test_without_pairs_an_epoch_is_all_inputs_that_are_trained_on(home, run_rivals, tmp_path):
    shutil.copytree(home / "pairs", tmp_path / "odd")
    for i in range(10):
        (tmp_path / "odd" / "B" / f"{i}.png").unlink()
    words = ("--pairs", "unpaired", "--hold-out", "4", *QUICK, "--out", tmp_path / "run")
    for epochs, more in ((1, ()), (2, ("--resume",))):
        result = run_rivals("translate", tmp_path / "odd", "--until", f"{epochs} epochs", *words, *more)
        assert result.status == 0, result.err
        run = rivals.Run.open(tmp_path / "run")
        assert (run.info["images"], run.info["epochs"], run.info["data"]["n_train"]) == (20 * epochs, epochs, 20)
        assert f">{epochs} epochs<" in run.report.read_text()


def test_a_run_resumes_to_the_same_weights_and_on_its_own_images_alone(home, run_rivals, tmp_path):
    shutil.copytree(home / "pairs", tmp_path / "pairs")
    words = ("translate", tmp_path / "pairs", *QUICK, "--pairs", "unpaired", "--sample-every", "4 steps")
    assert run_rivals(*words, "--out", tmp_path / "whole", "--until", "6 steps").status == 0
    assert run_rivals(*words, "--out", tmp_path / "part", "--until", "3 steps").status == 0
    with goes_on(tmp_path / "part"):
        result = run_rivals("translate", "--resume", "--out", tmp_path / "part", "--until", "6 steps", "--quiet")
    assert result.status == 0, result.err
    whole, part = ((tmp_path / name / "generator.safetensors").read_bytes() for name in ("whole", "part"))
    assert whole == part
    Image.fromarray(picture(99)[..., 0]).save(tmp_path / "pairs" / "A" / "0.png")
    resumed = run_rivals("translate", "--resume", "--out", tmp_path / "part", "--until", "9 steps", "--quiet")
    assert_refused(resumed, "'pairs' are not those that the run began with")


def test_a_run_begins_with_the_weights_of_another(run, home, run_rivals, tmp_path):
    words = ("translate", home / "pairs" / "B", "--scale", "2", "--batch-size", "4", "--until", "1 steps", "--quiet")
    words += ("--discriminator-widths", "4", "8", "--generator-lr", "1e-9", "--ema", "0")
    assert run_rivals(*words, "--weights", run.folder, "--out", tmp_path / "more").status == 0
    x = torch.rand(1, 3, 10, 10)
    assert torch.allclose(rivals.load(tmp_path / "more")(x), run.translator(x), atol=1e-4)


def test_the_average_of_start_weights_is_not_forgotten_at_once(run, home):
    """After two steps of 8 images the average is all but the start's: a ramp-up would leave little of it."""
    given = {"scale": 2, "weights": str(run.folder), "ema": "1k", "generator_lr": "0.01", "until": "2 steps"}
    again = rivals.translate(
        str(home / "pairs" / "B"), **given, discriminator_widths=(4, 8), batch_size=8, quiet=True, out=home / "again"
    )
    start, average = (rivals.load(each).state_dict() for each in (run.folder, again.folder))
    (tensors, _), moved = Checkpoints(again.checkpoints).load(), 0.0
    for name, value in start.items():
        raw = tensors[f"generator/net/{name}"]
        moved = max(moved, float((raw - value).abs().max()))
        assert (average[name] - value).abs().max() <= 0.05 * (raw - value).abs().max() + 1e-6
    assert moved > 1e-3


def test_the_perceptual_loss_takes_any_extractor_which_flatters_as_judge(home, monkeypatch, run_rivals, tmp_path):
    torch.manual_seed(0)
    net = rivals.build_classifier("resnet", size=SIZE, channels=3, classes=2, widths=(4, 4))
    save_network(net, tmp_path / "classifier.safetensors", {})
    extractor = open_classifier(net, size=SIZE, channels=3)
    monkeypatch.setattr("rivals.api.translation.judgement.find_judge", lambda name, device: (extractor, ""))
    words = ("translate", home / "pairs" / "B", *QUICK, "--scale", "2", "--until", "3 steps")
    perceptual = ("--perceptual", f"classifier:{tmp_path / 'classifier.safetensors'}", "--perceptual-every", "2")
    result = run_rivals(*words, *perceptual, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    records = list(rivals.Run.open(tmp_path / "run").records())
    assert ["penalty/perceptual" in record for record in records if "loss/generator" in record] == [True, False, True]
    (note,) = json.loads((tmp_path / "run" / "run.json").read_text())["results"]["notes"]
    assert "which the translator was trained with: they flatter it" in note


def test_without_pairs_structure_is_measured_during_the_run_and_at_its_end(home, monkeypatch, run_rivals, tmp_path):
    torch.manual_seed(0)
    net = rivals.build_classifier("resnet", size=SIZE, channels=3, classes=2, widths=(4, 4))
    extractor = open_classifier(net, size=SIZE, channels=3)
    monkeypatch.setattr("rivals.api.translation.judgement.find_judge", lambda name, device: (extractor, ""))
    words = ("translate", home / "pairs", *QUICK, "--pairs", "unpaired", "--until", "2 steps", "--hold-out", "8")
    result = run_rivals(*words, "--out", tmp_path / "run", "--json")
    assert result.status == 0, result.err
    values = json.loads(result.out)["held_out"]
    assert json.loads(result.out)["alarms"] == []
    assert list(values) == ["structure-classifier", "FD-classifier"] and -1 <= values["structure-classifier"] <= 1
    measured = [each for each in rivals.Run.open(tmp_path / "run").records() if "sample_grid" in each]
    assert measured and all(f"quality/{key}" in each for each in measured for key in values)
    assert all(each["diversity"] >= 0 and each["change"] > 0 for each in measured)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "the correlation of the self-similarities" in page and "Structure of the input" in page


def test_outputs_that_are_all_alike_raise_an_alarm_that_the_result_and_the_report_show(
    home, monkeypatch, run_rivals, tmp_path
):
    """A translator begins at gray, and this one stays there."""
    monkeypatch.setattr("rivals.game.health_monitor.YOUNG", 0)
    words = ("translate", home / "pairs", *ALONE, "--generator-lr", "1e-9", "--sample-every", "1 steps")
    result = run_rivals(*words, "--gan-weight", "0", "--until", "3 steps", "--out", tmp_path / "run", "--json")
    assert result.status == 0, result.err
    (alarm,) = json.loads(result.out)["alarms"]
    assert alarm["alarm"] == "mode-collapse" and "as diverse as targets" in alarm["message"]
    assert "The output hardly depends on the input" in (tmp_path / "run" / "report.html").read_text()


def test_structure_is_1_for_an_unchanged_image_and_less_for_that_of_another_input(home):
    torch.manual_seed(0)
    net = rivals.build_classifier("resnet", size=SIZE, channels=3, classes=2, widths=(4, 4))
    extractor = open_classifier(net, size=SIZE, channels=3)
    pairs = load_image_pairs(str(home / "pairs"), TranslateConfig(pairs="unpaired"), DataOptions(), "train", print)
    sides = {"same": lambda x: x, "other": lambda x: x.roll(1, 0), "gray": lambda x: torch.full_like(x, 0.5)}
    values = judge(sides, pairs, n=24, device=torch.device("cpu"), extractor=extractor)
    same, other, gray = (each["structure-classifier"] for each in values.values())
    assert same == pytest.approx(1, abs=1e-5) and max(other, gray) < 0.9


def test_judges_measure_distances_by_features(home, monkeypatch, run):
    """With an extractor that is at hand in no time: a classifier."""
    torch.manual_seed(0)
    net = rivals.build_classifier("resnet", size=SIZE, channels=3, classes=2, widths=(4, 4))
    images = load(str(home / "pairs" / "B"))
    pairs = ImagePairs(images, None, 2, True)
    sides = {"translator": run.translator, "bicubic": bicubic(pairs)}
    extractor = open_classifier(net, size=SIZE, channels=3)
    values = judge(sides, pairs, n=20, device=torch.device("cpu"), extractor=extractor)
    assert list(values["translator"]) == ["psnr", "ssim", "PD-classifier", "FD-classifier"]
    assert 0 < values["translator"]["PD-classifier"] < values["bicubic"]["PD-classifier"]
    perfect = {"translator": lambda x: pairs.y(0, 20, x.device)}
    alike = judge(perfect, pairs, n=20, device=torch.device("cpu"), extractor=extractor)["translator"]
    assert alike == pytest.approx({"psnr": 100, "ssim": 1, "PD-classifier": 0, "FD-classifier": 0}, abs=1e-4)
    assert "bicubic" in described(values, 20)


def test_a_translator_is_exported_and_shared(run, run_rivals, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    result = run_rivals("export", run.folder, "--out", tmp_path / "net.onnx")
    assert result.status == 0, result.err
    session = onnxruntime.InferenceSession((tmp_path / "net.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    x = torch.rand(2, 3, 30, 17)
    (images,) = session.run(None, {"inputs": x.numpy()})
    with torch.no_grad():
        assert np.allclose(images, run.translator(x).numpy(), atol=1e-4)
    assert run_rivals("push", run.folder, f"{tmp_path}/shared").status == 0
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "image-to-image" in card and "psnr (6 images)" in card
    assert run_rivals("pull", f"{tmp_path}/shared", "--out", tmp_path / "pulled").status == 0
    with torch.no_grad():
        assert torch.equal(rivals.load(tmp_path / "pulled")(x), run.translator(x))


def test_the_test_images_are_judged_in_random_order(home, run_rivals, tmp_path, monkeypatch):
    """Files are often sorted by class."""
    for kind in ("train", "test"):
        shutil.copytree(home / "pairs" / "B", tmp_path / "sorted" / kind)
    words = ("translate", tmp_path / "sorted", "--scale", "2", *QUICK, "--judge", "6", "--until", "1 steps")
    judged, judge = [], judgement.judge
    monkeypatch.setattr(
        judgement, "judge", lambda sides, pairs, **options: judged.append(pairs) or judge(sides, pairs, **options)
    )
    assert run_rivals(*words, "--out", tmp_path / "r").status == 0
    held = judged[-1]
    means = [float(each.mean()) for each in held.y(0, len(held), torch.device("cpu"))]
    in_order = [float(picture(int(path.stem)).mean() / 255) for path in sorted((home / "pairs" / "B").iterdir())]
    assert means != pytest.approx(in_order, abs=1e-5) and sorted(means) == pytest.approx(sorted(in_order), abs=1e-5)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"loss": "relativistic", "gan_weight": 0.005, "r1": Schedule.parse(0.1)}),
        ({"scale": 2}, {"loss": "relativistic", "gan_weight": 0.005, "r1": Schedule.parse(0.1)}),
        ({"scale": 2, "gan_weight": 0.0}, {"r1": NONE}),
        ({"r1": 0}, {"r1": NONE}),
        ({"r1": "1 -> 0.2 in 5k images"}, {"r1": Schedule(1, 0.2, 5000)}),
        # CUT's and CycleGAN's loss has no factor of a half, ours has.
        ({"pairs": "unpaired"}, {"loss": "least-squares", "gan_weight": 2.0, "identity_weight": 1.0, "r1": NONE}),
        ({"pairs": "unpaired", "r1": 0.3}, {"r1": Schedule.parse(0.3)}),
        # Zhu et al. 2017, sec. 5.2, for images in [0, 1] in place of [-1, 1].
        (
            {"pairs": "unpaired", "method": "cyclegan"},
            {"gan_weight": 2.0, "cycle_weight": 20.0, "identity_weight": 10.0},
        ),
        ({"pairs": "unpaired", "loss": "hinge"}, {"loss": "hinge", "gan_weight": 1.0}),
        ({"pairs": "unpaired", "gan_weight": 0.3}, {"loss": "least-squares", "gan_weight": 0.3}),
    ],
)
def test_weights_and_loss_that_are_left_to_the_kind(given, wanted):
    config = TranslateConfig().changed(**given).resolved()
    assert {name: getattr(config, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "unet"),
        ({"pairs": "side-by-side"}, "unet"),
        ({"scale": 2}, "resnet"),
        ({"pairs": "unpaired"}, "resnet"),
        ({"pairs": "unpaired", "method": "cyclegan"}, "resnet"),
        ({"net": "resnet"}, "resnet"),
        ({"scale": 4, "net": "unet"}, "unet"),
    ],
)
def test_the_network_is_that_of_the_kind_and_keeps_its_own_widths(given, wanted):
    config = TranslateConfig().changed(**given, widths=(4, 8), blocks=0)
    assert (config.resolved().net, config.resolved().widths, config.resolved().blocks) == (wanted, (4, 8), 0)
    other = "unet" if wanted == "resnet" else "resnet"
    assert config.resolved().changed(net=other).widths == ()


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_large_images_are_judged_in_small_blocks(side, monkeypatch):
    """Or an evaluation would need more memory than training on patches."""
    images = SimpleNamespace(targets=SimpleNamespace(size=Size(side, side)))
    assert 1 <= judgement.block_of(images) <= 64
    assert judgement.block_of(images) * side**2 <= 64 * 128**2


def test_the_perceptual_network_is_found_from_another_folder(tmp_path, monkeypatch, home):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    monkeypatch.chdir(here)
    save_network(build_classifier("cnn", size=SIZE, channels=3, classes=2, widths=(4, 8)), here / "net.safetensors", {})
    options = {"batch_size": 4, "widths": (8,), "blocks": 1, "discriminator_widths": (4, 8), "quiet": True}
    data = str(home / "pairs")
    rivals.translate(data, perceptual="classifier:net.safetensors", until="2 steps", out="run", **options)
    monkeypatch.chdir(elsewhere)
    run = rivals.translate(out=here / "run", resume=True, until="3 steps", quiet=True)
    assert run.info["step"] == 3
    for suffix in ("safetensors", "json"):
        shutil.move(here / f"net.{suffix}", elsewhere / f"moved.{suffix}")
    run = rivals.translate(
        out=here / "run", resume=True, until="4 steps", perceptual="classifier:moved.safetensors", quiet=True
    )
    assert run.info["step"] == 4


def test_what_is_applied_must_be_named():
    with pytest.raises(UserError, match="no run was named to apply to 'scans'"):
        rivals.translate(images="scans")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("pairs/B", "--scale", "3"), ("--scale 3 is not offered: take 2 or 4",)),
        (("pairs/B", "--scale", "4", "--size", "22"), ("are 22 px", "--scale 4", "--size 20 --crop")),
        (("pairs/B",), ("pairs/B' has no folders A and B", "--scale 2")),
        ((), ("no data were named",)),
        (("few",), ("'A/7.png' in '", "few' has no partner", "24 images and 23")),
        (("sizes",), ("sizes/A' are 20 px and those in '", "sizes/B' 40 px", "--size 20")),
        (("proportions",), ("proportions/A' are 20 px and those in '", "B' 40x30 px", "--size 20 --crop")),
        (("pairs", "--skip-bad"), ("--skip-bad would leave the partner",)),
        (("beside", "--scale", "2", "--pairs", "unpaired"), ("--pairs has no meaning with --scale",)),
        (
            ("pairs", "--pairs", "unpaired", "--l1-weight", "3"),
            ("--l1-weight has no meaning where there are no pairs",),
        ),
        (("pairs", "--pairs", "unpaired", "--cycle-weight", "3"), ("--cycle-weight", "--method cut")),
        (("pairs", "--patch-size", "32"), ("--patch-size 32 does not fit images of 20 px",)),
        (("pairs", "--lpips", "nowhere.pth"), ("no file of LPIPS's weights 'nowhere.pth'",)),
        (("pairs", "--nce-weight", "3"), ("--nce-weight has no meaning where there are pairs",)),
        (("pairs", "--gan-weight", "0", "--r1", "1"), ("--r1", "leave it out")),
        (("pairs", "--gan-weight", "0", "--loss", "hinge"), ("--loss has no meaning with --gan-weight 0",)),
        (("pairs", "--r1", "0", "--penalty-every", "4"), ("--penalty-every has no meaning without --r1",)),
        (("pairs", "--gan-weight", "0", "--discriminator-lr", "1e-3"), ("--discriminator-lr has no meaning",)),
        (("pairs", "--gan-weight", "0", "--l1-weight", "0"), ("nothing to learn from",)),
        (("pairs", "--gan-weight", "0", "--l1-weight", "0", "--perceptual", "lite0"), ("nothing to learn from",)),
        (
            ("pairs", "--discriminator-widths", "4", "8", "8", "8"),
            ("halve images of 20 px to nothing", "take fewer"),
        ),
        (
            ("pairs", "--size", "8", "--discriminator-widths", "4", "4", "4"),
            ("8 px to nothing", "a --size of 12 or more, or --gan-weight 0"),
        ),
        (
            ("pairs", "--patch-size", "10", "--discriminator-widths", "4", "4", "4"),
            ("a --patch-size of 12 or more",),
        ),
        (("pairs", "--hold-out", "1"), ("--hold-out 1 is too few",)),
        (("single", "--scale", "2"), ("'single' has a single test image", "--hold-out 10")),
        (("pairs", "--weights", "run"), ("--weights run does not fit this data: its scale is 2, not 1",)),
        (("pairs", "--weights", "classifier.safetensors"), ("holds a classifier, not a translator",)),
        (("pairs/B", "--scale", "2", "--perceptual-weight", "5"), ("--perceptual-weight", "add --perceptual lite0")),
        (("pairs", "--perceptual-every", "4"), ("--perceptual-every", "add --perceptual lite0")),
        (("pairs", "--perceptual", "lite1"), ("unknown extractor 'lite1'",)),
        (("pairs", "--until", "3 images"), ("less than one step",)),
        (("pairs", "--tile", "32"), ("--tile has no meaning in training",)),
        (("pairs", "--hold-out", "20"), ("24 images, of which 20 would be held out",)),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run_begins(run, prepared, run_rivals, words, parts):
    assert_refused(run_rivals("translate", *words, "--out", "refused"), *parts)
    assert not (prepared / "refused").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("run", "pairs/A", "--scale", "2"), ("--scale has no meaning where a run is applied to 'pairs/A'",)),
        (("run", "nowhere"), ("there is no folder, zip or shard 'nowhere'",)),
        (("nowhere", "pairs/A"), ("there is no run 'nowhere'",)),
        (("classifier.safetensors", "pairs/A"), ("holds a classifier, not a translator",)),
        (("run", "tiny"), ("'0.png' of 'tiny' is 4 x 5, and a side of 8 or more",)),
        (("run", "damaged"), ("cannot read the image '0.png' of 'damaged'",)),
        (("run", "lost"), ("the link 'lost/sub/more.png' leads nowhere",)),
        (("run", "lost-folder"), ("the link 'lost-folder/scans' leads nowhere",)),
        (("run", "loop"), ("cannot read 'loop/more.png': ", "mend or remove it")),
        (("run", "clear"), ("'0.png' of 'clear' is partly transparent, and the translator takes opaque images",)),
        (("run", "pairs/A", "--tile", "4"), ("--tile 4 cannot work: take 16",)),
        (("run", "pairs/A", "--tile", "16", "--overlap", "16"), ("tiles of 16 pixels cannot overlap by 16",)),
        (("run", "pairs/A", "--out", "pairs"), ("'pairs' exists already",)),
        (("run", "pairs/A/0.png", "--out", "x.jpg"), ("name that ends in .png",)),
        (("run", "pairs/A/0.png", "--seed", "3"), ("--seed has no meaning",)),
    ],
)
def test_what_cannot_be_translated_is_refused_and_nothing_is_written(run, prepared, run_rivals, words, parts):
    out = () if "--out" in words else ("--out", "translated")
    assert_refused(run_rivals("translate", *words, *out, "--quiet"), *parts)
    assert not (prepared / "translated").exists()


@pytest.fixture(scope="module")
def damaged(home, run):
    """Beside the pairs: folders that make none, and images that cannot be translated."""
    for name in ("few", "sizes", "proportions"):
        shutil.copytree(home / "pairs", home / name)
    (home / "few" / "B" / "7.png").unlink()
    for path in (home / "sizes" / "B").iterdir():
        Image.open(path).resize((40, 40)).save(path)
    for path in (home / "proportions" / "B").iterdir():
        Image.open(path).resize((40, 30)).save(path)
    shutil.copytree(home / "pairs" / "B", home / "single" / "train")
    (home / "single" / "test").mkdir()
    (home / "single" / "train" / "7.png").rename(home / "single" / "test" / "7.png")
    for name in ("tiny", "damaged", "clear"):
        (home / name).mkdir()
    for folder, link in (("lost/sub", "more.png"), ("lost-folder", "scans"), ("loop", "more.png")):
        (home / folder).mkdir(parents=True)
        shutil.copy(home / "pairs" / "A" / "0.png", home / folder / "0.png")
        (home / folder / link).symlink_to("more.png" if folder == "loop" else "nowhere")
    Image.new("RGB", (4, 5)).save(home / "tiny" / "0.png")
    (home / "damaged" / "0.png").write_bytes(b"no image")
    Image.new("RGBA", (30, 30), (0, 0, 0, 9)).save(home / "clear" / "0.png")
    net = rivals.build_classifier("cnn", size=SIZE, channels=1, classes=2, widths=(4,))
    save_network(net, home / "classifier.safetensors", {})
    return home


@pytest.fixture
def prepared(damaged, monkeypatch):
    """Work beside the pairs."""
    monkeypatch.chdir(damaged)
    return damaged


def test_color_is_turned_gray_for_a_translator_of_gray_images_and_that_is_said(run_rivals, tmp_path):
    """A gray picture in a color file, as scanners write them, loses nothing."""
    net = build_translator("resnet", size=16, channels=3, in_channels=1, widths=(4,), blocks=0)
    save_network(net, tmp_path / "generator.safetensors", {})
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "in" / "color.png")
    luma = Image.fromarray(picture(0)).convert("L")
    luma.save(tmp_path / "in" / "luma.png")
    luma.convert("RGB").save(tmp_path / "in" / "scan.png")
    result = run_rivals("translate", tmp_path, tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["turned_gray"] == 1
    assert "'color.png' was in color and turned gray (Rec. 601), as the translator takes gray images" in result.err
    color, gray, scan = ((tmp_path / "out" / f"{name}.png").read_bytes() for name in ("color", "luma", "scan"))
    assert color == gray == scan


@pytest.fixture
def small(tmp_path, monkeypatch):
    """An untrained translator in the current folder."""
    monkeypatch.chdir(tmp_path)
    net = build_translator("resnet", size=16, channels=1, in_channels=1, widths=(4,), blocks=0)
    save_network(net, tmp_path / "generator.safetensors", {})
    return tmp_path


def test_links_to_folders_are_followed_once_and_what_is_no_file_is_left_out(small, run_rivals):
    for folder in ("scans", "elsewhere/deep"):
        (small / folder).mkdir(parents=True)
        Image.fromarray(picture(0)[..., 0]).save(small / folder / "0.png")
    (small / "scans" / "more").symlink_to(small / "elsewhere")
    (small / "elsewhere" / "back").symlink_to(small / "scans")
    os.mkfifo(small / "scans" / "fifo.png")
    (small / "scans" / ".lost.png").symlink_to("nowhere")  # hidden
    result = run_rivals("translate", ".", "scans", "--out", "out", "--json")
    assert result.status == 0, result.err
    assert json.loads(result.out)["n"] == 2
    written = sorted(path.relative_to(small / "out").as_posix() for path in (small / "out").rglob("*.png"))
    assert written == ["0.png", "more/deep/0.png"]
    assert "1 FIFO, socket, device" in result.err and "'fifo.png'" in result.err


def test_names_with_dots_are_kept_whole(small, run_rivals):
    for name in ("v1.2/a.b.png", "v1.2/a.c.PNG", "v1.2/sub.d/a.b.jpg"):
        (small / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(0)[..., 0]).save(small / name)
    shutil.copytree(small / "v1.2", small / "v1.3")
    shutil.make_archive("v1.4", "zip", "v1.2/sub.d")
    for words in ("v1.2", "v1.3", "v1.4.zip", "v1.2/a.b.png", "v1.2/a.c.PNG"):
        result = run_rivals("translate", ".", words, "--quiet")
        assert result.status == 0, result.err
    whole = ["a.b.png", "a.c.png", "sub.d/a.b.png"]
    for folder, expected in {"v1.2": whole, "v1.3": whole, "v1.4": ["a.b.png"]}.items():
        written = small / f"translated-{folder}"
        names = sorted(path.relative_to(written).as_posix() for path in written.rglob("*.png"))
        assert names == expected
    assert (small / "translated-a.b.png").is_file() and (small / "translated-a.c.png").is_file()


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("a.b.png", "a.b.jpg"), "'a.b.jpg' and 'a.b.png' of 'scans' would both be written to 'a.b.png'"),
        (("z/0.jpg", "z/0.PNG"), "'z/0.PNG' and 'z/0.jpg' of 'scans' would both be written to 'z/0.png'"),
        (("x.jpg", "x.png/0.png"), "'x.jpg' of 'scans' cannot be written to the folder 'x.png'"),
    ],
)
def test_images_that_would_be_written_to_one_name_are_refused_before_any_work(
    small, run_rivals, monkeypatch, names, part
):
    monkeypatch.setattr(Translator, "forward", lambda net, x: pytest.fail("it began"))
    for name in ("0.png", *names):
        (small / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(0)[..., 0]).save(small / "scans" / name)
    assert_refused(run_rivals("translate", ".", "scans", "--out", "out", "--quiet"), part, "rename")
    assert not (small / "out").exists()


def test_a_translator_is_loaded_by_its_role(tmp_path):
    net = build_translator("resnet", size=16, channels=1, in_channels=1, widths=(4,), blocks=0)
    save_network(net, tmp_path / "generator.safetensors", {})
    assert job.translator_of(str(tmp_path)).spec["net"] == "resnet"
