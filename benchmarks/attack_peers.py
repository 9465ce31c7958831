"""The peers' attacks behind one signature: ``(model, x, y) -> x_adv``. They come with the extra ``bench``.

Each is called as its own documentation has it. ART and foolbox hand their work to wrappers of the model; building those
is counted as the peer's cost only where it is done anew for each call anyway.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
VERSIONS = ("torchattacks", "foolbox", "adversarial-robustness-toolbox", "pyautoattack")


def versions() -> dict[str, str]:
    """The peers' versions."""
    return {name: version(name) for name in VERSIONS}


def pgd(steps: int, eps: float) -> dict[str, Attack]:
    """PGD in Linf with a random start and Madry's step size, 2.5 eps / steps."""
    step = 2.5 * eps / steps

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


def min_norm() -> dict[str, dict[str, Attack]]:
    """The minimum-norm attacks in L2, by attack and by peer, at the budgets of :mod:`benchmarks.attack_strength`."""

    def deepfool_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks as peer

        x_adv: Tensor = peer.DeepFool(model, steps=50)(x, y)
        return x_adv

    def deepfool_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox as peer

        return _foolbox(peer.attacks.L2DeepFoolAttack(steps=50), model, x, y, None)

    def deepfool_art(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        from art.attacks.evasion import DeepFool as Peer

        return _art(Peer, model, x, y, max_iter=50, epsilon=1e-6)

    def carlini_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox as peer

        return _foolbox(peer.attacks.L2CarliniWagnerAttack(binary_search_steps=9, steps=50), model, x, y, None)

    def carlini_torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import torchattacks as peer  # it searches for no constant: as many steps with one

        x_adv: Tensor = peer.CW(model, c=1, steps=9 * 50)(x, y)
        return x_adv

    def ddn_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        import foolbox as peer

        return _foolbox(peer.attacks.DDNAttack(steps=100), model, x, y, None)

    return {
        "deepfool": {"torchattacks": deepfool_torchattacks, "foolbox": deepfool_foolbox, "art": deepfool_art},
        "carlini_wagner": {"foolbox": carlini_foolbox, "torchattacks": carlini_torchattacks},
        "ddn": {"foolbox": ddn_foolbox},
    }


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
