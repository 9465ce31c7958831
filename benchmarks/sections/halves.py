"""Sections on what GANs and robustness have in common: AdvGAN, purification."""

from __future__ import annotations

from benchmarks.sections.section import Result, Row, Section


def advgan(r: Result) -> Section:
    """What a generator fools, and its speed beside PGD."""
    rows: list[Row] = []
    for name, case in r["cases"].items():
        for model, judged in case["models"].items():
            own = case.get("robust", {}).get(model)
            shared = f"{own['autoattack']} (generator {own['generator']}) of {own['n']}" if own else "-"
            n = judged["n"]
            cells = [f"{judged['clean'] / n:.2%}", f"{judged['generator'] / n:.2%}", shared]
            rows.append(
                [f"{name}, {case['eps']:.3g}", model + (" (trained on)" if model == case["against"] else ""), *cells]
            )
    ratios = "; ".join(
        f"{name}: {case['speed']['ratio']['pgd']:.0f} times the images/s of PGD-40 with all its steps, "
        f"{case['speed']['ratio']['pgd, stopped when fooled']:.0f} times if it leaves images once they are fooled"
        for name, case in r["cases"].items()
        if "speed" in case
    )
    minutes = ", ".join(f"{name} {case['cpu_minutes']:g} ({case['until']})" for name, case in r["cases"].items())
    return Section(
        title="AdvGAN",
        question="What does a generator fool in one forward pass, what does it cost, and does it transfer?",
        setup="`rivals train --against MODEL`, Linf, judged on all 10,000 test images; accuracy under the attack. "
        "Like PGD, the generator is told the label. "
        "The swift AutoAttack ran on the first images only. Settings were chosen on training images.",
        header=["data, eps", "model", "clean", "under the generator", "left by AutoAttack swift"],
        rows=rows,
        answer=f"Minutes of processor time of training: {minutes}. Speed in processor time, medians of rounds in turn: "
        f"{ratios}.",
        limits="One seed, small classifiers. Without the label a generator fools less ([record 28](decisions/"
        "0028-one-game-five-players.md)). The speed is that of the generator alone, which does not ask the model "
        "whether it was fooled. A dash: AutoAttack was not run. A generator is no evaluation of a robust model.",
    )


def purification(r: Result) -> Section:
    """Naive and honest robust accuracy of purifiers."""
    rows = [
        [
            case["defense"].replace("{gan}", "RUN").replace("{encoder}", "RUN"),
            f"{case['model']}, {case['eps']:.3g}",
            *(f"{case[key]} of {case['n']}" for key in ("clean", "naive", "honest")),
            ", ".join(f"{name} {stage['fooled']}" for name, stage in case["stages"].items()),
        ]
        for case in r["cases"].values()
    ]
    return Section(
        title="Purification, judged from both sides",
        question="How much of the robustness of a purifier is left once the attack sees it?",
        setup=f"`rivals.evaluate(..., defense=...)` on test images, Linf. Naive: `{r['attack']}` on the classifier "
        f"alone. Honest: then PGD-{r['adaptive_steps']} through the purifier (BPDA, surrogate, own gradient, "
        "unrolled) and in the "
        "latent space. "
        f"The generator is an `mlp` trained for {r['gan']['until']}, its encoder for "
        f"{r.get('encoder', '-')}; a randomized defense is judged by ten passes.",
        header=["defense", "model, eps", "clean", "naive", "honest", "fooled by stage"],
        rows=rows,
        answer="; ".join(
            f"{name}: {case['honest'] / max(1, case['naive']):.0%} of the naive figure is left"
            for name, case in r["cases"].items()
        )
        + ".",
        limits="An honest figure is still an upper bound. One seed, one generator; published Defense-GANs take more "
        "steps and restarts. Measured before the defense `jpeg` rounded Y, Cb and Cr to bytes, and before attacks on "
        "randomized models were mended: they can only be stronger now.",
    )


SIDES = {"robgan": "Rob-GAN, all of the minutes", "gan": "`train` alone, half", "harden": "`harden` alone, half"}


