"""ONNX files: the network that is read computes what the module computed, and nothing unknown is read."""

import io

import pytest
import torch
from torch import nn

from helpers.bounded_networks import Residual, randomized
from helpers.refusals import named
from rivals.bounds.onnx_reader import read_onnx

onnx = pytest.importorskip("onnx")


FLOAT, INT, TEXT, HALF, DOUBLE, BFLOAT = 1, 7, 8, 10, 11, 16


def graph(nodes, shape=(1, 2), outputs=("y",), weights=(), types=(FLOAT, FLOAT), opset=17):
    """A file of these nodes from ``x`` to ``y``."""
    helper = onnx.helper
    values = [helper.make_tensor_value_info("x", types[0], shape)]
    results = [helper.make_tensor_value_info(name, types[1], None) for name in outputs]
    tensors = [helper.make_tensor(name, kind, sides, data) for name, kind, sides, data in weights]
    made = helper.make_graph(nodes, "g", values, results, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


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


def test_float64_is_read_as_it_is():
    weight = ("w", DOUBLE, (2, 1), [0.1, 1 + 1e-12])
    network = read(graph([node("MatMul", "x", "w")], weights=[weight], types=(DOUBLE, DOUBLE)))
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    assert network(x).item() == network.frozen(torch.float64)(x).item() == 0.1 + (1 + 1e-12)
    assert network.frozen(torch.float32)(x.float()).dtype == torch.float32


@pytest.mark.parametrize("kind", [HALF, BFLOAT, TEXT, DOUBLE, 6, 9])
def test_weights_and_constants_of_other_types_are_refused(kind):
    # Of integers 0.75 would become 0, and of half precision no rounding error would be covered.
    data = [b"0.75"] if kind == TEXT else [0.75 if kind in (HALF, BFLOAT, DOUBLE) else 1]
    name = onnx.TensorProto.DataType.Name(kind)
    with named("constant c of 'net.onnx' is of type " + name, "float32"):
        read(graph([node("Mul", "x", "c")], weights=[("c", kind, (1,), data)]))
    value = onnx.helper.make_tensor("", kind, (1,), data)
    with named("constant k of 'net.onnx' is of type " + name, "float32"):
        read(graph([node("Constant", to="k", value=value), node("Sub", "x", "k")]))


@pytest.mark.parametrize(
    ("types", "says"),
    [
        ((HALF, HALF), "input x of 'net.onnx' is of type FLOAT16"),
        ((BFLOAT, FLOAT), "input x of 'net.onnx' is of type BFLOAT16"),
        ((INT, FLOAT), "input x of 'net.onnx' is of type INT64"),
        ((FLOAT, DOUBLE), "output y of 'net.onnx' is of type DOUBLE"),
    ],
)
def test_inputs_and_outputs_of_other_types_are_refused(types, says):
    with named(says, "export the whole network in float32"):
        read(graph([node("Relu", "x")], types=types))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e39, 1e-42])
def test_weights_beyond_float32_are_refused(value):
    kind = FLOAT if value != value or value == float("-inf") else DOUBLE
    with named("y (Add)", "beyond the range of float32"):
        read(graph([node("Add", "x", "c")], weights=[("c", kind, (2,), [1.0, value])], types=(kind, kind)))


def wide(*nodes, weights=(), shape=(1, 3, 8)):
    return graph(list(nodes), shape, weights=weights)


TWICE = (node("MatMul", "x", "w", to="a"), node("Relu", "x", to="b"))
ROWS = ("c", FLOAT, (4, 2), [1.0] * 8)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: wide(node("AveragePool", "x", kernel_shape=[2])), ("y (AveragePool)", "1 x 3 x 8")),
        (lambda: wide(node("MaxPool", "x", kernel_shape=[3], strides=[3])), ("y (MaxPool)", "1 x 3 x 8")),
        (lambda: wide(node("MaxPool", "x", kernel_shape=[2, 2])), ("y (MaxPool)", "1 x 3 x 8")),
        (lambda: wide(node("GlobalAveragePool", "x"), shape=(1, 3, 2, 2, 2)), ("GlobalAveragePool", "1 x 3 x 2 x 2")),
        (lambda: wide(node("MaxPool", "x", kernel_shape=[2]), shape=(1, 1, 4, 4)), ("y (MaxPool)", "two dimensions")),
        (lambda: wide(node("AveragePool", "x"), shape=(1, 1, 4, 4)), ("y (AveragePool)", "does not fit")),
        (lambda: graph([node("Sub", "c", "x")], weights=[ROWS]), ("y (Sub)", "4 x 2 of 1 x 2")),
        (lambda: graph([node("Mul", "x", "c")], (1, 1), weights=[("c", FLOAT, (5,), [2.0] * 5)]), ("(Mul)", "1 x 5")),
        (lambda: graph([node("Add", "x", "c")], weights=[("c", FLOAT, (1, 1, 2), [1, 2])]), ("(Add)", "1 x 1 x 2")),
        (lambda: graph([*TWICE, node("Sub", "a", "b")], weights=[WEIGHT]), ("y (Sub)", "1 x 3 and 1 x 2")),
        (lambda: graph([node("Reshape", "x", "c")], weights=[ROWS]), ("y (Reshape)", "not INT64")),
        (lambda: graph([node("Add", "x", "c")], weights=[("c", INT, (2,), [1, 2])]), ("y (Add)", "not float32")),
        (lambda: graph([node("Gemm", "x", "w", "c")], weights=[WEIGHT, ROWS]), ("y (Gemm)", "adds 4 x 2")),
        (lambda: graph([node("Flatten", "x", to="x")]), ("value x a second time",)),
        (lambda: graph([node("Add", "x")]), ("y (Add)", "does not fit")),
        (lambda: graph([node("Add", "x", "c", "c")], weights=[("c", FLOAT, (2,), [1, 2])]), ("(Add)", "3 inputs")),
        (lambda: graph([node("Relu", "x", domain="mine")]), ("y (Relu)", "domain mine")),
        (lambda: graph([node("Add", "x", "x", broadcast=1)]), ("y (Add)", "attribute broadcast")),
        (lambda: graph([node("Dropout", "x")], opset=6), ("opset 6",)),
        (lambda: graph([node("Identity", "x")]), ("nothing to bound",)),
    ],
)
def test_what_would_be_misread_is_refused_by_the_name_of_its_node(make, parts):
    with named(*parts):
        read(make())


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
