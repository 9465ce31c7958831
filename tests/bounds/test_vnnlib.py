"""VNN-LIB: properties are read as boxes and inequalities, and nothing else is read."""

import numpy as np
import pytest

from helpers.refusals import named
from rivals.bounds.vnnlib import read_property

HEAD = "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)\n"
BOX = "(assert (<= X_0 0.5)) (assert (>= X_0 -1e-1)) (assert (and (<= X_1 1) (>= X_1 0)))\n"


def test_a_box_and_alternatives_are_read():
    found = read_property(
        HEAD + BOX + "; a comment (with parentheses\n(assert (or (and (>= Y_0 Y_1)) (and (<= Y_1 -2))))"
    )
    assert (found.inputs, found.outputs, len(found.cases)) == (2, 2, 2)
    first, second = found.cases
    np.testing.assert_array_equal(first.lower, [-0.1, 0])
    np.testing.assert_array_equal(first.upper, [0.5, 1])
    np.testing.assert_array_equal(first.coefficients, [[-1, 1]])  # y_1 - y_0 <= 0
    np.testing.assert_array_equal(first.limits, [0])
    np.testing.assert_array_equal(second.coefficients, [[0, 1]])
    np.testing.assert_array_equal(second.limits, [-2])


def test_assertions_must_hold_together_and_terms_may_be_linear():
    outputs = "(assert (>= (+ (* 2 Y_0) (- Y_1) 1) 3)) (assert (< Y_1 4.5))"
    (case,) = read_property(HEAD + BOX + outputs).cases
    np.testing.assert_array_equal(case.coefficients, [[-2, 1], [0, 1]])
    np.testing.assert_array_equal(case.limits, [-2, 4.5])


def test_each_alternative_may_have_its_own_box():
    boxes = (
        "(assert (<= X_1 1)) (assert (>= X_1 0)) (assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 3) (<= X_0 4))))"
    )
    found = read_property(HEAD + boxes + "(assert (<= Y_0 0))")
    assert [case.lower.tolist() for case in found.cases] == [[0, 0], [3, 0]]


def test_no_input_is_in_an_empty_box():
    assert not read_property(HEAD + BOX + "(assert (>= X_0 0.75)) (assert (<= Y_0 0))").cases


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HEAD + BOX, ("says nothing of the outputs",)),
        (HEAD + "(assert (<= X_0 1)) (assert (<= Y_0 0))", ("does not bound X_0 from both sides",)),
        (HEAD + BOX + "(assert (<= (* Y_0 Y_1) 0))", ("(* Y_0 Y_1)", "not of the part of VNN-LIB")),
        (HEAD + BOX + "(assert (<= (+ Y_0 X_0) 0))", ("inequality of X_0, Y_0",)),
        (HEAD + BOX + "(assert (<= Y_2 0))", ("Y_2", "does not declare")),
        (HEAD + BOX + "(assert (<= Y_0 nan))", ("nan",)),
        (HEAD + BOX + "(assert (<= Y_0 __import__))", ("__import__",)),
        (HEAD + BOX + "(check-sat)", ("(check-sat)",)),
        (HEAD + "(assert (<= Y_0 0)", ("inside a parenthesis",)),
        ("hello", ("hello",)),
        ("(" * 200, ("100 parentheses",)),
        ("(declare-const X_0 Real)", ("1 inputs and 0 outputs",)),
        (HEAD + BOX + 14 * "(assert (or (<= Y_0 0) (<= Y_1 0)))", ("10,000 cases",)),
    ],
)
def test_whatever_else_is_refused(text, parts):
    with named(*parts):
        read_property(text)
