"""``certify`` for one property of a network: an ONNX file and a VNN-LIB file."""

from __future__ import annotations

import gzip
import math
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.attacks.box_pgd import box_pgd
from rivals.base.errors import UserError
from rivals.bounds.alpha_crown import AlphaCrown
from rivals.bounds.beta_crown import BranchAndBound
from rivals.bounds.crown import Backward, by_crown, crown_intervals
from rivals.bounds.ibp import check_finite, interval_bounds
from rivals.bounds.network import Network
from rivals.bounds.onnx_reader import read_onnx
from rivals.bounds.regions import Region
from rivals.bounds.rounding import above, below, gamma
from rivals.bounds.vnnlib import Case, Property, read_property
from rivals.metrics.property_result import PropertyResult

MOST_BYTES = 1_000_000_000  # of a file once it is unpacked
QUICK, THOROUGH = {"steps": 50, "restarts": 8}, {"steps": 100, "restarts": 16}
"""Searches for a counterexample: before the bounds, and for what they do not exclude."""
ITERATIONS = 20  # of alpha-CROWN
EMPTY = "the property's inputs are empty: no input satisfies its bounds, so nothing was to be proven of the network"


def is_onnx(name: object) -> bool:
    """Whether a file is named as an ONNX file, packed by gzip or not."""
    return str(name).endswith((".onnx", ".onnx.gz"))


def check_property(network_file: str, property_file: str, method: str, seed: int = 0) -> PropertyResult:
    """Prove that no input violates a property, or find one that does.

    Args:
        network_file: An ONNX file, packed by gzip or not.
        property_file: A VNN-LIB file, packed by gzip or not.
        method: ibp, crown-ibp, crown, alpha-crown or beta-crown.
        seed: Of the search.

    Raises:
        UserError: a file cannot be read, or they do not fit each other.
    """
    begun = time.perf_counter()
    checked = load_property(network_file, property_file, seed)
    status, found = checked.run(method)
    count = len(checked.wanted.cases)
    inputs: Sequence[float] = () if found is None else found.flatten().tolist()
    outputs = () if found is None else checked.exact(found[None])[0].tolist()
    return PropertyResult(
        status,
        method,
        count,
        count - len(checked.left),
        tuple(inputs),
        tuple(outputs),
        time.perf_counter() - begun,
        "" if count else EMPTY,
    )


def load_property(network_file: str, property_file: str, seed: int = 0) -> Check:
    """A property of a network, to be checked; see :func:`check_property`."""
    network, shape = read_onnx(_read(network_file), network_file)
    wanted = read_property(_read(property_file).decode("utf-8", "replace"))
    checked = Check(network, shape, wanted, seed)
    checked.compare_sizes(network_file, property_file)
    return checked


