"""Certificates: properties of VNN-COMP 2022, and classifiers that were trained to be certified.

``vnncomp``: on the 90 properties of the category mnist_fc, what the attack and the bounds find, against what the
verifiers of the competition agreed on. ``mnist-0.1``, ``mnist-0.3`` and ``cifar10-2-255``: clean, certified and
unbroken shares of the 10,000 test images, after at most 60 minutes of processor time of one thread, on CIFAR-10 120.
Settings were chosen on training images kept aside. A training ends after a number of images, so that it does not
depend on what else the machine does.

    python -m benchmarks certified              # all that is missing, but for optimize, which takes long
    python -m benchmarks.certified vnncomp
    python -m benchmarks.certified train mnist-0.1
    python -m benchmarks.certified evaluate mnist-0.1
    python -m benchmarks.certified prove mnist-0.1
    python -m benchmarks.certified optimize mnist-0.1
    python -m benchmarks.certified attack mnist-0.1
    python -m benchmarks.certified arsenal mnist-0.1
    python -m benchmarks.certified cost
"""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rivals
from benchmarks.harness import load, record, recorded
from benchmarks.interval_check import worst_margins
from rivals.api.certification.properties import QUICK, THOROUGH, load_property
from rivals.api.common.network_io import save_network
from rivals.api.training.callbacks import accuracy
from rivals.attacks import pgd
from rivals.base.eps import parse_eps
from rivals.base.norm_balls import Linf
from rivals.bounds.alpha_crown import alpha_crown_margins
from rivals.bounds.beta_crown import beta_crown_margins
from rivals.bounds.crown import crown_ibp_margins, crown_margins
from rivals.bounds.ibp import interval_margins, smallest_margin
from rivals.bounds.network import Network
from rivals.bounds.regions import region_of
from rivals.bounds.tracing import trace
from rivals.data.splits import hold_out
from rivals.metrics.proportion import Proportion
from rivals.nets.factory import build_classifier

RUNS, MODELS = Path("runs/benchmark-certified"), Path(__file__).parent / "models"
ATTACK = "autoattack-swift,fmn(steps=50)"
ARSENAL = (
    "noise(trials=20),fgsm,bim,mifgsm,pgd(steps=50),apgd(steps=50),autoattack-swift,fab(steps=50),deepfool,fmn(steps=50),"
    "square(queries=500),square_pgd(turns=2),transfer,spsa(queries=640),hopskipjump(queries=500)"
)
ATTACKED = 1000  # test images that are attacked whether they are certified or not
EVERY = 20  # images after which what is proven is recorded
METHODS = ("ibp", "crown", "alpha-crown", "beta-crown")  # on the properties
ROUNDS, BATCH = 21, 16  # of the cost of IBP, and images in a batch


@dataclass(frozen=True)
class Case:
    """A radius in Linf, and how a classifier is trained for it.

    Attributes:
        data: The data set.
        eps: The radius.
        settings: Of the run; all others are those of the recipe ``certified``.
    """

    data: str
    eps: str
    settings: dict[str, Any]

    @property
    def file(self) -> Path:
        """Where the classifier is kept."""
        return MODELS / f"{self.data}-certified-{self.eps.replace('/', '-')}.safetensors"

    @property
    def ball(self) -> Linf:
        """The threat model."""
        return Linf(parse_eps(self.eps))


ADAM = {"optimizer": "adam", "lr": 2.5e-3}
MTL_IBP = {"method": "mtl-ibp", "kappa": 0.9, "widths": (32, 64, 128), "flip": True}
CASES = {
    "mnist-0.1": Case("mnist", "0.1", {"method": "ibp", "lr": 1e-2, "eps_factor": 1.25, "until": "1.4M images"}),
    "mnist-0.3": Case("mnist", "0.3", {"method": "ibp", **ADAM, "eps_factor": 1.1, "until": "1.5M images"}),
    "cifar10-2-255": Case("cifar10", "2/255", {**MTL_IBP, "until": "2.2M images"}),
}


known = partial(recorded, "certified")
"""What was recorded before."""


def note(**facts: Any) -> None:
    """Add facts to the results and save them."""
    record("certified", **{key: known(key) for key in ("vnncomp", "models", "cost")} | facts)


