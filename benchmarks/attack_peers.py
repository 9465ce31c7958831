"""The peers' attacks behind one signature: ``(model, x, y) -> x_adv``. They come with the extra ``bench``.

Each is called as its own documentation has it. ART and foolbox hand their work to wrappers of the model; building those
is counted as the peer's cost only where it is done anew for each call anyway.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
VERSIONS = ("torchattacks", "foolbox", "adversarial-robustness-toolbox", "pyautoattack")


def versions() -> dict[str, str]:
    """The peers' versions."""
    return {name: version(name) for name in VERSIONS}


class Tunable(NamedTuple):
    """A peer's attack, and the settings it is tried with, its defaults first."""

    make: Callable[..., Attack]
    candidates: tuple[dict[str, float], ...]


def pgd(steps: int, eps: float, share: float | None = None) -> dict[str, Attack]:
    """PGD in Linf with a random start and a step of a share of eps: by default Madry's, 2.5 / steps."""
    step = eps * (2.5 / steps if share is None else share)

    def torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks as peer

        x_adv: Tensor = peer.PGD(model, eps=eps, alpha=step, steps=steps)(x, y)
        return x_adv

    def foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox as peer

        attack = peer.attacks.LinfPGD(abs_stepsize=step, steps=steps)
        return _foolbox(attack, model, x, y, eps)

    def art(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch as Peer

        options = {"eps": eps, "eps_step": step, "max_iter": steps, "num_random_init": 1}
        return _art(Peer, model, x, y, **options)

    return {"torchattacks": torchattacks, "foolbox": foolbox, "art": art}


def min_norm() -> dict[str, dict[str, Tunable]]:
    """The minimum-norm attacks in L2, by attack and by peer, at the budgets of :mod:`benchmarks.attack_strength`."""

    def deepfool_torchattacks() -> Attack:
        import torchattacks as peer

        return lambda model, x, y: peer.DeepFool(model, steps=50)(x, y)

    def deepfool_foolbox() -> Attack:
        import foolbox as peer

        return lambda model, x, y: _foolbox(peer.attacks.L2DeepFoolAttack(steps=50), model, x, y, None)

    def deepfool_art() -> Attack:
        from art.attacks.evasion import DeepFool as Peer

        return lambda model, x, y: _art(Peer, model, x, y, max_iter=50, epsilon=1e-6)

    def carlini_foolbox(stepsize: float, initial_const: float) -> Attack:
        import foolbox as peer

        attack = peer.attacks.L2CarliniWagnerAttack(
            binary_search_steps=9, steps=50, stepsize=stepsize, initial_const=initial_const
        )
        return lambda model, x, y: _foolbox(attack, model, x, y, None)

    def carlini_torchattacks(c: float, lr: float) -> Attack:
        import torchattacks as peer  # it searches for no constant: as many steps with one

        return lambda model, x, y: peer.CW(model, c=c, steps=9 * 50, lr=lr)(x, y)

    def ddn_foolbox(init_epsilon: float, gamma: float) -> Attack:
        import foolbox as peer

        attack = peer.attacks.DDNAttack(steps=100, init_epsilon=init_epsilon, gamma=gamma)
        return lambda model, x, y: _foolbox(attack, model, x, y, None)

    return {
        # DeepFool is not tuned: each has its default overshoot, ART 1e-6 and the others the published 0.02.
        "deepfool": {
            "torchattacks": Tunable(deepfool_torchattacks, ({},)),
            "foolbox": Tunable(deepfool_foolbox, ({},)),
            "art": Tunable(deepfool_art, ({},)),
        },
        "carlini_wagner": {
            "foolbox": Tunable(carlini_foolbox, _grid(stepsize=(0.01, 0.05, 0.2), initial_const=(1e-3, 1.0, 100.0))),
            "torchattacks": Tunable(carlini_torchattacks, _grid(c=(1.0, 10.0, 100.0), lr=(0.01, 0.05, 0.2))),
        },
        "ddn": {"foolbox": Tunable(ddn_foolbox, _grid(init_epsilon=(1.0, 0.1), gamma=(0.05, 0.1, 0.2)))},
    }


def _grid(**values: tuple[float, ...]) -> tuple[dict[str, float], ...]:
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))


def _foolbox(attack: Any, model: nn.Module, x: Tensor, y: Tensor, eps: float | None) -> Tensor:
    import foolbox as peer

    wrapped = peer.PyTorchModel(model, bounds=(0, 1), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, x_adv, _ = attack(wrapped, x, peer.criteria.Misclassification(y), epsilons=eps)
    found: Tensor = x_adv.detach()
    return found


def _art(kind: Any, model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Tensor:
    from art.estimators.classification import PyTorchClassifier

    shape, classes = tuple(x.shape[1:]), model(x[:1]).shape[1]
    wrapped = PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type="cpu")
    attack = kind(wrapped, batch_size=len(x), verbose=False, **options)
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
