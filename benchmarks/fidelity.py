"""The same features in: our fidelity metrics against torch-fidelity's and prdc's; the Frechet step's speed; memory.

Features are those of a random layer with ReLU on MNIST's test images (real) and on the same with noise (fake), of
different images; every metric gets the very same ones, in double precision. Where a metric draws subsets, the peer's
formula is given the same draws.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.harness import in_turn, load, record
from rivals.base.rng import generator
from rivals.metrics import (
    density_coverage,
    frechet_distance,
    frechet_of,
    inception_score,
    kid,
    moments_of,
    precision_recall,
)
from rivals.metrics.mmd import subset_indices

FloatArray = npt.NDArray[np.float64]

PEERS = ("torch-fidelity", "prdc", "scipy", "scikit-learn")
WIDTHS = (64, 512)
REAL, FAKE = 4000, 3000
SUBSETS, SIZE = 20, 500
SHARP = 20  # times the features: logits with a score well above 1
ROUNDS, WIDE = 3, 2048
# Images of either set, dimensions, and how many rows are compared: all features are held, and blocks are of one size
# whatever the number of rows, so that few of them reach the same peak within minutes.
MEMORY = ((50_000, 64, 50_000), (50_000, 2048, 20_000))


def layer(images: Tensor, width: int) -> Tensor:
    """Features (n, width) of images (n, 784), float64."""
    weights = torch.randn(images.shape[1], width, generator=generator("layer", width), dtype=torch.float64)
    return (images @ weights / images.shape[1] ** 0.5).relu_()


def sets(width: int) -> tuple[Tensor, Tensor]:
    """Real and fake features."""
    images = torch.from_numpy(load("mnist", split="test").images[: REAL + FAKE]).flatten(1).double() / 255
    noise = torch.randn(FAKE, images.shape[1], generator=generator("noise"), dtype=torch.float64)
    return layer(images[:REAL], width), layer(images[REAL:] + 0.05 * noise, width)


def parity(width: int) -> dict[str, dict[str, float]]:
    """Ours, the peer's, and how far apart, also where our features were rounded to single precision, by metric."""
    from prdc import compute_prdc
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    real, fake = sets(width)
    options = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    picked = subset_indices(len(real), len(fake), SUBSETS, SIZE, seed=0)
    subsets = [metric_kid.kernel_mmd(real[i].numpy(), fake[j].numpy(), kid_kernel="poly", **options) for i, j in picked]
    statistics = [metric_fid.fid_features_to_statistics(each) for each in (real, fake)]
    peers = {
        "Frechet": metric_fid.fid_statistics_to_metric(*statistics, False)[metric_fid.KEY_METRIC_FID],
        "KID": float(np.mean(subsets)),
        "IS": metric_isc.isc_features_to_metric(SHARP * fake, shuffle=False)[metric_isc.KEY_METRIC_ISC_MEAN],
    }
    peers["precision"], peers["recall"] = metric_prc.calculate_precision_recall_full(fake, real)
    balls = compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    peers |= {name: float(balls[name]) for name in ("density", "coverage")}
    double, single = ours(real, fake), ours(real.float(), fake.float())
    return {
        name: {
            **{"ours": double[name], "peer": peer},
            "relative": abs(double[name] - peer) / abs(peer),
            "single_precision": abs(single[name] - peer) / abs(peer),
        }
        for name, peer in peers.items()
    }


