"""A classifier of digits that evaluates generated ones: their classes, and their Frechet distance to real ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.harness import load


class DigitClassifier(nn.Module):
    """A small convolutional network: uint8 (B, 1, 28, 28) to features (B, 128), and to logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU()),
        )
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        logits: Tensor = self.head(self.features(x.float() / 255))
        return logits

    @torch.no_grad()
    def digits(self, images: Tensor) -> Tensor:
        """The digit of each image, (N,)."""
        return torch.cat([self(block).argmax(1) for block in images.split(1000)])

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Mean (128,) and covariance (128, 128) of the features."""
        features = torch.cat([self.features(block.float() / 255) for block in images.split(1000)]).double().numpy()
        return features.mean(0), np.cov(features, rowvar=False)

    def distance(self, images: Tensor, real: Tensor) -> float:
        """Frechet distance between the features of two sets of images (Heusel et al. 2017, eq. 6)."""
        (mean_a, cov_a), (mean_b, cov_b) = self.moments(images), self.moments(real)
        values, vectors = np.linalg.eigh(cov_b)
        root = vectors * np.sqrt(values.clip(0)) @ vectors.T
        cross = np.sqrt(np.linalg.eigvalsh(root @ cov_a @ root).clip(0)).sum()
        return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def train_digit_classifier() -> tuple[DigitClassifier, float]:
    """The classifier, trained on MNIST, and its accuracy on the test images."""
    torch.manual_seed(0)
    classifier, data, test = DigitClassifier(), load("mnist"), load("mnist", split="test")
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    optimizer = torch.optim.Adam(classifier.parameters(), 1e-3, fused=True)
    steps = 4000
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        chosen = torch.randint(len(images), (128,))
        optimizer.zero_grad()
        cross_entropy(classifier(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    classifier.eval()
    right = classifier.digits(torch.from_numpy(test.images)) == torch.from_numpy(test.labels)
    return classifier, right.float().mean().item()
