"""Sections on metrics: agreement with reference implementations, bounds where the truth is known."""

from __future__ import annotations

from benchmarks.sections.section import Result, Section


def fidelity(r: Result) -> Section:
    """Fidelity metrics against the peers."""
    step = r["frechet"]
    dims = list(r["parity"])
    rows = [
        [metric, *(f"{r['parity'][d][metric]['relative']:.0e}" for d in dims)]
        for metric in next(iter(r["parity"].values()))
    ]
    memory = "; ".join(
        f"{m['n']:,} x {m['n']:,} at {m['dimensions']} dimensions **{m['peak_gigabytes']} GB**"
        + (f" (all features in memory, {m['rows_compared']:,} rows compared)" if m["rows_compared"] < m["n"] else "")
        for m in r["memory"]
    )
    return Section(
        title="Agreement of fidelity metrics",
        question="Do the metrics equal torch-fidelity's and prdc's on the same features, to "
        f"{r['target']['relative']:g}? Is the Fréchet distance {step['target']['times']} times as fast as with "
        "`scipy.linalg.sqrtm`, as in pytorch-fid, and how does it compare with `numpy.linalg.eigvals`, as in "
        f"torch-fidelity? Do precision and recall need less than {r['target']['gigabytes']} GB?",
        setup=f"{r['n']['real']:,} real and {r['n']['fake']:,} fake feature vectors: a random ReLU layer on MNIST test "
        "images, clean and with noise, in double precision.",
        header=["relative difference", *(f"{d} dimensions" for d in dims)],
        rows=rows,
        answer=f"Largest difference **{r['worst']:.0e}**. Fréchet distance at {step['dimensions']:,} dimensions: "
        f"**{step['ratio']['sqrtm']:.1f} times** as fast in processor time as by `sqrtm`, differing by "
        f"{step['relative']['sqrtm']:.0e}, and **{step['ratio']['eigvals']:.1f} times** as fast as by `eigvals`, "
        f"differing by {step['relative']['eigvals']:.0e}. Peak memory of precision and recall: {memory}.",
        limits="Agreement on equal features only. Resizing and the feature network, where published values most often "
        "differ, are not part of it. The peers use all threads, and here each side has one.",
    )


def equilibrium(r: Result) -> Section:
    """Bounds where the truth is known."""
    low, high = r["gaps_of_the_truth"]
    rows = []
    for name, case in r["cases"].items():
        bounds = [run["bound"] for run in case["seeds"]]
        lower = min(run["bound_low"] for run in case["seeds"])
        rows.append([name, f"{case['truth']:.4f}", f"{min(bounds):.4f} to {max(bounds):.4f}", f"{lower:.4f}"])
    return Section(
        title="Bounds on the Jensen-Shannon divergence",
        question="Is the bound never above the true JSD, and with a trained discriminator within "
        f"{r['tolerance']:.0%} of it? The same for the duality gap.",
        setup="Five pairs of distributions with a known JSD, 3 seeds each. The discriminator has two hidden layers of "
        "64 units, trains for 1,500 steps of 256 fresh points, and is evaluated on 50,000 others every 100 steps.",
        header=["distributions", "true JSD (nats)", "bound of the trained D", "lowest 95% lower end"],
        rows=rows,
        answer=f"The lower end of the interval is above the truth in **{r['evaluations_surely_above_the_truth']}** of "
        f"{r['evaluations']} evaluations. Bounds and duality gaps of trained discriminators are **{low:.3f} to "
        f"{high:.3f}** of the truth.",
        limits="Images. With a discriminator far from optimal the bound can be far below the truth.",
    )
