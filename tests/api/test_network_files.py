"""Networks on disk: damaged, swapped or foreign files are refused before anything is built from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rivals
from helpers.commands import RunRivals, assert_refused
from rivals import UserError, build_classifier, build_generator
from rivals.api.common.network_io import read_description, save_network
from rivals.base.tensor_files import sign
from rivals.nets import factory
from rivals.studio.run_store import RunStore

BUILDERS: dict[str, Callable[[], Any]] = {
    "mlp": lambda: build_generator("mlp", size=8, channels=1, latent_dim=3, widths=(4,)),
    "dcgan": lambda: build_generator("dcgan", size=8, channels=1, classes=2, latent_dim=3, widths=(2,)),
    "r3": lambda: build_generator("r3", size=8, channels=1, latent_dim=3, widths=(2, 2)),
    "cnn": lambda: build_classifier("cnn", size=8, channels=1, classes=2, widths=(2,), mean=(0.5,)),
    "resnet": lambda: build_classifier("resnet", size=8, channels=1, classes=2, widths=(2, 3)),
}


def saved(folder: Path, net: str, seed: int = 0) -> Path:
    """The weights' file of a small network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = BUILDERS[net]()
    file = folder / f"{built.spec['role']}.safetensors"
    save_network(built, file, {"data": "noise", "classes": ["cats", "dogs"], "white": None})
    return file


def change(file: Path, **entries: Any) -> None:
    """Change entries of the spec, or top-level ones after ``_``, as one does who can compute digests."""
    facts = json.loads(file.with_suffix(".json").read_text())
    for name, value in entries.items():
        (facts if name.startswith("_") else facts["spec"])[name.removeprefix("_")] = value
    signed = sign(load_file(file), {key: value for key, value in facts.items() if key != "digest"})
    file.with_suffix(".json").write_text(json.dumps(signed))


@pytest.mark.parametrize("net", BUILDERS)
def test_what_is_saved_comes_back(net: str, tmp_path: Path) -> None:
    file = saved(tmp_path, net)
    loaded = rivals.load(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in load_file(file).items())
    assert loaded.about == {
        "format": 2,
        "spec": loaded.spec,
        "data": "noise",
        "classes": ["cats", "dogs"],
        "white": None,
    }


@pytest.mark.parametrize("net", BUILDERS)
def test_no_flipped_bit_of_either_file_goes_unnoticed(net: str, tmp_path: Path) -> None:
    weights = saved(tmp_path, net)
    for file in (weights, weights.with_suffix(".json")):
        content = file.read_bytes()
        for at in range(3, len(content), len(content) // 25):
            damaged = bytearray(content)
            damaged[at] ^= 1 << at % 8
            file.write_bytes(damaged)
            with pytest.raises(UserError):
                rivals.load(weights)
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError):
            rivals.load(weights)
        file.write_bytes(content)
    rivals.load(weights)


def test_weights_and_description_of_different_networks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    for net, problem in (("cnn", "does not match its digest"), ("resnet", "does not fit its description: it has no")):
        file, twin = saved(tmp_path, "cnn"), saved(tmp_path / "twin", net, seed=1)
        file.write_bytes(twin.read_bytes())
        with pytest.raises(UserError, match=problem):
            rivals.load(file)


def test_a_network_with_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    built = BUILDERS["mlp"]()
    for value in (torch.nan, -torch.inf):
        with torch.no_grad():
            built.layers[0].bias[1] = value
        save_network(built, tmp_path / "generator.safetensors", {})
        with pytest.raises(UserError, match=r"1 NaN or infinite values in 'layers\.0\.bias'"):
            rivals.load(tmp_path)


