"""Sections on single options of a GAN, at equal minutes of processor time."""

from __future__ import annotations

from math import log
from statistics import fmean, median

from benchmarks.sections.section import Result, Row, Section

FD = "FD-lite0"


def conditional(r: Result) -> Section:
    """With classes and without."""
    rows: list[Row] = []
    answers: list[str] = []
    for case in r["cases"].values():
        for run, found in sorted(case["runs"].items()):
            side, _, seed = run.rpartition(" ")
            widths = "-".join(map(str, found["settings"]["generator_widths"]))
            agreement = f"{found['agreement']:.1%}" if "agreement" in found else "-"
            cells = [widths, f"{found['images'] // 1000}k", f"{found[FD]:.1f}", agreement]
            rows.append([f"{side}, {_minutes(case)}", seed, *cells])
        answers.append(_conditional_answer(case, r["target"]))
    return Section(
        title="Conditional and unconditional",
        question="After equal minutes, does `--conditional` lower FD-lite0 on CIFAR-10, and does an independent "
        f"classifier see the class that was asked for in more than {r['target']:.0%} of the images?",
        setup="`rivals train cifar10 --recipe auto`, minutes of processor time of one thread; each side has the "
        f"networks that `auto` fits at its speed. {_n(r['cases'])} generated images against as many test images, which "
        f"are read when all runs are trained. The classifier is `{r['judge']}`.",
        header=["side", "seed", "generator", "images", "FD-lite0 (lower is better)", "class agreement"],
        rows=rows,
        answer=" ".join(answers),
        limits="The classifier errs on real images, too, so that agreement is no share of good images. Training was in "
        "bf16 on a processor where float32 would have seen a third more images in these minutes. FD-lite0 is not FID.",
        images=[
            (f"a column for each class, {case['minutes']:g} minutes, seed 0", case["picture"])
            for case in r["cases"].values()
        ],
    )


def _conditional_answer(case: Result, target: float) -> str:
    found: dict[str, list[Result]] = {"conditional": [], "unconditional": []}
    for run, facts in case["runs"].items():
        found[run.rpartition(" ")[0]].append(facts)
    means = {side: fmean(facts[FD] for facts in runs) for side, runs in found.items()}
    agreements = [facts["agreement"] for facts in found["conditional"]]
    ranges = {side: f"{min(f[FD] for f in runs):.1f} to {max(f[FD] for f in runs):.1f}" for side, runs in found.items()}
    return (
        f"{case['minutes']:g} minutes, {len(agreements)} seed{'s' if len(agreements) > 1 else ''}: mean FD-lite0 "
        f"**{means['conditional']:.1f}** with classes ({ranges['conditional']}) and "
        f"**{means['unconditional']:.1f}** without ({ranges['unconditional']}); the target is "
        f"{'met' if means['conditional'] < means['unconditional'] else 'missed'}. Class agreement "
        f"**{fmean(agreements):.1%}** (the target of {target:.0%} is "
        f"{'met' if min(agreements) > target else 'missed'}); on the real test images the classifier sees the right "
        f"class in {case['judge_accuracy_on_test_images']:.1%}."
    )


