"""Deterministic mode, and what decides the last bits of a result."""

import os

import pytest
import torch

from rivals.base.errors import UserError
from rivals.base.numerics import WORKSPACE, deterministic, exact_float32, numerics

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def state():
    cudnn = torch.backends.cudnn
    switched = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return *switched, cudnn.deterministic, cudnn.benchmark, os.environ.get(WORKSPACE)


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_inside_kernels_are_deterministic_and_afterward_all_is_as_before(monkeypatch, workspace):
    monkeypatch.delenv(WORKSPACE, raising=False)
    if workspace:
        monkeypatch.setenv(WORKSPACE, workspace)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = state()
    with deterministic(True):
        assert state() == (True, False, True, False, workspace or ":4096:8")
        assert numerics(CPU)["deterministic"] is True
    assert state() == before
    with pytest.raises(KeyError), deterministic(True):
        raise KeyError
    assert state() == before
    with deterministic(False):
        assert state() == before


def test_what_has_no_deterministic_kernel_is_refused_in_one_line():
    values, places = torch.zeros(4), torch.tensor([0, 1])
    with pytest.raises(UserError, match="put_ has no deterministic kernel on this device: leave --deterministic out"):  # noqa: SIM117
        with deterministic(True):
            values.put_(places, torch.ones(2), accumulate=False)
    with pytest.raises(RuntimeError, match="shape"), deterministic(True):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_tf32_is_told_by_place(monkeypatch):
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = torch.backends.fp32_precision, matmul.fp32_precision, conv.fp32_precision
    try:
        for products, convolutions, everywhere, expected in (
            ("none", "none", "none", "off"),
            ("ieee", "tf32", "none", "convolutions"),
            ("tf32", "tf32", "ieee", "matrix products and convolutions"),
            ("tf32", "ieee", "none", "matrix products"),
        ):
            torch.backends.fp32_precision = everywhere
            matmul.fp32_precision, conv.fp32_precision = products, convolutions
            assert numerics(GPU)["tf32"] == expected
            assert numerics(CPU)["tf32"] == "off"
    finally:
        torch.backends.fp32_precision, matmul.fp32_precision, conv.fp32_precision = before


def test_bounds_are_computed_without_tf32():
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = matmul.fp32_precision, conv.fp32_precision
    try:
        matmul.fp32_precision, conv.fp32_precision = "tf32", "tf32"
        with exact_float32(GPU):
            assert numerics(GPU)["tf32"] == "off"
        assert numerics(GPU)["tf32"] == "matrix products and convolutions"
    finally:
        matmul.fp32_precision, conv.fp32_precision = before
