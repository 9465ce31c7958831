"""HopSkipJump against foolbox's, by the nearest adversarial example among the first queries about each image.

Both sides get the same starting points and the same watched model, which counts their queries and keeps the nearest
adversarial image; neither a look at the clean image nor the repetition of the last query counts. foolbox attacks 25
images at a time, which costs it nothing: repetitions are those of images that wait for others, and directions, which it
scales by the norm of the whole batch, are scaled image by image here, as they are for one image. SurFree, which has no
peer here, starts from the same points; it asks about one image at a time, so it gets fewer queries.

    python -m benchmarks query_attacks
    python -m benchmarks.query_attacks cifar10-plain mnist-plain:foolbox
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attack_cases import known, model_of, right
from benchmarks.harness import RESULTS, record, recorded
from rivals.attacks import hopskipjump, surfree
from rivals.base.norm_balls import L2
from rivals.base.rng import generator

IMAGES = {"mnist-plain": 50, "cifar10-plain": 50}
AT_ONCE = 25
BUDGETS = (1000, 5000)  # queries after which distances are read
SURFREE_QUERIES = 1000
FAR, TARGET = L2(100.0), 1.03


class BudgetSpent(Exception):
    """Raised inside an attack to end it."""


class Watched(nn.Module):
    """A model that counts the queries about some images, in turn, and keeps the nearest adversarial ones.

    Args:
        model: The classifier.
        x: The clean images (n, ...).
        y: Their labels (n,).
        budgets: After how many queries about each image distances are read, rising; after the last the attack ends.
    """

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, budgets: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.x, self.y, self.budgets = model, x, y, budgets
        self.asked = torch.zeros(len(x), dtype=torch.int64)
        self.last = x
        self.nearest = torch.full((len(budgets), len(x)), torch.inf)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of one query about each image (n, ...), or of many about the only one (m, ...)."""
        # A branch on the pixels keeps attacks from folding batch norm into a copy, which would ask unwatched.
        if bool(x.isnan().any()):
            raise ValueError("a query is not a number")
        if bool((self.asked >= self.budgets[-1]).all()):
            raise BudgetSpent
        logits: Tensor = self.model(x)
        if len(self.x) == 1:
            new = (x != self.x).flatten(1).any(1)
            count = self.asked + new.cumsum(0)
            self._keep(x, logits, count[:, None], new[:, None])
            self.asked = count[-1:]
        else:
            new = (x != self.x).flatten(1).any(1) & (x != self.last).flatten(1).any(1)
            self.asked, self.last = self.asked + new, x.detach().clone()
            self._keep(x, logits, self.asked[None], new[None])
        return logits

    def _keep(self, x: Tensor, logits: Tensor, count: Tensor, new: Tensor) -> None:
        """Queries (m, n), one of the two 1: their numbers, and whether they count."""
        far = (x - self.x).flatten(1).norm(dim=1).masked_fill(logits.argmax(1) == self.y, torch.inf).view(count.shape)
        for place, budget in enumerate(self.budgets):
            allowed = far.masked_fill(~new | (count > budget), torch.inf).amin(0)
            self.nearest[place] = torch.minimum(self.nearest[place], allowed)


def starting_points(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Adversarial images to start from: uniform noise, coarser where white noise does not fool, for both sides alike.

    Raises:
        RuntimeError: there is none for an image.
    """
    start, left = x.clone(), torch.ones(len(x), dtype=torch.bool)
    for cell in (1, 2, 4):
        for trial in range(100):
            source = generator("starting points", cell, trial)
            coarse = torch.rand(len(x), x.shape[1], *(side // cell for side in x.shape[2:]), generator=source)
            noise = nn.functional.interpolate(coarse, scale_factor=cell)
            found = left & ~right(model, noise, y)
            start[found], left = noise[found], left & ~found
            if not bool(left.any()):
                return start
    raise RuntimeError(f"no starting point for {int(left.sum())} images")


def by_foolbox(model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    """The distances (budgets, n) that foolbox's attack reaches with its defaults."""
    import foolbox

    class ImageByImage(foolbox.attacks.HopSkipJumpAttack):  # type: ignore[misc]
        """With a direction of length 1 for each image."""

        def approximate_gradients(self, *args: Any) -> Any:
            found = super().approximate_gradients(*args)
            return found / found.flatten(1).norms.l2(1).reshape((-1, 1, 1, 1))

    torch.manual_seed(0)
    watched = Watched(model, x, y, BUDGETS).eval()
    attack = ImageByImage()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = foolbox.PyTorchModel(watched, bounds=(0, 1), device="cpu")
        watched.asked.zero_()
        with contextlib.suppress(BudgetSpent):
            attack(wrapped, x, foolbox.criteria.Misclassification(y), starting_points=start, epsilons=None)
    return watched.nearest


def by_ours(attack: Any, budgets: tuple[int, ...], model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    """The distances (budgets, n) of an attack of ours with its defaults."""
    found = []
    for i in range(len(x)):
        here = slice(i, i + 1)
        watched = Watched(model, x[here], y[here], budgets).eval()
        with contextlib.suppress(BudgetSpent):
            attack(watched, x[here], y[here], FAR, queries=budgets[-1], start=start[here])
        found.append(watched.nearest)
    return torch.cat(found, 1)


def measure(name: str, only: str = "") -> dict[str, Any]:
    """The medians of all sides, or of one, for a model after each budget, and processor time."""
    images = IMAGES[name]
    model = model_of(name).eval()
    x, y = known(name, model, images)
    start = starting_points(model, x, y)
    pieces = [slice(first, first + AT_ONCE) for first in range(0, images, AT_ONCE)]
    sides = {
        "hopskipjump": lambda: by_ours(hopskipjump, BUDGETS, model, x, y, start),
        "foolbox": lambda: torch.cat([by_foolbox(model, x[some], y[some], start[some]) for some in pieces], 1),
        "surfree": lambda: by_ours(surfree, (SURFREE_QUERIES,), model, x, y, start),
    }
    row: dict[str, Any] = {"n": images}
    for side, run in sides.items():
        if only and side != only:
            continue
        begun = time.process_time()
        with torch.no_grad():
            distances = run()
        budgets = BUDGETS if len(distances) == len(BUDGETS) else (SURFREE_QUERIES,)
        medians = {str(made): round(float(far.median()), 4) for made, far in zip(budgets, distances, strict=True)}
        row[side] = {"medians": medians, "missed": int(distances[-1].isinf().sum())}
        row[side]["cpu_seconds"] = round(time.process_time() - begun, 1)
        print(name, side, row[side], flush=True)
    return row


def main() -> None:
    """Measure and record; of what is named only, as MODEL or MODEL:SIDE, if something is."""
    torch.set_num_threads(1)
    found = recorded("query_attacks", "found") if (RESULTS / "query_attacks.json").exists() else {}
    for given in sys.argv[1:] or IMAGES:
        name, _, side = given.partition(":")
        found[name] = found.get(name, {}) | measure(name, side)
        facts = {"queries": BUDGETS[-1], "target": TARGET}
        record("query_attacks", peer=f"foolbox {version('foolbox')}", **facts, found=found)


if __name__ == "__main__":
    main()