def fine_tuning(r: Result) -> Section:
    """Few images of one class, with the weights of a GAN of the others and without."""
    rows: list[Row] = []
    answers: list[str] = []
    for case in r["cases"].values():
        for side, found in case["sides"].items():
            images = f"{found['images'] // 1000}k"
            rows.append([f"{side}, {_minutes(case)}", images, f"{found['processor_minutes']:g}", f"{found[FD]:.1f}"])
        fd = {side: found[FD] for side, found in case["sides"].items()}
        sweep = case["sweep"]
        answers.append(
            f"After {case['minutes']:g} minutes, FD-lite0 of the fine-tuned generator is "
            f"**{fd['fine-tuned'] / fd['from scratch']:.2f} times** that from scratch, and "
            f"{fd['fine-tuned'] / fd['from scratch, all minutes']:.2f} times that from scratch with the "
            f"{case['pretraining_minutes']:g} minutes of the pretraining as well. Of "
            f"{', '.join(str(trial['freeze_d']) for trial in sweep['trials'])} frozen blocks {sweep['freeze_d']} did "
            f"best after {sweep['minutes_each']:g} minutes each, on {sweep['kept_aside']:,} training images of the "
            f"class that no side trains on. The {r['count']} training images themselves are at "
            f"{case['FD-lite0_of_the_training_images']:.1f}."
        )
    case = [*r["cases"].values()][-1]
    return Section(
        title="Fine-tuning on few images",
        question=f"On {r['count']} images, is a generator better that starts at the weights of another one (`--weights "
        "RUN --freeze-d K`) than one from scratch, in equal minutes?",
        setup=f"{r['count']} training images of CIFAR-10's class {r['class_name']}; the other GAN was trained on the "
        f"other nine classes for {case['pretraining_minutes']:g} minutes. Recipe `auto`, minutes of processor time of "
        f"one thread. {case['n']:,} generated images against the {case['n_real']:,} test images of the class, which "
        "are read when all sides are trained.",
        header=["side", "images", "processor minutes with start and report", "FD-lite0 (lower is better)"],
        rows=rows,
        answer=" ".join(answers),
        limits="One seed, one class, and a pretraining on images of the same kind. FD-lite0 to 1,000 images is biased "
        "upward, for all sides alike; it does not show whether training images were memorized.",
        images=[
            (f"{side}, {case['minutes']:g} minutes", f"fine_tuning_{found['picture']}")
            for case in r["cases"].values()
            for side, found in case["sides"].items()
        ],
    )


def on_dirac(r: Result) -> Section | None:
    """Where the dynamics are known."""
    found = r["dirac"]
    if not found:
        return None
    rows: list[Row] = []
    slowest: dict[int, float] = {}  # by batch size
    for case in found["cases"]:
        differences = sorted(case["differences"])
        rate = log(differences[-1]) / log(case["exact"])  # both from a distance of 1
        slowest[case["batch"]] = min(rate, slowest.get(case["batch"], rate))
        spread = f"{median(differences):.1e} ({differences[0]:.1e} to {differences[-1]:.1e})"
        setting = [f"{case['gamma']:g}", str(case["dimensions"]), str(case["batch"])]
        rows.append([*setting, f"{case['exact']:.1e}", spread])
    return Section(
        title="R1 by a finite difference: the Dirac-GAN",
        question="Does the finite difference make the Dirac-GAN converge as exact R1 does?",
        setup=f"Simultaneous gradient descent, non-saturating loss, {found['steps']:,} steps at a learning rate "
        f"of {found['learning_rate']:g}, from a distance of 1; {found['seeds']} seeds. Exact R1 depends on neither the "
        "batch nor the seed.",
        header=["gamma", "dimensions", "batch size", "distance, exact R1", "distance, finite difference"],
        rows=rows,
        answer="By the logarithm of its distance, the slowest run approaches the equilibrium "
        + " and ".join(f"**{rate:.2f} times** as fast at batch size {batch}" for batch, rate in slowest.items())
        + " as with exact R1. The noise of one direction an image grows with the dimensions and falls with the batch.",
        limits="The discriminator is linear, so only the noise of the direction is seen, and not the curvature. Images "
        "have more dimensions.",
    )


