"""ONNX files and transformers' image classifiers as models to attack. Without the packages: what to install."""

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers.refusals import named
from rivals import Linf, evaluate
from rivals.api.common.model_zoo import find_model
from rivals.base.size import Size


def small_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        return nn.Sequential(*layers).eval()


def exported(net, path):
    """A file of the net, made by hand: exporting takes seconds."""
    onnx = pytest.importorskip("onnx")
    helper, arrays = onnx.helper, onnx.numpy_helper
    conv, norm, linear = net[0], net[1], net[5]
    weights = {
        **{"w": conv.weight, "b": conv.bias, "s": norm.weight, "c": norm.bias, "m": norm.running_mean},
        **{"v": norm.running_var, "f": linear.weight, "g": linear.bias},
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["1"]),
        helper.make_node("BatchNormalization", ["1", "s", "c", "m", "v"], ["2"]),
        helper.make_node("Relu", ["2"], ["3"]),
        helper.make_node("AveragePool", ["3"], ["4"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["4"], ["5"]),
        helper.make_node("Gemm", ["5", "f", "g"], ["y"], transB=1),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", kind, ["n", 3])],
        [arrays.from_array(value.detach().numpy(), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return model


def test_an_onnx_file_is_attacked_as_its_network(tmp_path):
    pytest.importorskip("onnx2torch")
    net, x = small_net(), torch.rand(12, 1, 8, 8)
    exported(net, tmp_path / "net.onnx")
    found = find_model(f"onnx:{tmp_path / 'net.onnx'}")
    assert (found.size, found.channels) == (Size(8, 8), 1)
    torch.testing.assert_close(found.model(x), net(x))
    data = (x, net(x).argmax(1))
    of_file, own = (
        evaluate(model, data, Linf(0.1), attack="pgd(steps=5)", alarms=False, quiet=True)
        for model in (f"onnx:{tmp_path / 'net.onnx'}", net)
    )
    assert of_file.robust == own.robust


def test_onnx_files_that_cannot_be_read_are_refused_in_one_line(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnx2torch")
    with named("there is no ONNX file"):
        find_model(f"onnx:{tmp_path / 'none.onnx'}")
    (tmp_path / "text.onnx").write_text("no network")
    with named("is no valid ONNX file"):
        find_model(f"onnx:{tmp_path / 'text.onnx'}")
    model = exported(small_net(), tmp_path / "net.onnx")
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with named("keeps its weights in other files", "save it as one file"):
        find_model(f"onnx:{tmp_path / 'split.onnx'}")
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.node[2].op_type = "Mish"
    model.opset_import[0].version = 18
    onnx.save(model, tmp_path / "mish.onnx")
    with named("onnx2torch cannot convert", "Mish"):
        find_model(f"onnx:{tmp_path / 'mish.onnx'}")


def test_a_folder_of_transformers_is_attacked_with_its_normalization_and_classes(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        **{"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 8, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "intermediate_size": 8, "num_labels": 3},
    )
    config.id2label = {0: "cat", 1: "dog", 2: "eel"}
    net = transformers.ViTForImageClassification(config).eval()
    net.save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.25]}')
    found = find_model(f"hf:{tmp_path / 'vit'}")
    assert (found.size, found.channels, found.classes) == (Size(8, 8), 1, ("cat", "dog", "eel"))
    assert (found.mean, found.std) == ((0.5,), (0.25,))
    x = torch.rand(6, 1, 8, 8)
    expected = net((x - 0.5) / 0.25).logits
    torch.testing.assert_close(found.model(x).logits, expected)
    data = (x, expected.argmax(1))
    report = evaluate(f"hf:{tmp_path / 'vit'}", data, Linf(0.1), attack="fgsm", alarms=False, quiet=True)
    assert report.clean.value == 1
    with named("hf:", "cannot be loaded", "give the folder or the name of an image classifier"):
        (tmp_path / "empty").mkdir()
        find_model(f"hf:{tmp_path / 'empty'}")


def test_a_name_of_the_hub_has_its_own_normalization_or_a_note(tmp_path, monkeypatch, capsys):
    net = small_net()
    net.config = SimpleNamespace(id2label={0: "cat"}, num_labels=1)

    def from_pretrained(place, *, use_safetensors, trust_remote_code):
        assert use_safetensors and not trust_remote_code
        return net

    def cached_file(place, name):
        if place != "a/b":
            raise OSError(f"{place} has no {name}")
        return str(tmp_path / name)

    fake = SimpleNamespace(
        AutoModelForImageClassification=SimpleNamespace(from_pretrained=from_pretrained),
        utils=SimpleNamespace(cached_file=cached_file),
    )
    monkeypatch.setitem(sys.modules, "transformers", fake)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.25]}')
    found = find_model("hf:a/b")
    assert (found.mean, found.std) == ((0.5,), (0.25,))
    assert find_model("hf:a/c", mean=[0.5], std=[0.25]).mean == (0.5,)
    assert not capsys.readouterr().err
    assert find_model("hf:a/c").model is net
    assert "hf:a/c is used without a normalization: add --mean and --std" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "package"), [("onnx:net.onnx", "onnx2torch"), ("hf:a/b", "transformers")])
def test_without_the_package_it_is_said_how_to_get_it(monkeypatch, name, package):
    def missing(wanted):
        raise ImportError(wanted)

    monkeypatch.setattr(importlib, "import_module", missing)
    with named(package, "pip install 'rivals[models]'"):
        find_model(name)
