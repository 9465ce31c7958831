"""Sections on adversarial training: robustness for a budget of minutes, cost of a step, overfitting."""

from __future__ import annotations

from benchmarks.sections.section import Result, Row, Section, sorted_entries, split_entry

ATTACKS = {
    "pgd": "PGD-40",
    "autoattack-swift": "AutoAttack swift",
    "autoattack": "AutoAttack",
    "pyautoattack": "pyautoattack",
}


def committed(r: Result) -> Section:
    """The files for others to attack."""
    rows: list[Row] = []
    for name, each in r["models"].items():
        certified = f"{each['certified'] / each['n']:.1%}" if "certified" in each else "-"
        rows.append(
            [
                f"`{name}`",
                each["eps"],
                f"{each['correct'] / each['of']:.1%}",
                f"{each['robust'] / each['n']:.1%}",
                certified,
            ]
        )
    some = next(iter(r["models"].values()))
    return Section(
        title="Classifiers to attack",
        question="Do the files in `benchmarks/models/` do what is said of them?",
        setup=f"Each file is loaded, classifies the {some['of']:,} test images of its data, and is attacked in Linf on "
        f"the {some['n']:,} of them that `rivals attack` samples, by `autoattack-swift`; where it was trained to be "
        "certified, they are certified by IBP too. The result holds the SHA-256 of each file and the hash of its data.",
        header=["file", "eps", "clean", "robust, at most", "certified, at least"],
        rows=rows,
        answer="The command fails if it finds the same file and other figures, by more than 3 images of 1,000.",
        limits="The same attack with more steps, or another, may find more. `cifar10-linf-8-255` was trained on a JPEG "
        "copy of CIFAR-10; all others on the original images.",
    )


def robustness(r: Result) -> Section:
    """Robust accuracy after a fixed time on one thread."""
    rows: list[Row] = []
    for case, entries in r["cases"].items():
        for entry, value in sorted_entries(entries):
            data = f"{case.split('-')[0]}, {entries['eps']}"
            if data.startswith("cifar10") and "data_hash" not in value:  # of before the original images were at hand
                data += ", JPEG copy"
            side, seed = split_entry(entry)
            cells = [f"{value[key]:.1%}" if key in value else "-" for key in ATTACKS]
            size = [f"{value['cpu_minutes']:.0f}", f"{value['images'] // 1000}k"]
            rows.append([data, side, seed, *size, f"{value['clean']:.1%}", *cells])
    return Section(
        title="Adversarial training for a fixed time",
        question="How much robust accuracy do some minutes of one CPU thread buy, with Rivals and with plain loops?",
        setup="Linf. Trainers get the same processor time, network and data, but not the same means: Rivals uses "
        "bf16, Muon "
        "and an EMA, the others float32, one learning rate that was not tuned, and no EMA; `pgd-10` sees less than one "
        "epoch of CIFAR-10. `fgsm-rs` and `pgd-10` are plain PyTorch "
        "loops (Wong et al. 2020, Madry et al. 2018); `art` is ART's Madry trainer. Clean accuracy is on 10,000 test "
        f"images, robust accuracy on {r['n']:,} of them, pyautoattack on the first {r['reference_n']}.",
        header=["data, eps", "trainer", "seed", "min", "images", "clean", *ATTACKS.values()],
        rows=rows,
        answer="Robust accuracy; higher is better. A dash: not measured. Rivals trains with Muon, on CIFAR-10 "
        "by a step of 1.25 eps from N-FGSM's noise (N-FGSM itself steps by eps), on gray images by PGD (on MNIST at "
        "eps 0.32). The 92-minute CIFAR-10 model is wider and averages over horizontal flips. The models with an "
        "AutoAttack result are in `benchmarks/models/`.",
        limits="Small networks and minutes of one CPU thread: published models, larger and trained for longer, are "
        "more robust. The settings of Rivals were chosen by PGD-40 on the test images that are [reported "
        "here](decisions/0008-hardening-in-minutes.md). CIFAR-10 was a JPEG copy. The peers ran with one seed. "
        "The 95% interval of 1,000 images is up to 3 points either way.",
    )


def step_cost(r: Result) -> Section:
    """A training step against the passes it needs."""
    methods = list(next(iter(r["nets"].values())))
    rows = [[net, *(f"{values[method]['ratio']:.2f}" for method in methods)] for net, values in r["nets"].items()]
    measured = [each for values in r["nets"].values() for each in values.values()]
    worst, precisions = max(each["ratio"] for each in measured), {each["precision"] for each in measured}
    return Section(
        title="Overhead of an adversarial training step",
        question=f"Does a step cost at most {r['target']} times the forward and backward passes that its method needs?",
        setup=f"Batch size {r['batch_size']}, {', '.join(sorted(precisions))}. The passes of a step are counted, then "
        "run bare: no projection, data loading, optimizer, EMA or log. Processor time, medians of "
        f"{r['rounds']} rounds in turn.",
        header=["network", *methods],
        rows=rows,
        answer=f"At most **{worst:.2f} times**: {'met' if worst <= r['target'] else 'missed'}.",
        limits="Whether the passes themselves could be faster. On an AMD EPYC, in bf16, an earlier version took at "
        "most 1.05 times; here other programs ran beside it.",
    )


def overfitting(r: Result) -> Section:
    """Runs made to fail."""
    rows: list[Row] = []
    for name, case in zip(("catastrophic", "robust"), r["cases"].values(), strict=True):
        for mode in ("monitored", "unmonitored"):
            side = case[mode]
            final = side["final"]
            robust = f"{final['robust']['value']:.1%} of {final['robust']['of']}" if final else "no model"
            rows.append(
                [
                    f"{name} ({case['data']}, eps {case['eps']:.3g})",
                    "on" if mode == "monitored" else "off",
                    f"**{robust}**" if mode == "monitored" else robust,
                    str(side["rollbacks"]),
                ]
            )
    return Section(
        title="Overfitting in adversarial training",
        question="Are catastrophic and robust overfitting noticed, and does the run end with its best state?",
        setup="Two runs made to fail. Catastrophic (Wong et al. 2020): a robust network trains on with FGSM without a "
        f"random start at a high learning rate. Robust (Rice et al. 2020): many epochs on {r['n_images']:,} images. "
        "Each runs with monitoring and without. The result is measured by PGD-20 on test images that neither has seen.",
        header=["overfitting", "monitoring", "robust accuracy", "rollbacks"],
        rows=rows,
        answer="Both were noticed. Without monitoring the run ends with its last state.",
        limits="Two constructed cases, one seed each, not how often this happens in ordinary runs. Robust overfitting "
        "is reported and the best checkpoint kept; it is not prevented.",
    )
