"""The recipe ``mlp`` on the 60,000 images of MNIST for 20 epochs: no alarm at the end, and all ten digits there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import rivals
from benchmarks.digit_classifier import train_digit_classifier
from benchmarks.harness import RESULTS, record
from rivals.base.run_folder import Run
from rivals.reports.image_grid import make_grid, save_png

SAMPLES, LEAST = 10_000, 0.03


def main() -> None:
    """Train, and count the digits of the samples."""
    out = Path("runs/benchmark-mlp-mnist")
    words = ["train", "mnist", "--recipe", "mlp", "--until", "20 epochs", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "rivals", *words, *(["--resume"] if out.exists() else [])], check=True)
    about = Run.open(out).info
    samples = rivals.load(out).sample(SAMPLES, seed=0)
    shutil.copy(out / "curves.png", RESULTS / "mlp_mnist_curves.png")
    save_png(make_grid(samples[:64].numpy()), RESULTS / "mlp_mnist.png")
    classifier, accuracy = train_digit_classifier()
    shares = (classifier.digits(samples).bincount(minlength=10) / SAMPLES).tolist()
    record(
        "mlp_mnist",
        description=f"rivals {' '.join(words[:-2])}: classes of {SAMPLES:,} samples, seed 0",
        config=about["config"],
        images=about["images"],
        seconds=about["seconds"],
        images_per_second=round(about["images"] / about["seconds"]),
        alarms_at_the_end=about["alarms"],
        classifier_test_accuracy=round(accuracy, 4),
        shares_of_the_digits=[round(share, 4) for share in shares],
        least_share=round(min(shares), 4),
        target=LEAST,
    )


if __name__ == "__main__":
    main()
