"""``doctor``: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from rivals.base.errors import UserError

HIDDEN = ("dev", "bench")  # extras for those who work on the package itself
_REQUIREMENT = re.compile(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]")

Row = dict[str, str]


def doctor() -> list[Row]:
    """Say what is here: versions, devices, data sets, weights of extractors, extras; and what to do for the rest.

    Returns:
        Rows of ``part``, ``state`` and ``advice`` (empty where there is nothing to do).
    """
    return [*_versions(), *_devices(), *_data(), *_weights(), *_extras()]


def _row(part: str, state: str, advice: str = "") -> Row:
    return {"part": part, "state": state, "advice": advice}


def _versions() -> Iterator[Row]:
    from rivals.api.common.provenance import versions

    for name, found in versions().items():
        yield _row(name, found)


def _devices() -> Iterator[Row]:
    import torch

    from rivals.api.common.provenance import hardware
    from rivals.base import devices

    machine = hardware(torch.device("cpu"))
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    slow = "unset OMP_NUM_THREADS to use all" if machine["threads"] < (machine["cores"] or 1) / 2 else ""
    yield _row("cpu", f"{machine['processor']}, {machine['cores']} cores, {threads}", slow)
    device = devices.pick("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    yield _row("device auto", "the cpu" if device.type == "cpu" else name)
    fast = devices.fastest_precision(device) == "bf16"
    yield _row("bf16", "fast here: training uses it" if fast else "not fast here: training uses fp32")


def _data() -> Iterator[Row]:
    from rivals.data.builtin import catalog

    for entry in catalog():
        state, _, advice = entry["status"].partition(": ")
        yield _row(f"data {entry['name']}", state, advice)


def _weights() -> Iterator[Row]:
    from rivals.extractors.inception import PUBLISHED as INCEPTION
    from rivals.extractors.vgg16 import PUBLISHED as VGG16
    from rivals.extractors.vit import CLIP, DINOV2

    for published in (INCEPTION, DINOV2, CLIP, VGG16):
        try:
            yield _row(f"weights {published.extractor}", str(published.find(None)))
        except UserError as missing:
            yield _row(f"weights {published.extractor}", "missing", str(missing).partition(": ")[2])


def _extras() -> Iterator[Row]:
    """Each extra by what the package's own metadata asks for."""
    wanted: dict[str, list[str]] = {}
    for line in requires("rivals") or []:
        if found := _REQUIREMENT.match(line):
            wanted.setdefault(found[2], []).append(found[1])
    for extra, packages in sorted(wanted.items()):
        if extra in HIDDEN:
            continue
        absent = [name for name in packages if _installed(name) is None]
        if absent:
            yield _row(f"extra {extra}", f"missing {', '.join(absent)}", f"pip install 'rivals[{extra}]'")
        else:
            yield _row(f"extra {extra}", ", ".join(f"{name} {_installed(name)}" for name in packages))
    timm = _installed("timm")
    yield _row("timm", timm or "missing", "" if timm else "pip install timm, to attack timm:NAME")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
