"""A folder with small networks of random weights and images that they take, for tests of the studio."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_classifier, build_generator


def save_networks(home: Path) -> None:
    """Save a conditional generator, two classifiers (``hard`` adversarially trained), and 12 images in 2 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator("mlp", size=8, channels=1, classes=2, latent_dim=4, widths=(8,))
        (home / "run").mkdir()
        (home / "run" / "run.json").write_text(json.dumps({"format": 1, "state": "finished"}))
        save_network(generator, home / "run" / "generator.safetensors", {"classes": ["cats", "dogs"]})
        for name, more in (("hard", {"hardened": {}}), ("plain", {})):
            net = build_classifier("cnn", size=8, channels=1, classes=2, widths=(4,))
            with torch.no_grad():
                for weights in net.parameters():
                    weights.mul_(8)  # or it would not care for its image
            save_network(net, home / f"{name}.safetensors", {"classes": ["cats", "dogs"], "data": "photos", **more})
    for i in range(12):
        path = home / "photos" / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def small_net(seed=0, channels=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_classifier("cnn", size=16, channels=channels, classes=3, widths=(4,)).eval()