def vnncomp() -> None:
    """Attack and bound each property; those that are done are kept."""
    root = Path(os.environ["RIVALS_DATA"]) / "vnncomp2022-mnist_fc"
    with (root / "results.csv").open() as file:
        expected = list(csv.DictReader(file))
    instances = known("vnncomp").get("instances", {})
    for row in expected:
        network, wanted = Path(row["onnx"]).name, Path(row["vnnlib"]).name
        name = f"{network.removesuffix('.onnx')} {wanted.removesuffix('.vnnlib')}"
        if name not in instances:
            instances[name] = {"expected": row["status"], **_check(root, network, wanted)}
            print(name, instances[name], flush=True)
            note(vnncomp=summary(instances))
    note(vnncomp=summary(instances))


def _check(root: Path, network: str, wanted: str) -> dict[str, Any]:
    """What each method excludes and what the attack finds, each whatever the others say.

    What CROWN proves is attacked too, with the smaller effort.
    """
    files = str(root / "onnx" / f"{network}.gz"), str(root / "vnnlib" / f"{wanted}.gz")
    result: dict[str, Any] = {}
    for method in METHODS:
        if method in ("alpha-crown", "beta-crown") and result["crown"]:
            result[method] = True  # they start from CROWN's bounds
            continue
        checked = load_property(*files)
        start = time.process_time()
        checked.exclude(method)
        result[method] = not checked.left
        result[f"{method}_seconds"] = round(time.process_time() - start, 2)
    checked = load_property(*files)
    start = time.process_time()
    found = checked.search(**QUICK)
    if found is None and not result["crown"]:
        found = checked.search(**THOROUGH)
    return result | {"attacked": found is not None, "attack_seconds": round(time.process_time() - start, 2)}


def summary(instances: dict[str, Any]) -> dict[str, Any]:
    """The counts over all instances."""

    def count(status: str, key: str) -> int:
        return sum(each[key] for each in instances.values() if each["expected"] == status)

    of = {status: sum(each["expected"] == status for each in instances.values()) for status in ("sat", "unsat")}
    return {
        "of": of,
        "sat_attacked": count("sat", "attacked"),
        "unsat_attacked": count("unsat", "attacked"),
        "unsat_certified": {method: count("unsat", method) for method in METHODS},
        "sat_certified": {method: count("sat", method) for method in METHODS},
        "instances": instances,
    }


def train(name: str) -> None:
    """Train a classifier, and keep it under ``benchmarks/models``."""
    case, folder = CASES[name], RUNS / name
    start = time.process_time()
    shutil.rmtree(folder, ignore_errors=True)
    rivals.harden(case.data, case.ball, out=folder, quiet=True, **case.settings)
    keep(name, folder, (time.process_time() - start) / 60)


def keep(name: str, folder: Path, minutes: float) -> None:
    """Save the classifier of a run under ``benchmarks/models``, with how it was trained."""
    run, net = rivals.Run.open(folder), rivals.load(folder)
    seen: Any = net.about
    about = {key: seen[key] for key in ("data", "classes")} | {"benchmark": name, "cpu_minutes": round(minutes, 1)}
    facts = {"images": run.info["images"], "hardened": run.info["hardened"], "data_hash": run.info["data"]["hash"]}
    save_network(net, CASES[name].file, about | facts | {"config": run.info["config"]})


def evaluate(name: str) -> None:
    """Certify the test images by IBP, here and by an independent computation in float64, and by CROWN-IBP."""
    case = CASES[name]
    ball, net, test = case.ball, rivals.load(case.file), load(case.data, split="test")
    assert test.labels is not None
    about: Any = net.about
    config = about["config"] | {"widths": tuple(about["config"]["widths"])}
    if stale := [key for key, value in case.settings.items() if config[key] != value]:
        raise ValueError(f"{case.file.name} was trained with other settings ({', '.join(stale)}): train it again")
    facts: dict[str, Any] = {"eps": case.eps, "clean": round(accuracy(net, test), 4), "n": len(test)}
    facts |= {key: about[key] for key in ("images", "cpu_minutes")} | {"data": case.data, "hash": test.hash}
    starts = range(0, len(test), 500)
    ours = np.concatenate([_ours(net, test, ball, first) for first in starts])
    margins = np.concatenate([_in_float64(case, test, first) for first in starts])
    by_crown = rivals.certify(net, test, ball, method="crown-ibp", n=len(test), upper=False, quiet=True)
    facts |= {
        "crown_ibp": by_crown.as_dict()["certified"],
        "ibp": Proportion(int((ours > 0).sum()), len(test)).as_dict(),
        "float64_certified": int((margins > 0).sum()),
        "not_confirmed": int(((ours > 0) & (margins <= 0)).sum()),
        "largest_difference": float(np.abs(ours - margins).max()),
    }
    note(models=known("models") | {name: facts})
    print(name, facts, flush=True)