def robgan(r: Result) -> Section:
    """One network for two tasks, beside two networks."""
    rows: list[Row] = []
    for side, found in r["sides"].items():
        shares = [f"{found['clean']:.1%}", _share(found["robust"])] if "robust" in found else ["-", "-"]
        scores = f"{found['fd_lite0']:.1f}" if "fd_lite0" in found else "-"
        rows.append([SIDES[side], f"{found['processor_minutes']:g}", f"{found['images'] // 1000}k", *shares, scores])
    sides = r["sides"]
    answer = "Not all sides are measured."
    if len(sides) == len(SIDES):
        robust = sides["robgan"]["robust"]["value"] - sides["harden"]["robust"]["value"]
        fd = sides["robgan"]["fd_lite0"] / sides["gan"]["fd_lite0"]
        answer = f"Robust accuracy {100 * robust:+.1f} points, FD-lite0 {fd:.2f} times that of the sides apart."
    return Section(
        title="Rob-GAN",
        question="Does one network for two tasks do as well as two networks that share its minutes?",
        setup=f"CIFAR-10, Linf 8/255, {r['minutes']:g} minutes of processor time of one thread for Rob-GAN, half of "
        f"them for each of the others, all with their recipes. Robust accuracy under `{r['attack']}` as published, "
        "1,000 test images, with 95% intervals; FD-lite0 of 10,000 images against 10,000.",
        header=["side", "min", "images", "clean", "robust", "FD-lite0"],
        rows=rows,
        answer=answer,
        limits="One seed, minutes of a small machine: the paper trains for days.",
    )


def learned_attack(r: Result) -> Section:
    """Adversarial training against a generator, and against PGD."""
    rows: list[Row] = []
    for found in r["sides"].values():
        size = [f"{found['processor_minutes']:g}", f"{found['images'] // 1000}k"]
        shares = [f"{found['clean']:.1%}", _share(found["under_generator"]), _share(found["robust"])]
        rows.append([f"`--method {found['method']}`", *size, *shares])
    gan, pgd = (r["sides"][side]["robust"]["value"] for side in ("gan", "pgd"))
    return Section(
        title="A generator as the attack of adversarial training",
        question="Does a classifier that trains against a generator, which learns as well, become as robust as one "
        "that trains against PGD for equal minutes?",
        setup=f"MNIST, Linf {r['eps']:g}, as many images as a probe found for {r['minutes']:g} minutes of processor "
        f"time of one thread, both with their recipes. {r['n']:,} test images, with 95% intervals: under a generator "
        f"that is then trained against each classifier, and under `{r['attack']}`.",
        header=["training", "min", "images", "clean", "under a new generator", f"under {r['attack']}"],
        rows=rows,
        answer=f"{100 * (gan - pgd):+.1f} points of robust accuracy against training by PGD.",
        limits="One seed, one data set, a few minutes.",
    )


def generated(r: Result) -> Section:
    """Hardening with and without images of our own generator."""
    rows: list[Row] = []
    for key, found in r["sides"].items():
        side, seed = key.split()
        share = f"{side}, {found['share']:.0%} of a batch" if found["share"] else side
        size = [f"{found['processor_minutes']:g}", f"{found['images'] // 1000}k"]
        rows.append([share, seed, *size, f"{found['clean']:.1%}", _share(found["robust"])])
    pairs = [
        found["robust"]["value"] - r["sides"][key.replace("with ", "without ")]["robust"]["value"]
        for key, found in r["sides"].items()
        if key.startswith("with ")
    ]
    gained = ", ".join(f"{100 * value:+.1f}" for value in pairs) or "not measured"
    mean = f" (mean {100 * sum(pairs) / len(pairs):+.1f})" if pairs else ""
    sweep = ", ".join(f"{trial['share']:.0%}: {trial['robust_held_out']:.1%}" for trial in r["sweep"])
    made = r["generator"]
    return Section(
        title="Generators that teach",
        question="Does hardening gain from the images of our own conditional generator, at equal minutes?",
        setup="CIFAR-10, Linf 8/255, `rivals harden` with its recipe, with `--extra RUN` or without, as many images "
        f"as a probe found for {r['minutes']:g} processor minutes of one thread. Those of the generator come on top: "
        f"{made['processor_minutes']:g}, FD-lite0 {made['fd_lite0']:g}. Robust accuracy under `{r['attack']}`, "
        f"{r['n']} test images, with 95% intervals. The share was chosen by robust accuracy on training images kept "
        f"aside, after short runs ({sweep}).",
        header=["generated images", "seed", "min", "images", "clean", "robust"],
        rows=rows,
        answer=f"Points of robust accuracy gained, by seed: {gained}{mean}.",
        limits="One generator, labels as it was asked for them, no filter. By its own probe a side with generated "
        "images saw 5% to 7% fewer, and it also spent 3% to 8% fewer minutes. The intervals overlap in every seed.",
    )


def _share(proportion: Result) -> str:
    return f"{proportion['value']:.1%} ({proportion['low']:.1%} to {proportion['high']:.1%})"
