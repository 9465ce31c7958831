"""``rivals certify net.onnx property.vnnlib``: sat with a counterexample, unsat, unknown, and refusals."""

import csv
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

import rivals
from helpers.commands import assert_refused

onnx = pytest.importorskip("onnx")

# y_0 = relu(x_0) + relu(-x_0) is |x_0|, and y_1 is x_1.
WEIGHTS = {"w": [[1.0, -1, 0], [0, 0, 1]], "v": [[1.0, 0], [1, 0], [0, 1]]}
VARIABLES = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = VARIABLES + "(assert (>= X_0 -1))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 0.5))\n"


def network(weights):
    """An ONNX file of two matrices with ReLU between them, as its bytes."""
    helper = onnx.helper
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    tensors = [onnx.numpy_helper.from_array(np.array(rows, np.float32), name) for name, rows in weights.items()]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, len(weights["w"])])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, len(weights["v"][0])])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors)).SerializeToString()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The network and a few properties of it; one of each packed."""
    home = tmp_path_factory.mktemp("place")
    content = network(WEIGHTS)
    (home / "net.onnx").write_bytes(content)
    # relu(x_0) + relu(-x_0) - relu(x_0 + x_1), where x_1 = 1: |x_0| - x_0 - 1.
    (home / "slack.onnx").write_bytes(network({"w": [[1, -1, 1], [0, 0, 1]], "v": [[1], [1], [-1]]}))
    (home / "net.onnx.gz").write_bytes(gzip.compress(content))
    (home / "broken.onnx.gz").write_bytes(gzip.compress(content)[:-20])
    properties = {
        "sat": BOX + "(assert (and (>= Y_0 0.9) (<= Y_1 0.1)))",
        "unsat": BOX + "(assert (or (and (>= Y_0 1.1)) (and (>= Y_1 0.75) (>= Y_0 0))))",
        "slack": "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(assert (>= X_0 -1))"
        "(assert (<= X_0 1))(assert (>= X_1 1))(assert (<= X_1 1))(assert (<= Y_0 -1.1))",
        "impossible": BOX + "(assert (>= X_1 2))(assert (>= Y_0 0))",
        "strict": BOX + "(assert (> Y_1 0.5))",
        "equal": BOX + "(assert (>= Y_1 0.5))",
        "open": BOX + "(assert (< X_1 0.25))(assert (>= Y_1 0.25))",
        "rounded": BOX + "(assert (>= X_0 0.1))(assert (<= (+ X_0 0.6) 0.7))(assert (>= Y_0 0))",
        "three": BOX + "(declare-const X_2 Real)(assert (>= X_2 0))(assert (<= X_2 1))(assert (>= Y_0 0))",
    }
    for name, text in properties.items():
        (home / f"{name}.vnnlib").write_text(text)
        (home / f"{name}.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    return home


def check(run_rivals, place, name, *words, net="net.onnx"):
    status, out, err = run_rivals("certify", place / net, place / f"{name}.vnnlib", *words, "--json")
    assert status == 0, err
    return json.loads(out)


def test_a_counterexample_is_found_and_shown(run_rivals, place):
    found = check(run_rivals, place, "sat")
    assert found["status"] == "sat"
    inputs, outputs = found["counterexample"]["inputs"], found["counterexample"]["outputs"]
    assert -1 <= inputs[0] <= 1 and 0 <= inputs[1] <= 0.1 and outputs == [abs(inputs[0]), inputs[1]]
    assert outputs[0] >= 0.9
    shown = run_rivals("certify", place / "net.onnx.gz", place / "sat.vnnlib.gz").out
    assert shown.startswith("sat\n((X_0 ")


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "alpha-crown", "beta-crown"])
def test_what_is_impossible_is_proven(run_rivals, place, method):
    # The intervals of |x| on [-1, 1] end at 2; y_0 <= 1 needs linear bounds.
    found = check(run_rivals, place, "unsat", "--method", method, net="net.onnx.gz")
    assert found["status"] == ("unknown" if method == "ibp" else "unsat")
    assert found["excluded"] == (1 if method == "ibp" else 2)


def test_a_property_without_inputs_is_proven_and_said_to_be_empty(run_rivals, place):
    found = check(run_rivals, place, "impossible")
    assert (found["status"], found["cases"]) == ("unsat", 0) and "inputs are empty" in found["note"]
    assert (
        "; the property's inputs are empty"
        in run_rivals("certify", place / "net.onnx", place / "impossible.vnnlib").out
    )


def test_a_counterexample_satisfies_strict_inequalities_of_outputs_and_inputs(run_rivals, place):
    # The largest y_1 is 0.5, and with x_1 < 0.25 it stays below 0.25: only equality would violate these.
    for name in ("strict", "open"):
        assert check(run_rivals, place, name, "--method", "ibp")["status"] == "unknown"
    assert check(run_rivals, place, "equal")["counterexample"]["outputs"][1] == 0.5


def test_inputs_that_only_rounding_would_exclude_are_kept(run_rivals, place):
    found = check(run_rivals, place, "rounded")
    assert (found["status"], found["counterexample"]["inputs"][0]) == ("sat", 0.1)


def test_alpha_crown_proves_what_crown_cannot(run_rivals, place):
    # Of relu(x) + relu(-x) - x only the slopes 1 and 0 leave nothing: 1 and 1, or 0 and 0, leave -x >= -1.
    statuses = {
        method: check(run_rivals, place, "slack", "--method", method, net="slack.onnx")["status"]
        for method in ("ibp", "crown-ibp", "crown", "alpha-crown", "beta-crown")
    }
    assert {method for method, status in statuses.items() if status == "unsat"} == {"alpha-crown", "beta-crown"}
    assert check(run_rivals, place, "slack", net="slack.onnx")["status"] == "unsat"  # the default


def test_python_has_the_same(place):
    found = rivals.certify(place / "net.onnx", place / "unsat.vnnlib")
    assert (found.status, found.cases) == ("unsat", 2)
    assert "2 of 2 cases excluded by alpha-crown" in str(found)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("net.onnx", "three.vnnlib"), "is of 3 inputs and 2 outputs"),
        (("net.onnx", "missing.vnnlib"), "does not exist"),
        (("broken.onnx.gz", "sat.vnnlib"), "cannot be read"),
        (("net.onnx", "sat.txt"), "name a .vnnlib file after it"),
        (("net.onnx", "sat.vnnlib", "--eps", "0.1"), "--eps has no meaning for a property"),
        (("net.onnx", "sat.vnnlib", "--method", "smoothing"), "smoothing certifies no property"),
        (("net.onnx", "sat.vnnlib", "--out", "runs/p"), "--out has no meaning for a property"),
    ],
)
def test_what_cannot_work_is_refused(run_rivals, place, monkeypatch, words, says):
    monkeypatch.chdir(place)
    assert_refused(run_rivals("certify", *words), says)


def test_a_few_properties_of_the_competition_are_as_its_verifiers_found():
    root = Path(os.environ.get("RIVALS_DATA", "nowhere")) / "vnncomp2022-mnist_fc"
    if not root.exists():
        pytest.skip("needs vnncomp2022-mnist_fc under RIVALS_DATA")
    with (root / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "256x2" in row["onnx"] and "0.03" in row["vnnlib"]]
    chosen = [row for row in rows if row["status"] in ("sat", "unsat")][:3]
    assert {row["status"] for row in chosen} == {"sat", "unsat"}
    for row in chosen:
        network, wanted = (root / row[key].removeprefix("mnist_fc/") for key in ("onnx", "vnnlib"))
        assert rivals.certify(f"{network}.gz", f"{wanted}.gz").status == row["status"], row
