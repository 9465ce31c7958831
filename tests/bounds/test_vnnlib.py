"""VNN-LIB: properties are read as boxes and inequalities, and nothing else is read."""

from fractions import Fraction

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


def box(*bounds):
    """The cases for these bounds of X_0."""
    second = "(assert (<= X_1 1)) (assert (>= X_1 0))"
    return read_property(HEAD + second + "".join(f"(assert {b})" for b in bounds) + "(assert (<= Y_0 0))").cases


def test_bounds_are_computed_exactly_and_rounded_outward():
    assert 0.7 - 0.6 < 0.1 and 0.1 + 0.2 > 0.3  # in float64
    (case,) = box("(<= (+ X_0 0.6) 0.7)", "(>= X_0 0.1)")
    assert Fraction(case.lower[0]) <= Fraction("0.1") <= Fraction(case.upper[0])
    (case,) = box("(>= (- X_0 0.1) 0.2)", "(<= (* 10 X_0) 3)")
    assert Fraction(case.lower[0]) <= Fraction("0.3") <= Fraction(case.upper[0])
    assert case.upper[0] - case.lower[0] < 1e-16
    (case,) = box("(>= (* 3 X_0) 1)", "(<= (* 7 X_0) 5)")
    assert Fraction(case.lower[0]) < Fraction(1, 3) and Fraction(case.upper[0]) > Fraction(5, 7)


def test_only_boxes_without_any_input_are_dropped():
    assert not box("(>= X_0 0.3)", "(<= X_0 0.29999999999999999999)")
    assert not box("(> X_0 0.5)", "(<= X_0 0.5)")
    assert not box("(>= X_0 0.5)", "(< X_0 0.5)")
    assert len(box("(>= X_0 0.5)", "(<= X_0 0.5)", "(< X_0 0.6)")) == 1
    assert len(box("(> X_0 0.1)", "(< X_0 0.10000000000000000001)")) == 1  # though no float64 is inside


def test_the_inputs_that_are_searched_satisfy_the_bounds_as_they_are_written():
    (case,) = box("(>= X_0 0.1)", "(<= X_0 0.3)")
    assert [each[0] for each in case.inside()] == [0.1, 0.3]
    (case,) = box("(> X_0 0.1)", "(< X_0 0.3)")
    assert [each[0] for each in case.inside()] == [np.nextafter(0.1, 1), np.nextafter(0.3, 0)]
    (case,) = box("(>= (* 3 X_0) 2)", "(<= X_0 0.7)")
    assert Fraction(repr(float(case.inside()[0][0]))) >= Fraction(2, 3)
    (case,) = box("(> X_0 0.1)", "(< X_0 0.10000000000000000001)")
    lower, upper = case.inside()
    assert lower[0] > upper[0]


def test_strict_inequalities_hold_strictly():
    (case,) = read_property(HEAD + BOX + "(assert (and (> Y_0 2) (<= (+ Y_0 Y_1) 3)))").cases
    assert case.strict.tolist() == [True, False]
    assert case.holds([0.5, 1.0], [2.5, 0.5])
    assert not case.holds([0.5, 1.0], [2.0, 0.5]) and not case.holds([0.6, 1.0], [2.5, 0.5])


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
        (HEAD + BOX + "(assert (<= Y_0 2_5.0))", ("2_5.0",)),
        (HEAD + BOX + "(assert (<= Y_0 ٣))", ("٣",)),
        (HEAD + BOX + "(assert (<= Y_0 1e-999999999))", ("1e-999999999",)),
        (HEAD + BOX + "(assert (<= (* 1e300 1e300 ) Y_0))", ("beyond 1e308",)),
        (HEAD + BOX + "(assert (<= (* 1e-30 Y_0) 0))", ("Y_0 by 1e-30",)),
        (HEAD + BOX + "(assert (>= Y_1 Y_1))", ("(>= Y_1 Y_1) says nothing", "always true")),
        (HEAD + BOX + "(assert (> (- Y_1 X_0) (- Y_1 X_0)))", ("(> (- Y_1 X_0) (- Y_1 X_0))", "never true")),
        (HEAD + BOX + "(assert (<= 2 1))", ("(<= 2 1)", "never true")),
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
