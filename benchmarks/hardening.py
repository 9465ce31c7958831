"""Adversarial training: the robust accuracy that each side reaches in equal minutes of one thread.

Network, data and evaluation are the same. A trainer has a budget of processor time, which other programs disturb less
than wall-clock time. Measured are clean accuracy on 10,000 test images, robust accuracy on the 1,000 that ``rivals
attack`` samples, under PGD-40 and both versions of ``autoattack``, and on the first 100 of those under pyautoattack.

    python -m benchmarks hardening                      # all that is missing: a day of one thread
    python -m benchmarks.hardening train cifar10-20 ours 1
    python -m benchmarks.hardening evaluate cifar10-20 ours 1 autoattack
    python -m benchmarks.hardening keep cifar10-60 ours 0   # into benchmarks/models/
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rivals
from benchmarks.harness import record, recorded
from rivals.api.common.network_io import save_network
from rivals.api.training.callbacks import accuracy
from rivals.attacks.training_attack import TrainingPGD
from rivals.base.eps import parse_eps
from rivals.base.norm_balls import Linf
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.data.load import load  # the hash of the images is noted by entry: not all are of one day
from rivals.data.splits import hold_out
from rivals.nets.classifier import Classifier
from rivals.nets.factory import build_classifier

RUNS, MODELS = Path("runs/benchmark-hardening"), Path(__file__).parent / "models"
N, REFERENCE_N = 1000, 100
BATCH = 128
MOST_BYTES = 4_000_000  # of a file under benchmarks/models
HEADLINE = ("ours", 0)  # the side and seed that is kept there, and evaluated under every attack


@dataclass(frozen=True)
class Case:
    """A data set, a radius, and what may be spent.

    Attributes:
        data: The data set's name.
        eps: The radius in Linf, as text.
        minutes: Of processor time of one thread.
        images: How many images our run is to see, which takes a little less than those minutes.
        settings: Of our run.
        peers: The peers that train too, with the same network.
        seeds: Of our runs.
        file: What the headline model is called under ``benchmarks/models``.
    """

    data: str
    eps: str
    minutes: float
    images: str
    settings: dict[str, Any]
    peers: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    file: str = ""

    @property
    def ball(self) -> Linf:
        """The threat model."""
        return Linf(parse_eps(self.eps))

    @property
    def color(self) -> bool:
        """Whether images are flipped and shifted in training, on every side."""
        return self.data == "cifar10"


def images_of(case: Case) -> tuple[Tensor, Tensor]:
    """The 1,000 test images that ``rivals attack`` samples, in [0, 1] and channels first, with their labels."""
    chosen = hold_out(load(case.data, split="test"), N, 0)[1]
    assert chosen.labels is not None
    return torch.from_numpy(chosen.images).float() / 255, torch.from_numpy(chosen.labels)


def ours(case: Case, seed: int, folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """``rivals harden``; its evaluations on held-out images count in the same minutes."""
    start = time.process_time()
    settings = {"norm": "linf", "eps": case.eps} | case.settings
    run = rivals.harden(case.data, until=f"{case.images} images", seed=seed, out=folder, quiet=True, **settings)
    spent = time.process_time() - start
    about = run.info
    return run.classifier, {
        **{key: about[key] for key in ("images", "config", "hardened")},
        "cpu_minutes": round(spent / 60, 2),
    }


@dataclass
class Loop:
    """A plain training loop: one-cycle SGD where there is batch norm, else Adam, along the minutes that are left."""

    case: Case
    seed: int
    start: float = field(default_factory=time.process_time)
    seen: int = 0

    def fresh(self, data: ImageSet) -> Classifier:
        """The same network that ours begins with, newly initialized."""
        torch.manual_seed(self.seed)
        some = torch.from_numpy(data.images[::6]).float() / 255
        widths = self.case.settings.get("widths", ())
        return build_classifier(
            "resnet" if self.case.color else "cnn",
            **{"size": data.size, "channels": data.channels, "classes": len(data.classes), "widths": widths},
            **{"mean": tuple(some.mean((0, 2, 3)).tolist()), "std": tuple(some.std((0, 2, 3)).tolist())},
        )

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """SGD as Wong et al. 2020 have it on CIFAR-10, Adam on gray images."""
        if self.case.color:
            return torch.optim.SGD(net.parameters(), 0.2, momentum=0.9, weight_decay=5e-4, nesterov=True)
        return torch.optim.Adam(net.parameters(), 1e-3)

    @property
    def spent(self) -> float:
        """The share of the minutes that is used up."""
        return (time.process_time() - self.start) / 60 / self.case.minutes

    def batches(self, data: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in [0, 1] until the minutes are over."""
        stream = Batches(data, BATCH, seed=self.seed, flip=self.case.color, shift=4 if self.case.color else 0)
        while self.spent < 1:
            x, y = stream.draw(self.seen // BATCH)
            assert y is not None
            self.seen += BATCH
            yield (x.float() / 255).contiguous(memory_format=torch.channels_last), y

    def run(self, attack: TrainingPGD) -> Classifier:
        """Train on adversarial examples only, in float32; lr warms up over a fifth of the minutes, then decays to 0."""
        data = load(self.case.data)
        net = self.fresh(data)
        optimizer = self.optimizer(net)
        peak = optimizer.param_groups[0]["lr"]
        for x, y in self.batches(data):
            net.eval()
            x_adv = attack(net, x, y, self.case.ball)
            net.train()
            optimizer.param_groups[0]["lr"] = peak * min(self.spent / 0.2, (1 - self.spent) / 0.8)
            loss = nn.functional.cross_entropy(net(x_adv), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return net.eval()


def plain(attack: TrainingPGD) -> Callable[[Case, int, Path], tuple[Classifier, dict[str, Any]]]:
    """The plain loop against one attack."""

    def train(case: Case, seed: int, folder: Path) -> tuple[Classifier, dict[str, Any]]:
        loop = Loop(case, seed)
        net = loop.run(attack)
        return net, {"images": loop.seen, "cpu_minutes": round((time.process_time() - loop.start) / 60, 2)}

    return train


class Over(Exception):
    """The minutes are used up."""


def art(case: Case, seed: int, folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """adversarial-robustness-toolbox's Madry trainer with its own defaults: PGD-7, a quarter of eps a step."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    loop = Loop(case, seed)
    data = load(case.data)
    assert data.labels is not None
    net = loop.fresh(data)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def count(*_: Any) -> None:
        loop.seen += BATCH
        if loop.spent >= 1:
            raise Over

    optimizer.register_step_post_hook(count)
    shape = (data.channels, *data.size)
    wrapped = PyTorchClassifier(net, nn.CrossEntropyLoss(), shape, 10, optimizer, clip_values=(0.0, 1.0))
    eps = float(case.ball.eps)
    trainer = AdversarialTrainerMadryPGD(wrapped, nb_epochs=1000, batch_size=BATCH, eps=eps, eps_step=eps / 4)
    with contextlib.suppress(Over):
        trainer.fit(data.images.astype("float32") / 255, data.labels)
    return net.eval(), {"images": loop.seen, "cpu_minutes": round((time.process_time() - loop.start) / 60, 2)}


SIDES: dict[str, Callable[[Case, int, Path], tuple[Classifier, dict[str, Any]]]] = {
    "ours": ours,
    "pgd-10": plain(TrainingPGD(10, 0.25)),
    "fgsm-rs": plain(TrainingPGD(1, 1.25)),
    "art": art,
}

CASES = {
    "mnist-60": Case(
        *("mnist", "0.3", 60, "500k"),
        # A little more than it is evaluated at, as seven steps find fewer adversarial examples than a thousand do.
        {"eps": "0.32", "method": "pgd", "steps": 7, "step_size": 0.3, "optimizer": "muon", "lr": 3e-3, "ema": "20k"},
        file="mnist-linf-0.3",
    ),
    "fashion-15": Case(
        *("fashion-mnist", "0.1", 15, "220k"),
        {"method": "pgd", "steps": 5, "step_size": 0.4, "eps_warmup": 0.33, "optimizer": "muon", "lr": 3e-3},
        peers=("pgd-10", "art"),
        seeds=(0, 1, 2),
        file="fashion-linf-0.1",
    ),
    "cifar10-20": Case(
        *("cifar10", "8/255", 20, "340k"),
        # N-FGSM's noise with FGSM-RS's step, which was the default when this was measured.
        {"method": "fgsm", "start": "nfgsm", "step_size": 1.25, "optimizer": "muon", "lr": 3e-3, "ema": "20k"},
        peers=("pgd-10", "fgsm-rs"),
        seeds=(0, 1, 2),
    ),
    "cifar10-60": Case(
        # 60 minutes of two cores; the widest net whose half precision file is small enough to keep. The label smoothing
        # was chosen on training images kept aside.
        *("cifar10", "8/255", 120, "900k"),
        {
            "method": "fgsm",
            "start": "nfgsm",
            "step_size": 1.25,
            "optimizer": "muon",
            "lr": 3e-3,
            "ema": "20k",
            "widths": (48, 96, 192, 288),
            "label_smoothing": 0.4,
        },
        file="cifar10-linf-8-255",
    ),
}


def results() -> dict[str, Any]:
    """The results so far: case, then side and seed, then facts."""
    return recorded("hardening", "cases")


def note(case: str, entry: str, facts: dict[str, Any]) -> None:
    """Save the facts of an entry, in place of earlier ones."""
    cases = results()
    entries = cases.setdefault(case, {})
    entries |= {"minutes": CASES[case].minutes, "eps": CASES[case].eps}
    entries[entry] = facts
    record("hardening", threads=1, n=N, reference_n=REFERENCE_N, cases=cases)


def train(name: str, side: str, seed: int) -> None:
    """Train one and save it under ``runs/``; an interrupted run starts again, since its minutes are counted."""
    case, folder = CASES[name], RUNS / f"{name}-{side}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    net, facts = SIDES[side](case, seed, folder)
    folder.mkdir(parents=True, exist_ok=True)
    test = load(case.data, split="test")
    facts["data_hash"] = load(case.data).hash
    about = {"data": case.data, "classes": list(test.classes), "benchmark": name}
    save_network(small(net), folder / "classifier.safetensors", about | facts)
    note(name, f"{side} {seed}", {"clean": round(accuracy(rivals.load(folder), test), 4)} | facts)
    evaluate(name, side, seed, "pgd(steps=40)")


def small(net: nn.Module) -> nn.Module:
    """The network, in half precision if its file would otherwise be too large. It is evaluated as saved."""
    return net if sum(weight.numel() for weight in net.parameters()) * 4 < MOST_BYTES else net.half()


def trained(name: str, side: str, seed: int) -> Path:
    """Where a network is: in its run, or, of a headline whose run is gone, in the model that was saved."""
    run, kept = RUNS / f"{name}-{side}-{seed}", MODELS / f"{CASES[name].file}.safetensors"
    return kept if (side, seed) == HEADLINE and not (run / "classifier.safetensors").exists() else run


def evaluate(name: str, side: str, seed: int, attack: str) -> None:
    """Attack one of them on the 1,000 images; an interrupted evaluation is resumed."""
    case, folder = CASES[name], RUNS / f"{name}-{side}-{seed}"
    net = rivals.load(trained(name, side, seed))
    if attack == "pyautoattack":
        robust = reference(case, net)
    else:
        out = folder / f"evaluated-{attack.split('(')[0]}"
        report = rivals.evaluate(
            *(net, case.data, case.ball),
            # Small chunks, as an interrupted evaluation loses at most one.
            **{"attack": attack, "n": N, "alarms": False, "quiet": True, "save": "none", "batch_size": 32},
            **({"out": out, "resume": True} if out.exists() else {"out": out}),
        )
        robust = report.robust.value
    entry = f"{side} {seed}"
    note(name, entry, results()[name][entry] | {attack.split("(")[0]: robust})
    print(f"{name} {side} {seed}: {attack} {robust}", flush=True)


def reference(case: Case, net: Classifier) -> float:
    """Robust accuracy on the first 100 under pyautoattack's standard version."""
    from pyautoattack import AutoAttack

    x, y = (each[:REFERENCE_N] for each in images_of(case))
    peer = AutoAttack(net, norm="Linf", eps=float(case.ball.eps), seed=0)
    peer.verbose = False
    result = peer.run_standard_evaluation(x, y, batch_size=REFERENCE_N)
    with torch.no_grad():
        predicted = net(result[0] if isinstance(result, tuple) else result).argmax(1)
    return int((predicted == y).sum()) / len(y)


def headline(name: str, side: str, seed: int) -> None:
    """Copy one to ``benchmarks/models``."""
    case = CASES[name]
    source = RUNS / f"{name}-{side}-{seed}"
    for kind in (".safetensors", ".json"):
        shutil.copy(source / f"classifier{kind}", MODELS / f"{case.file}{kind}")


def main() -> None:
    """Run what is named on the command line, or all that is missing."""
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        action, name, side, seed, *attack = sys.argv[1:]
        {"train": train, "evaluate": evaluate, "keep": headline}[action](name, side, int(seed), *attack)
        return
    for name, case in CASES.items():
        for side, seed in [("ours", seed) for seed in case.seeds] + [(peer, 0) for peer in case.peers]:
            entry = f"{side} {seed}"
            if "clean" not in results().get(name, {}).get(entry, {}):
                train(name, side, seed)
            attacks = (
                ("autoattack-swift", "autoattack", "pyautoattack") if case.file and (side, seed) == HEADLINE else ()
            )
            for attack in attacks:
                if attack not in results()[name][entry]:
                    evaluate(name, side, seed, attack)


if __name__ == "__main__":
    main()