def prove(name: str) -> None:
    """Certify more of the test images: all that are left by CROWN, then by beta-CROWN, the nearest to a proof first."""
    rest, ball = _rest(CASES[name]), CASES[name].ball
    regions = [(region_of(rest.x[i], ball), rest.y[i]) for i in rest.left.split(1)]
    margins = torch.cat([smallest_margin(crown_margins(rest.network, region, y), y) for region, y in regions])
    count = len(rest.certified) + int((margins > 0).sum())
    add(name, {"crown": Proportion(count, len(rest.x)).as_dict()})
    left = [i for i in margins.argsort(descending=True).tolist() if margins[i] <= 0]
    for tried, i in enumerate(left, 1):
        region, y = regions[i]
        count += int(smallest_margin(beta_crown_margins(rest.network, region, y), y) > 0)
        if tried % EVERY == 0 or tried == len(left):
            facts = {"beta_crown": Proportion(count, len(rest.x)).as_dict(), "split": tried, "left_by_crown": len(left)}
            add(name, facts)
            print(name, facts, flush=True)


def optimize(name: str) -> None:
    """Certify more of the test images by alpha-CROWN: those that are left."""
    rest = _rest(CASES[name])
    certified = len(rest.certified)
    for i in rest.left.split(1):
        margins = alpha_crown_margins(rest.network, region_of(rest.x[i], CASES[name].ball), rest.y[i])
        certified += int(smallest_margin(margins, rest.y[i]) > 0)
    facts = {"alpha_crown": Proportion(certified, len(rest.x)).as_dict(), "optimized": len(rest.left)}
    add(name, facts)
    print(name, facts, flush=True)


@dataclass(frozen=True)
class Rest:
    """What IBP and CROWN-IBP prove of test images, and what they leave.

    Attributes:
        network: The classifier.
        x: The images.
        y: Their labels.
        certified: The numbers of those that are certified.
        left: The numbers of those that are neither certified nor broken by a short PGD, the nearest to a proof first.
    """

    network: Network
    x: torch.Tensor
    y: torch.Tensor
    certified: torch.Tensor
    left: torch.Tensor


def _rest(case: Case, n: int = 0) -> Rest:
    """What is left for slower bounds.

    Args:
        case: The classifier.
        n: That many of the test images, drawn at random; 0 for all.
    """
    net, test = rivals.load(case.file).eval(), load(case.data, split="test")
    test = hold_out(test, n, 0)[1] if n else test
    assert test.labels is not None
    x, y = torch.from_numpy(test.images[:]).float() / 255, torch.from_numpy(test.labels)
    network = trace(net, x[:1]).frozen()
    certified, left = [], _correct(net, x, y)
    for bound, size in ((interval_margins, 500), (crown_ibp_margins, 50)):
        pieces = [smallest_margin(bound(network, region_of(x[i], case.ball), y[i]), y[i]) for i in left.split(size)]
        margins = torch.cat(pieces)
        certified.append(left[margins > 0])
        left, margins = left[margins <= 0], margins[margins <= 0]
    left = left[margins.argsort(descending=True)]
    x_adv = pgd(net, x[left], y[left], case.ball, steps=10)
    return Rest(network, x, y, torch.cat(certified), left[_correct(net, x_adv, y[left])])