class Check:
    """The check of a property, in float32 for the bounds and in float64 for the search.

    Args:
        network: The network.
        shape: Of one input.
        wanted: The property.
        seed: Of the search.

    Attributes:
        left: The cases that are not excluded.
    """

    def __init__(self, network: Network, shape: tuple[int, ...], wanted: Property, seed: int) -> None:
        self.network, self.exact = network.frozen(torch.float32), network.frozen(torch.float64)
        self.shape, self.wanted, self.seed = shape, wanted, seed
        self.left = list(wanted.cases)

    def compare_sizes(self, network_file: str, property_file: str) -> None:
        """Refuse a property of other numbers of inputs or outputs than the network's."""
        inputs = int(np.prod(self.shape))
        outputs = self.network(torch.zeros(1, *self.shape)).flatten(1).shape[1]
        if (inputs, outputs) != (self.wanted.inputs, self.wanted.outputs):
            raise UserError(
                f"'{property_file}' is of {self.wanted.inputs} inputs and {self.wanted.outputs} outputs, "
                f"'{network_file}' has {inputs} and {outputs}: give a property of this network"
            )

    def run(self, method: str) -> tuple[str, Tensor | None]:
        """The status, and a counterexample if there is one."""
        found = self.search(**QUICK)
        if found is None:
            self.exclude(method)
            found = self.search(**THOROUGH)
        if found is not None:
            return "sat", found
        return ("unknown" if self.left else "unsat"), None

    def search(self, **effort: int) -> Tensor | None:
        """A counterexample of a case that is left, confirmed in both precisions."""
        for case in self.left:
            lower, upper = (torch.from_numpy(each).view(self.shape) for each in case.inside())
            if not bool((lower <= upper).all()):  # no float64 is inside
                continue
            found = box_pgd(self.exact, lower, upper, _distance(case, torch.float64), seed=self.seed, **effort)
            if found is not None and self._confirmed(case, found):
                return found
        return None

    @torch.no_grad()
    def _confirmed(self, case: Case, found: Tensor) -> bool:
        """Whether the numbers that will be shown satisfy the constraints exactly, and float32's outputs do as well."""
        outputs = self.exact(found[None]).flatten().tolist()
        single = _distance(case, torch.float32)(self.network(found[None].float()))
        finite = all(map(math.isfinite, outputs))
        return finite and bool((single <= 0).all()) and case.holds(found.flatten().tolist(), outputs)

    @torch.no_grad()
    def exclude(self, method: str) -> None:
        """Drop the cases of which one inequality cannot hold: its left side is provably above its limit."""
        boxes: dict[bytes, list[Case]] = {}
        for case in self.left:
            boxes.setdefault(case.lower.tobytes() + case.upper.tobytes(), []).append(case)
        self.left = []
        for cases in boxes.values():
            lower, upper = (torch.from_numpy(each).view(1, *self.shape) for each in (cases[0].lower, cases[0].upper))
            region = Region(below(lower, torch.float32), above(upper, torch.float32))
            check_finite(self.network, region)
            rows = np.concatenate([case.coefficients for case in cases])
            bounds = self._bounds(method, region, torch.from_numpy(rows), np.concatenate([c.limits for c in cases]))
            parts = np.split(bounds.numpy(), np.cumsum([len(case.limits) for case in cases])[:-1])
            self.left += [case for case, part in zip(cases, parts, strict=True) if not (part > 0).any()]

    def _bounds(self, method: str, region: Region, rows: Tensor, limits: Any) -> Tensor:
        """Lower bounds of ``rows @ outputs - limits``, (r,)."""
        offset = -torch.from_numpy(limits)
        if method == "ibp":
            output = interval_bounds(self.network, region)[-1]
            ends = torch.where(rows > 0, output.lower.double(), output.upper.double())
            return (rows * ends).sum(1) + offset - 2 * gamma(rows.shape[1], torch.float64) * (rows * ends).abs().sum(1)
        single = rows.float()
        coefficients, last = single[:, None], len(self.network.nodes)
        if not bool((single.double() == rows).all()):
            raise UserError("the property's coefficients of outputs do not fit into float32: write shorter ones")
        if method in ("crown-ibp", "crown"):
            bounds = crown_intervals(self.network, region, by_crown if method == "crown" else None)
            return Backward(self.network, region, bounds).lower(coefficients, last)[:, 0] + offset
        if method == "beta-crown":
            bounds = crown_intervals(self.network, region, by_crown)
            searches = [
                BranchAndBound(self.network, region, bounds, row, limit)
                for row, limit in zip(single, offset.tolist(), strict=True)
            ]
            return torch.tensor([search.lower() for search in searches], dtype=torch.float64)
        return AlphaCrown(self.network, region, coefficients, offset[:, None], ITERATIONS).lower()[:, 0]


def _distance(case: Case, dtype: torch.dtype) -> Any:
    """How far outputs are from a violation: the largest left side above its limit; at a strict limit above 0."""
    rows, limits = torch.from_numpy(case.coefficients).to(dtype), torch.from_numpy(case.limits).to(dtype)
    at_limit = torch.from_numpy(case.strict).to(dtype) * torch.finfo(dtype).tiny
    return lambda outputs: (outputs.flatten(1) @ rows.T - limits + at_limit).amax(1)


def _read(name: str) -> bytes:
    """The bytes of a file, unpacked."""
    path = Path(name).expanduser()
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"'{name}' does not exist: name a file that does") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{name}' cannot be read ({error}): give a complete file") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"'{name}' has more than {MOST_BYTES:,} bytes: give a smaller network")
    return content
