"""Parses the text of options: radii as ``0,1/255,8/255``, attacks as ``pgd(steps=100),square``."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.registry import first_names, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.api.robustness.target import Target
    from rivals.attacks.attack_state import CommonOptions
    from rivals.attacks.ensemble import Stage
    from rivals.base.norm_balls import Ball

GENERATOR = "generator:"  # and a run, whose generator is the attack
_GIVEN = (
    "model",
    "x",
    "y",
    "ball",
    "clean",
    "best",
    "targets",
    "seed",
    "batch_size",
    "options",
    "generator",
)


def read_radii(text: str) -> list[float]:
    """Radii from text, such as ``8/255`` or ``0,1/255,0.03``, rising; 0 and repetitions left out.

    Raises:
        UserError: one is not a number, or negative, or none is above 0.
    """
    radii = {parse_eps(word) for word in text.split(",")}
    if not radii - {0.0}:
        raise UserError("an eps of 0 alone leaves nothing to attack: give one above 0, such as 8/255")
    return sorted(radii - {0.0})


def write_radii(radii: Sequence[float]) -> str:
    """Radii as one would type them, so that :func:`read_radii` gives back the very same."""
    whole = [round(eps * 255) for eps in radii]
    return ",".join(
        f"{k}/255" if 0 < k < 255 and k / 255 == eps and len(repr(eps)) > 5 else repr(eps)
        for k, eps in zip(whole, radii, strict=True)
    )


def read_attack(text: str, ball: Ball) -> tuple[Stage, ...]:
    """The stages of an ensemble from text: names in order, separated by commas, each with options in
    parentheses if wanted.

    ``autoattack`` means the stages of its standard version, ``autoattack-VERSION`` those of another.

    Raises:
        UserError: there is no such attack or option, or it cannot work with such a value or in such a ball.
    """
    from rivals.attacks.autoattack import ATTACKS, autoattack_stages
    from rivals.attacks.ensemble import Stage

    stages: list[Stage] = []
    for word in re.split(r",(?![^()]*\))", text):
        if word.strip().startswith(GENERATOR):
            stages.append(_by_generator(word.strip()))
            continue
        match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", word)
        if not match:
            raise UserError(
                f"'{word.strip()}' does not name an attack: write a name, with options in parentheses, such as "
                "pgd(steps=100)"
            )
        name, options = match[1], match[2]
        base, _, version = name.partition("-")
        if base == "autoattack":
            if options:
                raise UserError(f"{name} has no options to set: leave out '({options})'")
            stages += autoattack_stages(version or "standard", ball)
            continue
        if name not in ATTACKS:
            raise unknown("attack", name, [*ATTACKS, f"{GENERATOR}RUN"])
        attack = ATTACKS[name]
        part = Stage(word.strip(), partial(attack, **read_options(name, attack, options)) if options else attack)
        rehearse(part.attack, ball)
        stages.append(part)
    names = [part.name for part in stages]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise UserError(f"the attack {repeated} is named twice: name it once, or with other options")
    return tuple(stages)


def _by_generator(word: str) -> Stage:
    """The attack by the generator of a run, as ``generator:RUN``.

    Raises:
        UserError: there is no such run, or its network perturbs no images.
    """
    from rivals.api.common.network_io import load
    from rivals.attacks.advgan import advgan
    from rivals.attacks.ensemble import Stage

    run = word.removeprefix(GENERATOR)
    if not run or run.endswith(")"):
        wrong = "has no options to set" if run else "names no run"
        raise UserError(f"{word} {wrong}: write generator:RUN, with a run of rivals train --against")
    net = load(run)
    if net.spec["role"] != "perturber":
        raise UserError(
            f"'{run}' holds a {net.spec['role']} that perturbs no images: name a run of rivals train --against MODEL"
        )
    return Stage(word, _OnDevice(advgan, net), (net,))


class _OnDevice:
    """An attack by a network that follows the images to their device."""

    def __init__(self, attack: Callable[..., Tensor], net: Any) -> None:
        self.attack, self.net = attack, net

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        ball: Ball,
        *,
        clean: Tensor | None = None,
        **options: Unpack[CommonOptions],
    ) -> Tensor:
        """The attack, with the network where the images are."""
        return self.attack(model, x, y, ball, generator=self.net.to(x.device), clean=clean, **options)


def check_stages(stages: Sequence[Stage], target: Target, ball: Ball, radii: Sequence[float]) -> None:
    """Refuse attacks that cannot work on such images, and generators for others, before a run begins.

    Args:
        stages: The attacks.
        target: The model, and the images.
        ball: The threat model.
        radii: Each eps of the evaluation, rising.

    Raises:
        UserError: there is one.
    """
    import torch

    from rivals.attacks.advgan import check_classes, check_generator, check_targets
    from rivals.attacks.autoattack import ATTACKS

    shape, classes, targets = target.data.shape, target.named.classes, target.data.targets
    for stage in stages:
        plain = stage.attack.func if isinstance(stage.attack, partial) else stage.attack
        if plain in ATTACKS.values():  # a function of the user's may not expect to be called without images
            rehearse(stage.attack, ball.with_eps(torch.tensor(radii[0])), shape)
        if isinstance(stage.attack, _OnDevice):
            check_generator(stage.attack.net, torch.empty(1, *shape))
            if classes:
                check_classes(stage.attack.net, len(classes))
                _check_names(stage.attack.net, classes)
            check_targets(stage.attack.net, None if targets is None else torch.from_numpy(targets))


def _check_names(generator: Any, classes: Sequence[str]) -> None:
    """Refuse a generator that is told classes, or has a target, by other names or in another order.

    Raises:
        UserError: it is.
    """
    theirs = tuple(generator.about.get("classes") or classes)
    if (generator.classes or generator.target is not None) and theirs != tuple(classes):
        raise UserError(
            f"the generator has the classes {first_names(theirs)} and the model {first_names(classes)}, in this order: "
            "give one that was trained on the same"
        )


def rehearse(attack: Callable[..., Any], ball: Ball, shape: tuple[int, ...] = (2, 1, 1)) -> None:
    """Let it attack no image at all, for what it refuses in any case: known before a model is read or a run begun.

    Args:
        attack: The attack.
        ball: The threat model.
        shape: Of an image; by default of one that no attack on images refuses.

    Raises:
        UserError: it cannot work with such options, in such a ball or on such images.
    """
    import torch
    from torch import nn

    if ball.per_feature:  # what fits images of one shape only; in L0 the count and what is counted remain
        ball = dataclasses.replace(ball, eps=ball.eps if not ball.p else 0.0, bounds=(0.0, 1.0))
    pixels_as_logits, x, y = nn.Flatten(), torch.zeros(0, *shape), torch.zeros(0, dtype=torch.int64)
    attack(pixels_as_logits, x, y, ball, seed=0, batch_size=1)


def named_stages(attack: str | Callable[..., Tensor], ball: Ball) -> tuple[str, tuple[Stage, ...]]:
    """A name for the protocol, and the stages, of an attack that is text or a function.

    Raises:
        UserError: it is neither; or whatever :func:`read_attack` refuses.
    """
    from rivals.attacks.ensemble import Stage

    if isinstance(attack, str):
        return attack, read_attack(attack, ball)
    if not callable(attack):
        raise UserError(f"the attack is a {type(attack).__name__}: give a name, or a function (model, x, y, ball)")
    plain = attack.func if isinstance(attack, partial) else attack
    name = getattr(plain, "__name__", type(attack).__name__)
    return name, (Stage(name, attack),)


def is_gradient_free(stage: Stage) -> bool:
    """Whether a stage needs no gradient."""
    from rivals.attacks.autoattack import GRADIENT_FREE

    return stage.name.startswith(GENERATOR) or _attack_of(stage) in GRADIENT_FREE


def sees_labels_only(stage: Stage) -> bool:
    """Whether a stage searches from an adversarial image, by predicted labels alone."""
    from rivals.attacks.autoattack import LABELS_ONLY

    return _attack_of(stage) in LABELS_ONLY


def _attack_of(stage: Stage) -> str:
    return re.split(r"\W", stage.name)[0]


def read_options(name: str, attack: Callable[..., Any], text: str) -> dict[str, Any]:
    """Options from ``steps=100, loss=dlr``, checked against those of what is called ``name``.

    Raises:
        UserError: it has no such option, or it cannot have such a value.
    """
    parameters = inspect.signature(attack).parameters
    known = [each for each in parameters if each not in _GIVEN]
    if "options" in parameters and "loss" not in known:
        known.append("loss")
    found: dict[str, Any] = {}
    for entry in text.split(","):
        key, equals, value = (piece.strip() for piece in entry.partition("="))
        if not equals or not value:
            raise UserError(f"'{entry.strip()}' sets no option of {name}: write it as steps=100")
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        found[key] = _value(name, key, value, parameters[key].default if key in parameters else "")
    return found


def _value(name: str, key: str, text: str, default: object) -> bool | int | float | str:
    """An option's value, of the kind that its default has."""
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise UserError(f"{key}={text} of {name} is neither true nor false: write one of them")
    kinds: Sequence[Callable[[str], int | float]] = (
        () if isinstance(default, str) else (int,) if isinstance(default, int) else (int, float)
    )
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    if kinds:
        raise UserError(f"{key}={text} of {name} is not a {'whole number' if kinds == (int,) else 'number'}: give one")
    return text
