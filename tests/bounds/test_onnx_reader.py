"""ONNX files: the network that is read computes what the module computed, and nothing unknown is read."""

import io

import pytest
import torch
from torch import nn

from helpers.bounded_networks import Residual, randomized
from helpers.refusals import named
from rivals.bounds.onnx_reader import read_onnx

onnx = pytest.importorskip("onnx")


def graph(nodes, shape=(1, 2), outputs=("y",), weights=()):
    """A file of these nodes from ``x`` to ``y``."""
    helper = onnx.helper
    values = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    results = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    tensors = [helper.make_tensor(name, kind, sides, data) for name, kind, sides, data in weights]
    return helper.make_model(helper.make_graph(nodes, "g", values, results, tensors))


FLOAT, INT = 1, 7
WEIGHT = ("w", FLOAT, (2, 3), [1.0, 2, 3, 4, 5, 6])


def read(model):
    return read_onnx(model.SerializeToString(), "net.onnx")[0]


def node(kind, *inputs, to="y", **attributes):
    return onnx.helper.make_node(kind, inputs, [to], **attributes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_exported_module_is_read():
    model = randomized(Residual(), "onnx")
    x = torch.rand(1, 1, 16, 16)
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamo=False)
    network, shape = read_onnx(file.getvalue(), "net.onnx")
    assert shape == (1, 16, 16)
    torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.frozen()(x), model(x), rtol=1e-4, atol=1e-5)


def test_matrices_constants_and_shapes_are_read():
    constant = onnx.helper.make_tensor("c", FLOAT, (3,), [1.0, 0, -1])
    nodes = [
        node("MatMul", "x", "w", to="a"),
        node("Constant", to="c", value=constant),
        node("Sub", "c", "a", to="b"),
        node("LeakyRelu", "b", to="d", alpha=0.25),
        node("Reshape", "d", "s", to="e"),
        node("Transpose", "e", to="f", perm=[0, 2, 1]),
        node("Flatten", "f", to="g"),
        node("Add", "g", "d", to="y"),
    ]
    network = read(graph(nodes, weights=[WEIGHT, ("s", INT, (3,), [0, 3, -1])]))
    x = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    b = torch.tensor([1.0, 0, -1]) - x @ torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    torch.testing.assert_close(network(x), 2 * nn.functional.leaky_relu(b, 0.25))


def external():
    model = graph([node("MatMul", "x", "w")], weights=[WEIGHT])
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    return model


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: graph([node("Softmax", "x")]), ("operator Softmax", "Gemm, MatMul")),
        (lambda: graph([node("Relu", "x", to="y"), node("Relu", "x", to="z")], outputs=("y", "z")), ("2 outputs",)),
        (lambda: graph([node("Relu", "nowhere")]), ("nowhere", "nothing computed")),
        (lambda: graph([node("Relu", "x")], shape=(4, 2)), ("4 x 2", "1 x C x H x W")),
        (lambda: graph([node("MatMul", "x", "w")], (1, 5), weights=[WEIGHT]), ("y (MatMul)", "does not fit")),
        (lambda: graph([node("Gemm", "x", "w", transA=1)], weights=[WEIGHT]), ("Gemm", "transposed")),
        (lambda: graph([node("Transpose", "x", perm=[1, 0])]), ("Transpose", "batch")),
        (lambda: graph([node("LeakyRelu", "x", alpha=2.0)]), ("slope of 2",)),
        (external, ("weight w in another file", "all weights inside")),
    ],
)
def test_what_cannot_be_bounded_is_refused(make, parts):
    with named(*parts):
        read(make())


def test_a_damaged_file_is_refused():
    with named("net.onnx", "damaged"):
        read_onnx(b"\xff\xff\xff not a file", "net.onnx")