def ours(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Our values by metric."""
    found = {
        "Frechet": frechet_of(real, fake),
        "KID": kid(real, fake, SUBSETS, SIZE).value,
        "IS": inception_score(SHARP * fake, logits=True, seed=None).value,
    }
    found["precision"], found["recall"] = precision_recall(real, fake)
    found["density"], found["coverage"] = density_coverage(real, fake)
    return found


def frechet_step() -> dict[str, Any]:
    """Processor seconds of one thread for the distance from means and covariances, against two ways of others.

    pytorch-fid takes scipy's root of the product of the covariances, torch-fidelity numpy's eigenvalues of it.
    """
    from scipy.linalg import sqrtm
    from threadpoolctl import threadpool_limits

    real, fake = (layer(torch.rand(5_000, 784, generator=generator(side), dtype=torch.float64), WIDE) for side in "rf")
    extra = torch.randn(5_000, WIDE, generator=generator("extra"), dtype=torch.float64) * 0.01  # of full rank
    one, two = ((each.mean.numpy(), each.cov.numpy()) for each in map(moments_of, (real + extra, fake * 1.1 + extra)))
    found: dict[str, float] = {}

    def ours() -> float:
        start = time.process_time()
        found["ours"] = frechet_distance(*one, *two)
        return time.process_time() - start

    def theirs(name: str, trace_of_root: Callable[[FloatArray], float]) -> float:
        start = time.process_time()
        difference = one[0] - two[0]
        traces = float(np.trace(one[1]) + np.trace(two[1])) - 2 * trace_of_root(one[1] @ two[1])
        found[name] = float(difference @ difference) + traces
        return time.process_time() - start

    ways: dict[str, Callable[[FloatArray], float]] = {
        "sqrtm": lambda product: float(np.trace(sqrtm(product)).real),
        "eigvals": lambda product: float(np.sqrt(np.linalg.eigvals(product).astype(np.complex128)).real.sum()),
    }
    with threadpool_limits(1):
        seconds = in_turn({"ours": ours} | {name: partial(theirs, name, way) for name, way in ways.items()}, ROUNDS)
    return {
        "dimensions": WIDE,
        "target": {"times": 10, "relative": 1e-6},
        "ratio": {name: round(float(np.median(np.divide(seconds[name], seconds["ours"]))), 2) for name in ways},
        "seconds": seconds,
        "distance": found,
        "relative": {name: abs(found["ours"] - found[name]) / found[name] for name in ways},
    }


_CHILD = """
import time, torch
from pathlib import Path
from rivals.metrics import precision_recall

def peak():  # of this process alone: what getrusage says holds the parent's too
    return next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)

torch.set_num_threads(1)
source = torch.Generator().manual_seed(0)
base = peak()
real, fake = (torch.randn({n}, {d}, generator=source) for _ in range(2))
start = time.process_time()
precision_recall(real[:{rows}], fake[:{rows}])
print(peak(), base, time.process_time() - start)
"""


def memory(n: int, d: int, rows: int) -> dict[str, Any]:
    """The most memory that a process holds which makes float32 features and takes their precision and recall."""
    said = subprocess.run(
        [sys.executable, "-c", _CHILD.format(n=n, d=d, rows=rows)], capture_output=True, text=True, check=True
    )
    kilobytes, base, seconds = map(float, said.stdout.split())
    peak = kilobytes * 1024
    print(f"{n} x {n} of {d}, {rows} compared: {peak / 1e9:.2f} GB, {seconds:.0f} s", flush=True)
    return {
        **{"n": n, "dimensions": d, "rows_compared": rows, "peak_gigabytes": round(peak / 1e9, 2)},
        "of_which": {"imports": round(base * 1024 / 1e9, 2), "features": round(2 * n * d * 4 / 1e9, 2)},
        "processor_seconds": round(seconds),
    }


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    found = {width: parity(width) for width in WIDTHS}
    worst = max(row["relative"] for rows in found.values() for row in rows.values())
    print(f"worst relative difference {worst:.1e}", flush=True)
    record(
        "fidelity",
        peers={name: version(name) for name in PEERS},
        n={"real": REAL, "fake": FAKE},
        target={"relative": 1e-5, "gigabytes": 2},
        parity=found,
        worst=worst,
        worst_in_single_precision=max(row["single_precision"] for rows in found.values() for row in rows.values()),
        frechet=frechet_step(),
        memory=[memory(*case) for case in MEMORY],
    )


if __name__ == "__main__":
    main()