@torch.no_grad()
def _correct(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The numbers of the images that are classified correctly."""
    return torch.cat([i[net(x[i]).argmax(1) == y[i]] for i in torch.arange(len(x)).split(500)])


def add(name: str, facts: dict[str, Any]) -> None:
    """Add facts of a classifier to the results."""
    models = known("models")
    note(models=models | {name: models[name] | facts})


def attack(name: str) -> None:
    """Bracket some of the test images; attack them whether they are certified or not: no certified one may fall."""
    case = CASES[name]
    ball, net, test = case.ball, rivals.load(case.file), load(case.data, split="test")
    options: dict[str, Any] = {"n": ATTACKED, "quiet": True, "attack": ATTACK}
    found = rivals.certify(net, test, ball, method="crown", **options)
    facts: dict[str, Any] = {"bracket": {key: found.as_dict()[key] for key in ("certified", "unbroken", "open")}}
    report = rivals.evaluate(net, test, ball, alarms=False, save="none", **options)
    facts |= {"attacked": ATTACKED, "attacked_robust": report.robust.count}
    add(name, facts)
    print(name, facts, flush=True)


def arsenal(name: str) -> None:
    """Attack the certified ones among some of the test images by every attack that knows the norm: none may fall."""
    rest = _rest(CASES[name], ATTACKED)
    pieces = [
        crown_margins(rest.network, region_of(rest.x[i], CASES[name].ball), rest.y[i]) for i in rest.left.split(1)
    ]
    proven = smallest_margin(torch.cat(pieces), rest.y[rest.left]) > 0
    certified = torch.cat([rest.certified, rest.left[proven]])
    net, x, y = rivals.load(CASES[name].file), rest.x[certified], rest.y[certified]
    options: dict[str, Any] = {"n": len(y), "alarms": False, "save": "none", "quiet": True}
    report = rivals.evaluate(net, (x, y), CASES[name].ball, attack=ARSENAL, **options)
    facts = {"arsenal": ARSENAL, "certified": len(y), "fallen": len(y) - report.robust.count}
    add(name, {"certified_attacked": facts})
    print(name, facts, flush=True)


def _in_float64(case: Case, test: Any, first: int) -> np.ndarray[Any, Any]:
    x, y = test.images[first : first + 500].astype(np.float64) / 255, test.labels[first : first + 500]
    return worst_margins(case.file, x, y, parse_eps(case.eps))


@torch.no_grad()
def _ours(net: Any, test: Any, ball: Linf, first: int) -> np.ndarray[Any, Any]:
    x = torch.from_numpy(test.images[first : first + 500]).float() / 255
    y = torch.from_numpy(test.labels[first : first + 500])
    margins = interval_margins(trace(net, x).frozen(), region_of(x, ball), y)
    return smallest_margin(margins, y).double().numpy()


@torch.no_grad()
def cost() -> None:
    """IBP's bounds of a batch against a forward pass of the same batch, in turn."""
    ratios: dict[str, float] = {}
    for net, channels, size in (("cnn", 1, 28), ("strided", 1, 28), ("resnet", 3, 32)):
        model = build_classifier(net, size=size, channels=channels, classes=10, mean=(0.5,) * channels).eval()
        x = torch.rand(BATCH, channels, size, size).contiguous(memory_format=torch.channels_last)
        y, network, region = model(x).argmax(1), trace(model, x).frozen(), region_of(x, Linf(0.1))
        rounds = []
        for _ in range(ROUNDS):
            sides = []
            for run in (lambda: model(x), lambda: interval_margins(network, region, y)):  # noqa: B023
                start = time.process_time()
                for _ in range(10):
                    run()
                sides.append(time.process_time() - start)
            rounds.append(sides[1] / sides[0])
        ratios[net] = round(statistics.median(rounds), 2)
        print(net, ratios[net], flush=True)
    note(cost={"batch_size": BATCH, "rounds": ROUNDS, "target": 2.3, "ratios": ratios})


def main() -> None:
    """Run what is named on the command line, or all that is missing."""
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        action, *names = sys.argv[1:]
        parts: tuple[Any, ...] = (train, evaluate, prove, optimize, attack, arsenal, vnncomp, cost)
        {part.__name__: part for part in parts}[action](*names)
        return
    vnncomp()
    for name, case in CASES.items():
        if not case.file.exists():
            train(name)
        if name not in known("models"):
            evaluate(name)
        if "crown" not in known("models")[name]:
            prove(name)
        if "attacked" not in known("models")[name]:
            attack(name)
        if "certified_attacked" not in known("models")[name]:
            arsenal(name)
    if not known("cost"):
        cost()


if __name__ == "__main__":
    main()
