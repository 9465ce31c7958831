"""Extractors by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rivals.base.registry import Registry
from rivals.extractors.base import Extractor
from rivals.extractors.efficientnet_lite0 import open_lite0
from rivals.extractors.inception import open_inception
from rivals.extractors.vgg16 import open_vgg16
from rivals.extractors.vit import open_clip, open_dinov2

EXTRACTORS: Registry[Callable[[Path | None], Extractor]] = Registry(
    "extractor",
    {
        "inception": open_inception,
        "lite0": open_lite0,
        "dinov2": open_dinov2,
        "clip": open_clip,
        "vgg16": open_vgg16,
    },
)
