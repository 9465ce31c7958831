"""Ways out: ONNX that answers alike, safetensors, and networks that are shared and fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import rivals
from rivals import UserError, build_classifier, build_generator
from rivals.api import exporting, sharing
from rivals.api.networks import keep

Command = Callable[[list[str]], tuple[int, str, str]]

WIDTHS = {"mlp": (16,), "dcgan": (6, 5), "sngan": (6, 5, 4), "r3": (8, 8, 8)}


def kept(folder: Path, net: str, classes: int = 0) -> Path:
    """A small network, away from its start, in a file."""
    torch.manual_seed(0)
    if net in WIDTHS:
        made: Any = build_generator(net, size=16, channels=3, classes=classes, latent=6, widths=WIDTHS[net])
        file = folder / "generator.safetensors"
    else:
        made = build_classifier(net, size=16, channels=3, classes=4, widths=(8, 8), mean=(0.4,) * 3, std=(0.2,) * 3)
        file = folder / "classifier.safetensors"
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    keep(made.eval(), file, {"data": "noise", "classes": list("abcd")})
    return file


@pytest.mark.parametrize(
    ("net", "classes"), [("mlp", 0), ("dcgan", 0), ("sngan", 3), ("r3", 3), ("cnn", 0), ("resnet", 0)]
)
def test_onnx_answers_as_the_network_does(net: str, classes: int, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    file = kept(tmp_path, net, classes)
    told = rivals.export(str(file))
    assert told["largest_difference"] < 1e-4 and told["bytes"] == Path(told["file"]).stat().st_size
    session = runtime.InferenceSession(told["file"], providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    assert names == (["images"] if net in ("cnn", "resnet") else ["latents", "labels"] if classes else ["latents"])
    model = rivals.load(file)
    inputs = exporting._inputs(model, "generator" if net in WIDTHS else "classifier", 7)
    (answer,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answer), model(*inputs.values()), atol=1e-4)


def test_an_exported_network_that_answers_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    file = kept(tmp_path, "mlp")
    monkeypatch.setattr(exporting, "_difference", lambda *_: 0.5)
    with pytest.raises(UserError, match=r"answers otherwise, by up to 0\.5"):
        rivals.export(str(file))
    assert not list(tmp_path.glob("*.onnx*"))


def test_safetensors_and_bad_wishes(tmp_path: Path, command: Command) -> None:
    file = kept(tmp_path, "mlp")
    out = tmp_path / "copy.safetensors"
    status, said, _ = command(["export", str(file), "--format", "safetensors", "--out", str(out), "--json"])
    assert status == 0 and json.loads(said)["bytes"] == out.stat().st_size
    assert torch.equal(rivals.load(out).sample(3), rivals.load(file).sample(3))
    assert rivals.load(out).about["data"] == "noise"
    for words, wrong in (
        (["--format", "safetensors", "--out", str(out)], "exists already"),
        (["--out", str(tmp_path / "net.pt")], "does not end in .onnx"),
    ):
        status, said, err = command(["export", str(file), *words])
        assert status == 2 and wrong in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("net", ["dcgan", "cnn"])
def test_a_network_goes_through_a_folder(net: str, tmp_path: Path, command: Command) -> None:
    file = kept(tmp_path, net)
    shared, back = tmp_path / "shared", tmp_path / "back"
    assert command(["push", str(file), str(shared)])[0] == 0
    (shared / "evil.pkl").write_bytes(b"\x80")  # nothing of other kinds is taken
    status, said, _ = command(["pull", str(shared), "--out", str(back), "--json"])
    assert status == 0
    role = file.stem
    wanted = ["README.md", f"{role}.json", f"{role}.safetensors", *(["samples.png"] if role == "generator" else [])]
    assert sorted(json.loads(said)["files"]) == wanted == sorted(path.name for path in back.iterdir())
    first, second = rivals.load(file), rivals.load(back)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert 'data | "noise"' in (back / "README.md").read_text()
    for words, wrong in (
        (["push", str(file), str(shared)], "is not empty"),
        (["pull", str(shared), "--out", str(back)], "exists already"),
        (["pull", "./nowhere"], "no folder at"),
        (["pull", str(shared), "--out", str(tmp_path / "x"), "--revision", "main"], "is for repositories"),
    ):
        status, _, err = command(words)
        assert status == 2 and wrong in err and len(err.strip().splitlines()) == 1


def test_a_folder_without_a_network_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no network of ours"):
        rivals.pull(str(empty), out=tmp_path / "a")
    (empty / "generator.safetensors").write_bytes(b"junk")
    (empty / "generator.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read as a network"):
        rivals.pull(str(empty), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


class Refused(Exception):
    """What a hub raises, or what carries its answers: of no kind that is known here."""


def hub(store: Path, calls: list[Any]) -> Any:
    """A stand-in for the Hub's client, which keeps repositories in a folder."""

    class HfApi:
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            calls.append((repo_id, private, exist_ok))
            if repo_id.startswith("else/"):
                raise Refused("403 Forbidden.\nmore")
            (store / repo_id).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            shutil.copytree(folder_path, store / repo_id, dirs_exist_ok=True)

    def snapshot_download(repo_id: str, *, revision: str | None, local_dir: str, allow_patterns: list[str]) -> None:
        if not (store / repo_id).exists():
            raise Refused("404 Not Found")
        for pattern in allow_patterns:
            for path in (store / repo_id).glob(pattern):
                shutil.copy(path, local_dir)

    return SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)


def test_a_network_goes_through_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    client = hub(tmp_path / "hub", calls)
    monkeypatch.setattr(sharing, "_hub", lambda: client)
    monkeypatch.chdir(tmp_path)
    file = kept(tmp_path, "mlp")
    told = rivals.push(str(file), "someone/digits", private=True)
    assert told["repository"] == "someone/digits" and calls == [("someone/digits", True, True)]
    assert rivals.pull("someone/digits")["folder"] == "digits"
    assert torch.equal(rivals.load("digits").sample(2), rivals.load(file).sample(2))
    with pytest.raises(UserError, match=r"refuses 'else/x': 403 Forbidden: log in"):
        rivals.push(str(file), "else/x")
    with pytest.raises(UserError, match="does not give 'someone/else': 404"):
        rivals.pull("someone/else")
    assert not Path("else").exists()


def test_the_stand_in_has_the_client_s_signatures() -> None:
    import inspect

    client = pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    stand_in = hub(Path(), [])
    for own, real in (
        (stand_in.HfApi.create_repo, client.HfApi.create_repo),
        (stand_in.HfApi.upload_folder, client.HfApi.upload_folder),
        (stand_in.snapshot_download, client.snapshot_download),
    ):
        assert set(inspect.signature(own).parameters) <= set(inspect.signature(real).parameters)
