"""``--attack corruptions``: accuracy under common corruptions, made here or read from the files of CIFAR-10-C."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.robustness.target import Notes, Target
from rivals.base import devices
from rivals.base.errors import Interrupted, UserError
from rivals.base.run_folder import Record, Run
from rivals.base.signals import interrupt_on_signal
from rivals.metrics.corruption_error import CorruptionRobustness
from rivals.metrics.proportion import Proportion
from rivals.recipes.options import AttackConfig

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rivals.attacks.frozen_model import FrozenModel
    from rivals.data.imageset import ImageSet

NAME = "corruptions"
FROST = "frost is a synthetic texture here, photographs in ImageNet-C: its numbers are not comparable to published ones"


def has_corrupted_files(data: Any) -> bool:
    """Whether the data are a folder of CIFAR-10-C's form: ``labels.npy``, and an array for each corruption."""
    return isinstance(data, str | Path) and (Path(data) / "labels.npy").is_file()


@dataclass(frozen=True)
class CorruptedFiles:
    """A folder of CIFAR-10-C's form: for each kind uint8 (5 n, H, W, C), a fifth a severity, and ``labels.npy``.

    Attributes:
        folder: Where they are.
        kinds: Those that are there.
        labels: Of one severity's images (n,).
    """

    folder: Path
    kinds: tuple[str, ...]
    labels: npt.NDArray[np.int64]

    @classmethod
    def open(cls, folder: str | Path) -> CorruptedFiles:
        """Look for its files.

        Raises:
            UserError: there is none of a known corruption, or one is damaged.
        """
        import numpy as np

        from rivals.data.corruptions import KINDS

        folder = Path(folder)
        kinds = tuple(kind for kind in KINDS if (folder / f"{kind}.npy").is_file())
        if not kinds:
            raise UserError(f"'{folder}' has labels.npy and no array of a corruption: give them, as gaussian_noise.npy")
        labels = _array(folder / "labels.npy")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) % 5:
            raise UserError(f"'{folder / 'labels.npy'}' is no list of labels for 5 severities: download it again")
        per_severity = len(labels) // 5
        if not np.array_equal(labels[:per_severity], labels[-per_severity:]):
            raise UserError(f"'{folder / 'labels.npy'}' differs between severities: download it again")
        return cls(folder, kinds, labels[:per_severity].astype(np.int64))

    def images(self, kind: str, severity: int) -> npt.NDArray[np.uint8]:
        """Images (n, C, H, W) of a kind and a severity.

        Raises:
            UserError: the file is damaged.
        """
        import numpy as np

        found, n = _array(self.folder / f"{kind}.npy"), len(self.labels)
        if found.ndim != 4 or found.dtype != np.uint8 or len(found) != 5 * n or found.shape[3] not in (1, 3):
            raise UserError(
                f"'{self.folder / kind}.npy' is {found.dtype} of shape {found.shape}, not uint8 ({5 * n}, H, W, C): "
                "download it again"
            )
        return np.ascontiguousarray(found[(severity - 1) * n : severity * n].transpose(0, 3, 1, 2))

    def as_images(self) -> ImageSet:
        """The first images, to load the model for."""
        from rivals.data.imageset import ImageSet

        names = tuple(str(label) for label in range(int(self.labels.max()) + 1))
        return ImageSet(str(self.folder), "test", self.images(self.kinds[0], 1), self.labels, names)


def _array(path: Path) -> npt.NDArray[Any]:
    """An array of a file that others may have written: never unpickled."""
    import numpy as np

    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # NumPy's header parser raises nearly anything on arbitrary bytes
        raise UserError(f"'{path}' cannot be read as an array without pickled objects: download it again") from None
    return found


