"""What is evaluated: a classifier on a device, and the images. ``attack`` and ``certify`` share it."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common import provenance
from rivals.api.common.alike import check_alike
from rivals.api.common.model_zoo import NamedModel, find_model
from rivals.api.common.resume import resolve_source
from rivals.api.robustness.eval_data import EvalData, load_eval_data
from rivals.base import devices
from rivals.base.errors import UserError, printable
from rivals.base.hashing import key_hash, weights_hash
from rivals.base.numerics import numerics
from rivals.base.registry import first_names
from rivals.base.run_folder import Record, Run
from rivals.recipes.options import AttackConfig, DataOptions, EvalConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rivals.attacks.ensemble import Stage
    from rivals.base.process_group import ProcessGroup


@dataclass
class Notes:
    """What the reader of the result should know, printed to standard error as it comes up."""

    quiet: bool = False
    texts: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        self.texts.append(text)
        if not self.quiet:
            print(printable(text), file=sys.stderr)


@dataclass(frozen=True)
class Target:
    """A classifier and the images it is evaluated on.

    Attributes:
        model: Maps images (n, C, H, W) in the ball's bounds to logits (n, K); on ``device``.
        named: What is known of it.
        data: The images with their labels.
        source: What the caller named: ``model`` and ``data``, as text.
        device: Where to work.
        dtype: Of the model's weights and so of the images.
    """

    model: nn.Module
    named: NamedModel
    data: EvalData
    source: Record
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def load(
        cls,
        model: Any,
        data: Any,
        bounds: Any,
        config: EvalConfig,
        options: DataOptions,
        *,
        device: str,
        notes: Notes,
    ) -> Target:
        """The classifier and the images by their names, or as they were given.

        Args:
            model: An ``nn.Module`` or a name: see :func:`~rivals.api.common.model_zoo.find_model`.
            data: A name, folder or zip; an :class:`ImageSet`; or tensors (images, labels).
            bounds: The range of the images.
            config: How many images, of which split, and the model's normalization.
            options: How images are read.
            device: Where to work. With ``auto`` a module stays where it is; it is copied if it has to move.
            notes: Receives what the user should know.

        Raises:
            UserError: one of them cannot be loaded, or they do not fit each other.
        """
        import torch

        classes = json.loads(config.classes) if config.classes else ()
        named = find_model(model, mean=config.mean, std=config.std, classes=classes)
        images = load_eval_data(data, bounds, named, config, options, notes)
        if isinstance(config, AttackConfig) and config.target is not None:
            images = images.aimed_at(config.target, notes)
        given = not isinstance(model, str | os.PathLike)
        first = next(named.model.parameters(), None)
        home = torch.device("cpu") if first is None else first.device
        place = home if given and device == "auto" else devices.pick(device)
        net = named.model
        if home != place:
            net = (copy.deepcopy(net) if given else net).to(place)  # the caller's own module stays where it is
        source = {
            "model": named.name if given else resolve_source(str(model)),
            "data": resolve_source(str(data)) if isinstance(data, str | Path) else images.about["name"],
        }
        dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
        return cls(net, named, images, source, place, dtype)

    def images(self, start: int, stop: int) -> Tensor:
        """Images ``start`` to ``stop`` of the evaluation, on the device, in the model's dtype."""
        import numpy as np

        return self.data.take(np.arange(start, min(stop, len(self.data)))).to(self.device, self.dtype)

    def check_classes(self, classes: int, note: Callable[[str], None]) -> None:
        """Refuse a model whose number of classes is not that of its class names, or of those of the images.

        Note it if the classes of the images are those of a model without names by their order alone.

        Raises:
            UserError: the numbers differ, or a label is too large.
        """
        import torch

        from rivals.attacks.input_checks import check_classes

        named, data = self.named.classes, self.data.classes
        if named and len(named) != classes:
            raise UserError(
                f"the model has {classes} classes, and {len(named)} class names were given: give one for each of "
                "its logits, in their order"
            )
        if data and len(data) != classes:
            raise UserError(
                f"the model has {classes} classes without names, and '{self.data.about['name']}' has {len(data)} "
                f"({', '.join(data[:5])}{', ...' if len(data) > 5 else ''}): name the model's classes with --classes "
                "FILE, one a line in the order of its logits, or give it the data it was made for"
            )
        check_classes(torch.from_numpy(self.data.labels), classes)
        if self.data.targets is not None:
            check_classes(torch.from_numpy(self.data.targets), classes, "targets")
        if not named and data != tuple(map(str, range(len(data)))):
            first = first_names(data)
            note(f"the model does not tell the names of its classes: its logits are taken to be {first}, in this order")

    def protocol(self) -> Record:
        """What a result says of the model, the images and the device."""
        about = self.data.about
        return {
            "model": self.named.name,
            "data": about["name"],
            "split": about.get("split"),
            "hash": about["hash"],
            "of": about["of"],
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            **numerics(self.device),
            "versions": provenance.versions(),
        }

    def check_alike(self, processes: ProcessGroup, config: EvalConfig, stages: Sequence[Stage] = ()) -> None:
        """Check that all processes evaluate the same model on the same images in the same way.

        Raises:
            UserError: their code, versions, weights, images or settings differ.
        """
        if processes.size > 1:
            facts = {"model": weights_hash(self.model), "images": self.data.about["hash"], "settings": str(config)}
            facts |= _hashes(stages)
            check_alike(processes, facts)

    def open_run(
        self,
        command: str,
        out: str | Path | None,
        resume: bool,
        config: EvalConfig,
        options: DataOptions,
        notes: Notes,
        stages: Sequence[Stage] = (),
    ) -> Run | None:
        """The run folder of an evaluation: a new one, the one to resume, or None without ``out``.

        Raises:
            UserError: the images, the weights or the networks of an attack are not those of the run to resume.
        """
        if out is None:
            return None
        if resume:
            run = Run.open(out)
            for what, hash in (("data", self.data.about["hash"]), ("model", weights_hash(self.model))):
                if run.info[what]["hash"] != hash:
                    raise UserError(
                        f"the {what} '{self.source[what]}' is not what the run began with: restore it, or name its "
                        "place now, to resume"
                    )
            nets = run.info.get("attack_nets", {})
            for name, hash in _hashes(stages).items():
                if nets.get(name) != hash:
                    raise UserError(
                        f"the networks of the attack '{name}' are not what the run began with: restore them, to resume"
                    )
            if changed := provenance.changes_since(run.info, self.device):
                notes(changed)
            run.update(numerics=numerics(self.device))
            return run
        return Run.create(
            out,
            {
                **provenance.run_facts(command, self.device),
                "config": config.written(),
                "data_options": options.written(),
                "source": self.source,
                "data": self.data.about,
                "attack_nets": _hashes(stages),
                "model": {
                    "name": self.named.name,
                    "architecture": self.named.architecture,
                    "parameters": sum(weights.numel() for weights in self.model.parameters()),
                    "hash": weights_hash(self.model),
                    "mean": list(self.named.mean),
                    "std": list(self.named.std),
                },
            },
        )


def _hashes(stages: Sequence[Stage]) -> dict[str, str]:
    """By attack, the hash of the networks that it uses beside the model."""
    return {stage.name: key_hash(*map(weights_hash, stage.nets)) for stage in stages if stage.nets}
