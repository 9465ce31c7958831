"""Ways out: ONNX that answers alike, safetensors, and networks that are shared and fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import rivals
from helpers.commands import RunRivals
from helpers.fake_runs import fake_run
from rivals import UserError, build_classifier, build_generator
from rivals.api import hub, onnx_export
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_encoder, build_perturber
from rivals.reports import image_grid

WIDTHS = {"mlp": (16,), "dcgan": (6, 5), "sngan": (6, 5, 4), "r3": (8, 8, 8)}


def kept(folder: Path, net: str, classes: int = 0) -> Path:
    """A small network, away from its start, in a file."""
    torch.manual_seed(0)
    if net in WIDTHS:
        made: Any = build_generator(net, size=16, channels=3, classes=classes, latent_dim=6, widths=WIDTHS[net])
        file = folder / "generator.safetensors"
    else:
        made = build_classifier(net, size=16, channels=3, classes=4, widths=(8, 8), mean=(0.4,) * 3, std=(0.2,) * 3)
        file = folder / "classifier.safetensors"
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_network(made.eval(), file, {"data": "noise", "classes": list("abcd")[: classes or 4]})
    return file


@pytest.mark.parametrize(
    ("net", "classes"), [("mlp", 0), ("dcgan", 0), ("sngan", 3), ("r3", 3), ("cnn", 0), ("resnet", 0)]
)
def test_onnx_gives_the_outputs_of_the_network(net: str, classes: int, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    file = kept(tmp_path, net, classes)
    result = rivals.export(str(file))
    assert result["largest_difference"] < 1e-4 and result["bytes"] == Path(result["file"]).stat().st_size
    session = runtime.InferenceSession(result["file"], providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    assert names == (["images"] if net in ("cnn", "resnet") else ["latents", "labels"] if classes else ["latents"])
    model = rivals.load(file)
    inputs = onnx_export._inputs(model, "generator" if net in WIDTHS else "classifier", 7)
    (answer,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(answer), model(*inputs.values()), atol=1e-4)


def test_an_export_whose_outputs_differ_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    file = kept(tmp_path, "mlp")
    monkeypatch.setattr(onnx_export, "_difference", lambda *_: 0.5)
    with pytest.raises(UserError, match=r"differ by up to 0\.5"):
        rivals.export(str(file))
    assert not list(tmp_path.glob("*.onnx*"))


def test_safetensors_and_bad_formats(tmp_path: Path, run_rivals: RunRivals) -> None:
    file = kept(tmp_path, "mlp")
    out = tmp_path / "copy.safetensors"
    status, said, _ = run_rivals("export", str(file), "--format", "safetensors", "--out", str(out), "--json")
    assert status == 0 and json.loads(said)["bytes"] == out.stat().st_size
    assert torch.equal(rivals.load(out).sample(3), rivals.load(file).sample(3))
    assert rivals.load(out).about["data"] == "noise"
    for words, wrong in (
        (["--format", "safetensors", "--out", str(out)], "exists already"),
        (["--out", str(tmp_path / "net.pt")], "does not end in .onnx"),
    ):
        status, said, err = run_rivals("export", str(file), *words)
        assert status == 2 and wrong in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("net", ["dcgan", "cnn"])
def test_a_network_goes_through_a_folder(net: str, tmp_path: Path, run_rivals: RunRivals) -> None:
    file = kept(tmp_path, net)
    shared, back = tmp_path / "shared", tmp_path / "back"
    assert run_rivals("push", str(file), str(shared))[0] == 0
    (shared / "evil.pkl").write_bytes(b"\x80")  # nothing of other kinds is taken
    status, said, _ = run_rivals("pull", str(shared), "--out", str(back), "--json")
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
        status, _, err = run_rivals(*words)
        assert status == 2 and wrong in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("role", "file", "use"),
    [
        ("perturber", "generator.safetensors", "rivals attack MODEL --attack generator:shared"),
        ("encoder", "encoder.safetensors", "latents = net(images * 2 - 1)"),
    ],
)
def test_networks_beside_a_game_are_shared_and_exported_or_refused(role: str, file: str, use: str, tmp_path) -> None:
    shape: dict[str, Any] = {"size": 8, "channels": 1, "widths": (4, 4, 4)[: 3 if role == "perturber" else 2]}
    net = build_perturber(**shape) if role == "perturber" else build_encoder(latent_dim=3, **shape)
    save_network(net.eval(), tmp_path / file, {"data": "noise"})
    rivals.push(str(tmp_path / file), str(tmp_path / "shared"))
    assert file in rivals.pull(f"{tmp_path}/shared", out=tmp_path / "back")["files"]
    back = rivals.load(tmp_path / "back")
    assert back.spec["role"] == role
    assert use in (tmp_path / "back" / "README.md").read_text()
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(back(x), net(x))
    with pytest.raises(UserError, match=f"the {role} at .* has no ONNX form: add --format safetensors"):
        rivals.export(str(tmp_path / file))
    assert rivals.load(rivals.export(str(tmp_path / file), format="safetensors")["file"]).spec == net.spec


def test_a_folder_without_a_network_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no network of ours"):
        rivals.pull(str(empty), out=tmp_path / "a")
    (empty / "generator.safetensors").write_bytes(b"junk")
    (empty / "generator.json").write_text("{}")
    with pytest.raises(UserError, match=r"generator\.json' is invalid: the content has no 'format'"):
        rivals.pull(str(empty), out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


class Refused(Exception):
    """What a hub raises, or what carries its answers: of no kind that is known here."""


@pytest.mark.parametrize("command", ["pull", "push", "explore", "sample"])
def test_an_interrupted_command_leaves_no_part_of_its_folder(command, tmp_path: Path, monkeypatch) -> None:
    file = kept(tmp_path, "mlp")
    (tmp_path / "home").mkdir()
    out = tmp_path / "home" / "out"
    calls: dict[str, Any] = {
        "pull": lambda: rivals.pull(f"{tmp_path}/", out=out),
        "push": lambda: rivals.push(str(file), str(out)),
        "explore": lambda: rivals.explore(str(file), "walk", n=2, out=out),
        "sample": lambda: rivals.sample(str(file), n=3, folder=out),
    }
    with monkeypatch.context() as patch:

        def stop(*args: Any, **options: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(hub.shutil, "copyfile", stop)
        patch.setattr(hub, "_card", stop)
        patch.setattr(image_grid, "save_png", stop)
        patch.setattr(image_grid, "_png", stop)
        with pytest.raises(KeyboardInterrupt):
            calls[command]()
    assert not list(out.parent.iterdir())
    calls[command]()
    assert len(list(out.iterdir())) >= 2


def fake_hub(store: Path, calls: list[Any]) -> Any:
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
    client = fake_hub(tmp_path / "hub", calls)
    monkeypatch.setattr(hub, "_hub", lambda: client)
    monkeypatch.chdir(tmp_path)
    file = kept(tmp_path, "mlp")
    result = rivals.push(str(file), "someone/digits", private=True)
    assert result["repository"] == "someone/digits" and calls == [("someone/digits", True, True)]
    assert rivals.pull("someone/digits")["folder"] == "digits"
    assert torch.equal(rivals.load("digits").sample(2), rivals.load(file).sample(2))
    with pytest.raises(UserError, match=r"refuses 'else/x': 403 Forbidden: log in"):
        rivals.push(str(file), "else/x")
    with pytest.raises(UserError, match="does not give 'someone/else': 404"):
        rivals.pull("someone/else")
    assert not Path("else").exists()


def test_the_fake_client_has_the_signatures_of_the_real_one() -> None:
    import inspect

    client = pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    fake = fake_hub(Path(), [])
    for own, real in (
        (fake.HfApi.create_repo, client.HfApi.create_repo),
        (fake.HfApi.upload_folder, client.HfApi.upload_folder),
        (fake.snapshot_download, client.snapshot_download),
    ):
        assert set(inspect.signature(own).parameters) <= set(inspect.signature(real).parameters)


def eval_results(folder: Path) -> dict[str, float]:
    """The metrics of a card as the Hub reads them."""
    hub_client = pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    data = hub_client.ModelCard.load(folder / "README.md").data
    return {each.metric_name: each.metric_value for each in data.eval_results or []}


def test_the_card_of_a_generator_has_its_scores(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", grids=0)
    kept(run.folder, "dcgan")
    values = [{"name": "FD-lite0", "value": 156.25, "error": 1.0}, {"name": "recall (k = 3)", "value": None}]
    (run.folder / "scores.json").write_text(json.dumps({"values": values}))
    rivals.push(str(run.folder), str(tmp_path / "shared"))
    assert eval_results(tmp_path / "shared") == {"FD-lite0": 156.25}
    assert "| FD-lite0 | 156.2 |" in (tmp_path / "shared" / "README.md").read_text()


def test_the_card_of_a_classifier_has_its_last_accuracy(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", command="classify", grids=0)
    kept(run.folder, "cnn")
    for step, accuracy in ((201, 0.5), (202, 0.875)):
        run.append([{"images": 64 * step, "step": step, "seconds": 99.0, "accuracy/test": accuracy, "n_test": 8}])
    rivals.push(str(run.folder), str(tmp_path / "shared"))
    assert eval_results(tmp_path / "shared") == {"accuracy": 0.875}
    rivals.push(str(run.folder / "classifier.safetensors"), str(tmp_path / "file"))
    assert eval_results(tmp_path / "file") == {}
