"""The section on image translation."""

from __future__ import annotations

from benchmarks.sections.section import Result, Row, Section

VALUES = {"psnr": "PSNR, dB", "ssim": "SSIM", "PD-lite0": "PD-lite0", "FD-lite0": "FD-lite0"}
VALUES |= {"structure-lite0": "structure-lite0"}
TITLES = {"upscale": "16 to 32 px", "color": "gray to color", "edges": "edges to images", "unpaired": "unpaired"}


def translation(r: Result) -> Section:
    """Adversarial translators beside the same networks by L1 alone."""
    rows: list[Row] = []
    answers = []
    for case in r["cases"].values():
        what = f"{TITLES[case['part']]}, {case['minutes']:g} minutes{', busy machine' if case['busy'] else ''}"
        for side, values in case["sides"].items():
            cells = [f"{values[key]:.4g}" if key in values else "-" for key in VALUES]
            rows.append([what, side, _seen(values), *cells])
        answers.append(_answer(case))
    return Section(
        title="Image translation",
        question="What does a discriminator add to a translator that learns by L1 alone, in the same minutes?",
        setup="CIFAR-10, minutes of processor time of one thread a side. Both sides are `rivals translate` with the "
        "same network, one with `--gan-weight 0` and a learning rate and a beta1 of its own: the best of a few by PSNR "
        "on training images that no side trains on, after a short part of the minutes each, which are not taken off "
        "its training. To enlarge, the network is the default, and the adversarial side has a narrower "
        "discriminator and the distance in the features of a classifier, too. For colors and edges it is a U-Net of "
        "16-32-64-128 channels, for colors without residual blocks, against a discriminator that sees the whole "
        "image, with weights of 0.03 and 0.06; for edges the adversarial side learns by L1 alone for a quarter of its "
        "minutes, and then also has the distance in the features of the classifier. Without pairs a ResNet of "
        "16-32-64 channels with 2 blocks has such a discriminator, and PatchNCE and identity weights of 0.3. All "
        "this was chosen by short trials on training images (`docs/decisions/0037`). Judged once on test images "
        "(unpaired: those of one class). PD-lite0 is a perceptual distance in the form of LPIPS with unit weights;"
        " FD-lite0 is between outputs and targets; structure-lite0 says how well outputs keep the structure of "
        "their inputs (1 at best). None was used in training.",
        header=["task", "side", "images seen", *VALUES.values()],
        rows=rows,
        answer=" ".join(answers),
        limits="One seed. 32 px images. To enlarge and from edges, what the classifier's features do without a "
        "discriminator. Of edges the test images had been judged once before, with a weight of 1: FD-lite0 "
        "614 after 8 minutes; those without pairs with the same settings, after 8 and 20 minutes: 625 and 777 "
        "of 1,000, and got more minutes for it. On a busy machine a minute of processor time is worth less. "
        "PSNR and SSIM favor L1, which is trained on the mean. The rate for L1 is chosen after short runs, "
        "which favor high ones; that of the adversarial side was not chosen in the same way, but by a few "
        "first tries. Without pairs the classifier says how many images have features of the target class, "
        "not how good they look: FD-lite0 and the picture do.",
        images=[(f"{TITLES[case['part']]}: {_columns(case)}", case["picture"]) for case in r["cases"].values()],
    )


def _seen(values: Result) -> str:
    """The images that a side has seen, by L1 alone at first if it began so."""
    if "images" not in values:
        return "-"
    first = f"{values['first_by_l1']['images']:,} + " if "first_by_l1" in values else ""
    return f"{first}{values['images']:,}"


def _columns(case: Result) -> str:
    """What the columns of a picture are."""
    if case["part"] == "unpaired":
        return "inputs, each with its output on the right"
    return ", ".join(["input", *case["sides"], "target"])


def _answer(case: Result) -> str:
    name, sides = TITLES[case["part"]], case["sides"]
    if case["part"] == "unpaired":
        own = sides["cut"]
        return (
            f"{name.capitalize()}, {case['from']} to {case['to']}: an independent classifier sees the target class in "
            f"{own['target_class_after']} of {case['n']} images, and saw it in {own['target_class_before']} before."
        )
    ours, l1 = sides["adversarial"], sides["l1"]
    swept, chosen = case["l1_sweep"], l1["settings"]
    return (
        f"For L1 alone a learning rate of {chosen['generator_lr']} and beta1 {chosen['beta1']:g} were the best of "
        f"{len(swept['trials'])} after {swept['minutes_each']:g} minutes each. "
        f"{name.capitalize()}: FD-lite0 is {ours['FD-lite0'] / l1['FD-lite0']:.2f} of that by L1 alone, PD-lite0 "
        f"{ours['PD-lite0'] / l1['PD-lite0']:.2f}, and PSNR {l1['psnr'] - ours['psnr']:.2f} dB lower."
    )