def evaluate_corruptions(
    target: Target, files: CorruptedFiles | None, config: AttackConfig, notes: Notes, folder: Run | None
) -> CorruptionRobustness:
    """Accuracy under each kind and severity; every one is a record, so that it can resume.

    Raises:
        UserError: the model and the images do not fit each other.
        Interrupted: stopped after saving.
    """
    from rivals.attacks.frozen_model import freeze
    from rivals.data.corruptions import KINDS, SEVERITIES
    from rivals.reports.report import write_report
    from rivals.reports.robustbench import write_entry

    kinds = tuple(KINDS) if files is None else files.kinds
    if files is None:
        notes(FROST)
    elif missing := [kind for kind in KINDS if kind not in kinds]:
        notes(f"no file for {', '.join(missing)}: means are over the other {len(kinds)} corruptions")
    steps = [("clean", 0)] * (files is None) + [(kind, severity) for kind in kinds for severity in SEVERITIES]
    done = {} if folder is None else {record["step"]: record for record in folder.records()}
    begun = time.perf_counter() - max((record["seconds"] for record in done.values()), default=0.0)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            stack.enter_context(folder.lock())
        stack.enter_context(devices.explain_out_of_memory("lower --batch-size"))
        frozen = stack.enter_context(freeze(target.model, target.images(0, 2), warn=False))
        target.check_classes(frozen.classes, notes)
        try:
            with interrupt_on_signal():
                for step, (kind, severity) in enumerate(steps, 1):
                    if step in done:
                        continue
                    correct, n = _count(target, files, config, frozen, kind, severity)
                    seconds = round(time.perf_counter() - begun, 3)
                    about = {"corruption": kind, "severity": severity, "correct": correct, "n": n}
                    done[step] = {"step": step, "images": n, "seconds": seconds, **about}
                    if folder is not None:
                        folder.append([done[step]])
        except KeyboardInterrupt:
            if folder is None:
                raise
            folder.update(state="interrupted")
            raise Interrupted(
                f"stopped and saved after {len(done)} of {len(steps)} corruptions and severities: continue with "
                f"{folder.command_to_resume}"
            ) from None
        report = _report(target, config, notes, [done[step] for step in sorted(done)], frozen.classes, folder)
        if folder is not None:
            folder.update(
                state="finished",
                images=len(target.data),
                step=len(steps),
                seconds=report.seconds,
                alarms=[],
                results=report.as_dict(),
            )
    if folder is not None:
        write_report([folder], folder.report)
        write_entry(folder)
    return report


def _count(
    target: Target,
    files: CorruptedFiles | None,
    config: AttackConfig,
    frozen: FrozenModel,
    kind: str,
    severity: int,
) -> tuple[int, int]:
    """How many images are classified correctly, of how many."""
    import torch

    correct = n = 0
    for images, labels in _batches(target, files, config, kind, severity):
        x = torch.from_numpy(images).to(target.device, target.dtype) / 255
        predicted = frozen.logits(x).argmax(1).cpu().numpy()
        correct, n = correct + int((predicted == labels).sum()), n + len(labels)
    return correct, n


def _batches(
    target: Target, files: CorruptedFiles | None, config: AttackConfig, kind: str, severity: int
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    from rivals.data.corruptions import corrupt

    data, size = target.data, config.batch_size
    stored = None if files is None else files.images(kind, severity)
    for start in range(0, len(data), size):
        stop = min(start + size, len(data))
        if stored is not None:
            yield stored[data.order[start:stop]], data.labels[start:stop]
            continue
        images = (target.images(start, stop).float() * 255).round().clamp(0, 255).byte().cpu().numpy()
        if kind != "clean":
            images = corrupt(images, kind, severity, config.seed)
        yield images, data.labels[start:stop]


def _report(
    target: Target, config: AttackConfig, notes: Notes, records: list[Record], classes: int, folder: Run | None
) -> CorruptionRobustness:
    found: dict[str, list[Proportion]] = {}
    for record in records:
        found.setdefault(record["corruption"], []).append(Proportion(record["correct"], record["n"]))
    clean = found.pop("clean", None)
    return CorruptionRobustness(
        clean=None if clean is None else clean[0],
        accuracies={kind: tuple(severities) for kind, severities in found.items()},
        relative=classes == 1000 and len(found) == 15,
        notes=tuple(dict.fromkeys(notes.texts)),
        protocol={"attack": NAME, "seed": config.seed, "batch_size": config.batch_size, **target.protocol()},
        seconds=round(max(record["seconds"] for record in records), 3),
        run=None if folder is None else str(folder.folder),
    )