def on_cifar10(r: Result) -> Section | None:
    """Images and speed."""
    if not r["cifar10"]:
        return None
    rows: list[Row] = []
    answers: list[str] = []
    for case in r["cifar10"].values():
        speeds = case["images_per_processor_second"]
        for run, found in sorted(case["runs"].items()):
            side, _, seed = run.rpartition(" ")
            cells = [f"{median(per_second[side]):.0f}" for per_second in speeds.values()]
            rows.append([f"{side}, {_minutes(case)}", seed, f"{found['images'] // 1000}k", *cells, f"{found[FD]:.1f}"])
        fd = {
            side: fmean(found[FD] for run, found in case["runs"].items() if run.rpartition(" ")[0] == side)
            for side in ("exact", "finite difference")
        }
        ratios = case["speed_ratios"]
        answers.append(
            f"After {case['minutes']:g} minutes FD-lite0 is **{fd['finite difference']:.1f}** with finite differences "
            f"and **{fd['exact']:.1f}** with exact penalties. Finite differences are **{ratios['8']:.2f} times** as "
            f"fast with penalties on every eighth step, and {ratios['1']:.2f} times with penalties on every step "
            "(median of paired rounds)."
        )
    return Section(
        title="R1 by a finite difference: CIFAR-10",
        question="After equal minutes, are images as good with `--fd-r1` and `--fd-r2` as with `--r1` and `--r2`, and "
        "are steps faster?",
        setup=f"Recipe `auto`, all gammas {r['gamma']}, the same networks on both sides, minutes of processor time of "
        f"one thread, nothing compiled. FD-lite0 of {_n(r['cifar10'])} generated images against as many test images, "
        "which are read when all runs are trained.",
        header=["side", "seed", "images", "images/s, lazy", "images/s, every step", "FD-lite0 (lower is better)"],
        rows=rows,
        answer=" ".join(answers),
        limits="A few minutes, small networks and no accelerator: what `--compile` gains there is not measured. "
        "FD-lite0 is not FID. How far runs of other seeds differ is seen only where there are several.",
    )


def critic_part(r: Result) -> Section:
    """An autoencoder with a critic and without."""
    rows: list[Row] = []
    answers: list[str] = []
    for case in r["cases"].values():
        for side, found in case["sides"].items():
            name = f"{side} critic, {_minutes(case)}"
            rows.append([name, f"{found['images'] // 1000}k", f"{found[FD]:.1f}", f"{found['mse']:.5f}"])
        answers.append(_critic_answer(case, r["targets"]))
    most_fd, most_mse = r["targets"]["most_fd"], r["targets"]["most_mse"]
    return Section(
        title="A critic in a loop of your own",
        question=f"Does `rivals.Critic` lower FD-lite0 of an autoencoder's outputs to {most_fd:g} of that without it, "
        f"at a squared error of at most {most_mse:g} times, in the same minutes?",
        setup="CIFAR-10, an autoencoder to 256 numbers an image, a twelfth, trained by squared error and Adam in a "
        "plain loop, with VQGAN's adaptive weight and a relativistic discriminator of patches on one side, which sees "
        "the original beside; minutes of processor time of one thread a side. "
        f"Settings are chosen by short runs on training images that no side trains on. Judged once on "
        f"{_n(r['cases'])} test images, outputs against the images themselves.",
        header=["side", "images seen", "FD-lite0 (lower is better)", "squared error"],
        rows=rows,
        answer=" ".join(answers),
        limits="One seed, one small autoencoder, 32 px. The learning rate is that of the side without a critic. "
        "Short runs favor high learning rates. FD-lite0 is not FID.",
        images=[
            (f"input, without, with a critic; {case['minutes']:g} minutes", case["picture"])
            for case in r["cases"].values()
        ],
    )


def _critic_answer(case: Result, targets: Result) -> str:
    chosen, trials = case["sides"]["with"], case["sweep"]["trials"]
    fd, mse = case["ratio_of_fd"], case["ratio_of_mse"]
    rates = len([trial for trial in trials if "weight" not in trial])
    return (
        f"After {case['minutes']:g} minutes FD-lite0 is **{fd:.2f} times** that without a critic (target: "
        f"{'met' if fd <= targets['most_fd'] else 'missed'}) and the squared error **{mse:.2f} times** (target: "
        f"{'met' if mse <= targets['most_mse'] else 'missed'}). A learning rate of {chosen['learning_rate']:g} was the "
        f"best of {rates}, and a critic from {chosen['start']:.0%} of the minutes on with weight {chosen['weight']:g} "
        f"of {len(trials) - rates}, after {case['sweep']['minutes_each']:g} minutes each."
    )


def _n(cases: Result) -> str:
    """The numbers of images of the cases."""
    return " or ".join(f"{n:,}" for n in sorted({case["n"] for case in cases.values()}))


def _minutes(case: Result) -> str:
    return f"{case['minutes']:g} min{', busy machine' if case['busy'] else ''}"