def test_a_description_without_digest_or_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, "cnn")
    facts = json.loads(file.with_suffix(".json").read_text())
    for changed, problem in (({"format": 3}, "a newer version"), ({"digest": None}, "digest is null, not text")):
        file.with_suffix(".json").write_text(json.dumps({**facts, **changed}))
        with pytest.raises(UserError, match=problem):
            rivals.load(file)
    del facts["digest"]
    file.with_suffix(".json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="has no 'digest'"):
        rivals.load(file)


@pytest.mark.parametrize(
    ("net", "entries"),
    [
        ("mlp", {"widths": [30000, 30000]}),
        ("mlp", {"widths": [1] * 10**5}),
        ("mlp", {"widths": [2**70]}),
        ("mlp", {"widths": []}),
        ("mlp", {"widths": "44"}),
        ("mlp", {"widths": [4.0]}),
        ("mlp", {"widths": [[4]]}),
        ("mlp", {"latent_dim": 10**9}),
        ("mlp", {"latent_dim": None}),
        ("mlp", {"classes": 10**8}),
        ("mlp", {"size": 2**31}),
        ("mlp", {"size": True}),
        ("mlp", {"channels": 0}),
        ("mlp", {"channels": 2}),
        ("mlp", {"net": 7}),
        ("mlp", {"net": "cnn"}),
        ("mlp", {"role": "discriminator"}),
        ("mlp", {"role": ["generator"]}),
        ("mlp", {"dropout": 0.5}),
        ("mlp", {"self": 1}),
        ("mlp", {"mean": [0.5]}),
        ("dcgan", {"widths": [-2]}),
        ("dcgan", {"widths": [2] * 40}),
        ("r3", {"blocks": 10**6}),
        ("r3", {"blocks": 99, "expansion": 99}),
        ("r3", {"expansion": -1}),
        ("r3", {"groups": [0, 0]}),
        ("r3", {"groups": 2**40}),
        ("cnn", {"classes": 1}),
        ("cnn", {"classes": 90_000, "_classes": []}),
        ("cnn", {"mean": [float("nan")]}),
        ("cnn", {"mean": [True]}),
        ("cnn", {"mean": [0.5, 0.5]}),
        ("cnn", {"std": [0]}),
        ("cnn", {"flip_tta": 1}),
        ("resnet", {"blocks": 10**5}),
        ("resnet", {"blocks": "1"}),
        ("resnet", {"widths": [60000, 60000]}),
        ("resnet", {"_classes": ["cats"]}),
        ("resnet", {"_classes": ["cats", 3]}),
        ("resnet", {"_white": "bright"}),
        ("resnet", {"_spec": []}),
        ("resnet", {"_data": 5}),
    ],
)
def test_a_description_that_is_not_of_the_weights_is_refused_before_memory_is_taken(
    net: str, entries: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path, net)
    change(file, **entries)
    rebuild = factory.rebuild

    def rebuild_without_memory(spec: Any) -> Any:
        assert torch.get_default_device().type == "meta"
        return rebuild(spec)

    monkeypatch.setattr(factory, "rebuild", rebuild_without_memory)
    with pytest.raises(UserError) as refusal:
        rivals.load(file)
    assert len(str(refusal.value).splitlines()) == 1
    assert str(file.with_suffix("")) in str(refusal.value)


@pytest.mark.parametrize("net", BUILDERS)
def test_shapes_of_a_spec_are_those_of_the_network_and_take_no_random_numbers(net: str) -> None:
    built, before = BUILDERS[net](), torch.get_rng_state()
    assert factory.shapes_of(built.spec) == {name: values.shape for name, values in built.state_dict().items()}
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 10**5, b'{"spec":' * 10**4, b"9" * 5000, b"\xff", b"{}"])
def test_what_is_no_description_at_all_is_refused(content: bytes, tmp_path: Path) -> None:
    file = saved(tmp_path, "cnn")
    file.with_suffix(".json").write_bytes(content)
    with pytest.raises(UserError, match=r"classifier\.json' is invalid"):
        read_description(file)


@pytest.mark.parametrize(("name", "instead"), [("net.pt", "a .safetensors file"), ("net.onnx", "onnx:")])
def test_a_file_of_another_kind_is_refused_with_what_to_name(
    name: str, instead: str, tmp_path: Path, run_rivals: RunRivals
) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00.")
    for words in (("sample", tmp_path / name), ("train", "mnist5k", "--against", tmp_path / name)):
        assert_refused(run_rivals(*words), f"{name}' is no network of rivals", instead)


def test_every_command_refuses_a_damaged_network_in_one_line(tmp_path: Path, run_rivals: RunRivals) -> None:
    home = tmp_path / "damaged"
    home.mkdir()
    generator, classifier = saved(home, "dcgan"), saved(home, "cnn")
    for file in (generator, classifier):
        tensors = load_file(file)
        next(values for values in tensors.values() if values.is_floating_point()).view(-1)[0] += 0.25
        save_file(tensors, file)
    out = tmp_path / "out"
    for words in (
        ("sample", generator, "--grid", out.with_suffix(".png")),
        ("explore", generator, "walk", "--out", out),
        ("export", classifier, "--format", "safetensors", "--out", out.with_suffix(".safetensors")),
        ("push", classifier, out),
        ("pull", home, "--out", out),
        ("attack", classifier, "mnist5k", "--out", out),
        ("certify", classifier, "mnist5k", "--out", out),
        ("score", generator, "mnist5k"),
        ("train", "mnist5k", "--weights", generator, "--out", out),
    ):
        assert_refused(run_rivals(*words), "is damaged: its content does not match its digest", "copy both files")
        assert not out.exists()
    with pytest.raises(UserError, match="does not match its digest"):
        RunStore(tmp_path).network("damaged/classifier.safetensors", "classifier")


def test_pull_takes_nothing_if_one_of_two_networks_is_damaged(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    saved(shared, "cnn")
    file = saved(shared, "mlp")
    file.write_bytes(file.read_bytes()[:-1] + b"~")
    with pytest.raises(UserError, match=r"generator\.safetensors' or its \.json is damaged"):
        rivals.pull(str(shared), out=tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_the_studio_lists_networks_with_a_valid_description(tmp_path: Path) -> None:
    for name in ("fine", "foreign"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name, "cnn")
    description = tmp_path / "foreign" / "classifier.json"
    for content in (b"[" * 10**5, b'{"spec": {"role": "classifier"}}', b"\xff"):
        description.write_bytes(content)
        assert RunStore(tmp_path).networks("classifier") == ["fine/classifier.safetensors"]
