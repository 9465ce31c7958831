"""The recipe ``mlp`` on the 60,000 images of MNIST for 20 epochs: no alarm at the end, and all ten digits there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rivals
from benchmarks.harness import RESULTS, record
from rivals.data.load import load
from rivals.reports.run import Run
from rivals.reports.sheet import grid, save_png

SAMPLES, LEAST = 10_000, 0.03


class Judge(nn.Module):
    """A small convolutional classifier of digits: uint8 (B, 1, 28, 28) to logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU()),
            nn.Linear(128, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(x.float() / 255)
        return logits


def train_judge() -> tuple[Judge, float]:
    """The judge, trained on MNIST, and its accuracy on the test images."""
    torch.manual_seed(0)
    judge, data, test = Judge(), load("mnist"), load("mnist", split="test")
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3, fused=True)
    steps = 4000
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / steps)
        chosen = torch.randint(len(images), (128,))
        optimizer.zero_grad()
        cross_entropy(judge(images[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    judge.eval()
    with torch.no_grad():
        answers = torch.cat([judge(block).argmax(1) for block in torch.from_numpy(test.images).split(1000)])
    return judge, (answers == torch.from_numpy(test.labels)).float().mean().item()


@torch.no_grad()
def main() -> None:
    """Train, draw, count."""
    out = Path("runs/benchmark-mlp-mnist")
    words = ["train", "mnist", "--recipe", "mlp", "--until", "20 epochs", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "rivals", *words, *(["--resume"] if out.exists() else [])], check=True)
    about = Run.open(out).about
    samples = rivals.load(out).sample(SAMPLES, seed=0)
    shutil.copy(out / "curves.png", RESULTS / "mlp_mnist_curves.png")
    save_png(grid(samples[:64].numpy()), RESULTS / "mlp_mnist.png")
    with torch.enable_grad():
        judge, accuracy = train_judge()
    digits = torch.cat([judge(block).argmax(1) for block in samples.split(1000)])
    shares = (digits.bincount(minlength=10) / SAMPLES).tolist()
    record(
        "mlp_mnist",
        what=f"rivals {' '.join(words[:-2])}: classes of {SAMPLES:,} samples, seed 0",
        config=about["config"],
        images=about["images"],
        seconds=about["seconds"],
        images_per_second=round(about["images"] / about["seconds"]),
        alarms_at_the_end=about["alarms"],
        judge_test_accuracy=round(accuracy, 4),
        shares_of_the_digits=[round(share, 4) for share in shares],
        least_share=round(min(shares), 4),
        asked=LEAST,
    )


if __name__ == "__main__":
    main()
