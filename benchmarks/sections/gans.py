"""Sections on GANs: image quality for a budget of minutes, mode coverage, small data, speed."""

from __future__ import annotations

from statistics import median

from benchmarks.sections.section import Result, Row, Section, sorted_entries, split_entry


def image_quality(r: Result) -> Section:
    """FD and precision/recall after a fixed time on one thread."""
    rows: list[Row] = []
    keys = ("fd", "precision", "recall")
    for case, entries in r["cases"].items():
        time = f"{case.split('-')[0]}, {entries['minutes']:g} min"
        for entry, value in sorted_entries(entries):
            side, seed = split_entry(entry)
            cells = [f"{value[key]:.4g}" if key in value else "-" for key in keys]
            rows.append([time, side, seed, f"{value['images'] // 1000}k", *cells])
    return Section(
        title="Image quality for a fixed time",
        question="After equal time on one thread, is FD-lite0 on CIFAR-10 at most half the best peer's? Are precision "
        "and recall on MNIST and Fashion-MNIST above 0.75?",
        setup=f"Recipe `auto` with nothing else set, against a plain DCGAN loop, torchgan's DCGAN and torch-mimicry's "
        f"SNGAN. {r['n']:,} generated against as many training images. FD-lite0: Fréchet distance on features of "
        "EfficientNet-Lite0. Precision and recall: features of a classifier of the data set, k = 3.",
        header=["data, time", "trainer", "seed", "images", "FD-lite0 (lower is better)", "precision", "recall"],
        rows=rows,
        answer="A dash: not measured. Rivals is timed by the clock, the peers by processor time. Evaluation is not "
        "counted.",
        limits="FD-lite0 is not FID and compares with no published value. Rivals uses bf16, an EMA and rates that were "
        "chosen on this distance; the peers float32, one seed, their own rate and no EMA, and torch-mimicry saw 10,240 "
        "images. Seed 0 on CIFAR-10, the 120 minutes and the run on Fashion-MNIST are among those by which `auto` was "
        "designed. CIFAR-10 was a JPEG copy.",
        images=[
            ("CIFAR-10, 20 minutes", "gan_quality_cifar10-10_ours_1.png"),
            ("CIFAR-10, 120 minutes", "gan_quality_cifar10-60_ours_0.png"),
            ("CIFAR-10, plain DCGAN loop, 120 minutes", "gan_quality_cifar10-60_dcgan_0.png"),
        ],
    )


def default_recipe(r: Result) -> Section:
    """Why the default is the default."""
    ranked = sorted(r["recipes"].items(), key=lambda item: float(item[1]["fd_classifier"]))
    rows = [
        [
            f"`{recipe}`",
            f"{row['fd_classifier']:.0f}",
            f"{row['rarest_digit']:.1%}",
            f"{row['images']:,}",
        ]
        for recipe, row in ranked
    ]
    return Section(
        title="The default recipe",
        question="Which recipe gives the best digits in the demo's time?",
        setup="`mnist5k`, 8 minutes of one thread (the demo takes 4 minutes of two cores). FD-classifier: Fréchet "
        "distance on features of an MNIST classifier, 5,000 samples against the MNIST test set.",
        header=["recipe", "FD-classifier (lower is better)", "rarest digit", "images seen"],
        rows=rows,
        answer=f"**`{r['best']}`**. The training images themselves are at {r['the_training_images_themselves']:.0f}.",
        limits="One seed. `sngan` and `r3` are too slow per step for this time, `mlp` and `mlp-classic` clearly worse; "
        "none of the four was run.",
    )


def small_data(r: Result) -> Section:
    """Few images, with augmentation and without."""
    rows = [
        [
            f"`--augment {side['augment']}`",
            ", ".join(side["raised"]) or "none",
            f"{side['r_v']:.2f}",
            f"{side['diversity']:.0%}",
            f"{side['fd']:.0f}",
            f"{side['precision']:.2f}",
            f"{side['recall']:.2f}",
            f"{side['authenticity']:.1%}",
        ]
        for side in r["sides"].values()
    ]
    return Section(
        title="Small data",
        question="On 500 images, does the augmentation that `auto` chooses prevent discriminator overfitting?",
        setup=f"{r['description']}; another 100 are held out. Google's Noto emoji (Apache-2.0) on white, recipe "
        "`auto`.",
        header=["setting", "alarms", "r_v", "diversity", "FD-lite0", "precision", "recall", "authenticity"],
        rows=rows,
        answer="With it no alarm; without it the discriminator overfits and the samples lose diversity.",
        limits="One seed and one data set. FD-lite0 of so few images is biased. The samples are poor either way: "
        "500 images and 40 minutes are little. "
        "Authenticity near 100% does not prove that nothing was memorized. Measured when `diff` filled shifts with "
        "black; it is mid-gray now, as published.",
        images=[
            ("with the chosen augmentation", "small_data_as_it_chooses.png"),
            ("without augmentation", "small_data_without_augmentation.png"),
        ],
    )


def checkerboard(r: Result) -> Section:
    """The spectrum at 64 px, by upsampling."""
    rows = []
    for entry, side in r["sides"].items():
        upsample, seed = entry.split()
        ratio = side["power_ratio"]
        middle = ratio[: 3 * len(ratio) // 4]
        powers = [f"{sum(middle) / len(middle):.2f}", f"{ratio[-2]:.2f}", f"{ratio[-1]:.2f}"]
        rows.append([f"`{upsample}`", seed, f"{side['images'] // 1000}k", *powers, f"{side['fd_lite0']:.0f}"])
    best, worst = (
        [side["power_ratio"][-1] for entry, side in r["sides"].items() if entry.startswith(upsample)]
        for upsample in ("nearest", "transposed")
    )
    return Section(
        title="The checkerboard of transposed convolutions",
        question="Have images of 64 px as much power at the finest frequency as real ones, with each upsampling?",
        setup=f"Google's Noto emoji with alpha (Apache-2.0, npm's `{r['data']}`), {r['minutes']:g} minutes of "
        "processor time of one thread, recipe `auto` with `--generator-upsample` and equal widths. Power of "
        f"{r['n']:,} generated images over that of as many training images, by periods per side, the larger of the two "
        "directions: the mean from 1 to 24, at 31, and at 32, which is one pixel light and one dark. FD-lite0 of 2,000 "
        "against 2,000 training images.",
        header=["upsampling", "seed", "images", "1 to 24", "31", "32", "FD-lite0 (lower is better)"],
        rows=rows,
        answer=f"At the finest frequency {min(best):.2f} to {max(best):.2f} times the power of real images with "
        f"`nearest`, {min(worst):.2f} to {max(worst):.2f} times with `transposed`.",
        limits="One data set, a few minutes: the pictures are far from finished. At 32 px, where transposed "
        "convolutions had 1.2 times the power after 20 minutes on CIFAR-10, `nearest` was not measured.",
        images=[(f"`{side}`, seed 0", f"checkerboard_{side}.png") for side in ("transposed", "nearest")],
    )


def mlp_mnist(r: Result) -> Section:
    """Ten digits by fully connected layers."""
    shares = r["shares_of_the_digits"]
    alarms = ", ".join(alarm["alarm"] for alarm in r["alarms_at_the_end"]) or "no alarm"
    return Section(
        title="Fully connected GAN on MNIST",
        question=f"Does recipe `mlp` end without an alarm, with each digit above {r['target']:.0%} of the samples?",
        setup="20 epochs on 60,000 images, seed 0; 10,000 samples, labeled by a classifier with "
        f"{r['classifier_test_accuracy']:.2%} test accuracy. {r['seconds'] / 60:.0f} minutes.",
        header=["digit", *(str(digit) for digit in range(len(shares)))],
        rows=[["share", *(f"{share:.1%}" for share in shares)]],
        answer=f"**{alarms[0].upper()}{alarms[1:]}** at the end; the rarest digit has **{r['least_share']:.1%}**.",
        limits="One seed. Shares say that no class is missing, not that the samples are good.",
        images=[
            ("64 samples", "mlp_mnist.png"),
            ("losses, mean discriminator outputs and gradient norms", "mlp_mnist_curves.png"),
        ],
    )


def stacked_mnist(r: Result) -> Section:
    """The modes of two recipes."""
    rows = [
        [
            f"`{recipe}`",
            f"**{row['found']:,}** of 1,000",
            f"{row['kl']:.3f}",
            f"{row['floor']:.3f}",
            f"{row['images']:,}",
        ]
        for recipe, row in r["recipes"].items()
    ]
    return Section(
        title="Mode coverage on stacked MNIST",
        question=f"Does `r3` generate at least {r['target']} of the 1,000 modes?",
        setup="60 minutes of one thread each; 26,000 samples, labeled by a digit classifier with "
        f"{r['classifier_test_accuracy']:.2%} test accuracy. `r3` has narrow networks and a high learning rate here. "
        "KL: divergence of the mode shares from the data's; the next column is what a perfect generator has by chance.",
        header=["recipe", "modes", "KL", "KL of a perfect generator", "images seen"],
        rows=rows,
        answer="Both generate all modes, so the count does not tell them apart; `dcgan` has the smaller KL, and "
        "neither "
        "the right shares.",
        limits="One seed. Only the settings of `r3` were changed from the recipe's. The 99 modes often quoted "
        "for DCGAN come from other networks and training lengths and do not "
        f"compare. The classifier adds little: on 10,000 real images KL is {r['real_test_images']['kl']:.3f}, by "
        f"chance {r['real_test_images']['floor']:.3f}.",
        images=[("samples of r3", "stacked_mnist_r3.png"), ("samples of dcgan", "stacked_mnist_dcgan.png")],
    )


def classic_speed(r: Result) -> Section:
    """The game of introductory articles against a plain loop."""
    speeds = {side: median(values) for side, values in r["images_per_second"].items()}
    ours, plain = speeds["ours"], [value for side, value in speeds.items() if side.startswith("plain")]
    names = {"ours": "**Rivals**, `play`", "rivals train": "**Rivals**, `rivals train`, by the run's own seconds"}
    rows = [[names.get(side, side), f"{value:.0f}"] for side, value in speeds.items()]
    per_round = r["images_per_second"]
    beside = [whole / bare for whole, bare in zip(per_round["rivals train"], per_round["ours"], strict=True)]
    from_start = f"{median(r['images_per_second_from_start_to_exit']):.0f}"
    rows.insert(2, ["**Rivals**, `rivals train`, from start to exit", from_start])
    for workers, values in r["plain_images_per_second_from_start_to_exit"].items():
        rows.append([f"plain, {workers} workers, from start to exit", f"{median(values):.0f}"])
    return Section(
        title="Training speed: fully connected GAN",
        question=f"Is `mlp-classic` at least {r['target']} times as fast as the usual PyTorch loop?",
        setup="CIFAR-10, batch size 100, the same layers and threads. The plain loop uses per-image transforms in a "
        "DataLoader, two discriminator passes and unfused Adam. `play` includes logging and alarms; the command, of "
        "20,000 images, also sample grids, evaluations on held-out images and checkpoints. From start to exit both "
        "count imports and reading the data, the command also its report.",
        header=["side", "images/s (median)"],
        rows=rows,
        answer=f"**{r['ratio_to_the_better_plain_loop']:.2f} times** the better plain loop (median of {r['rounds']} "
        f"paired rounds; the ratio of the medians is {ours / max(plain):.2f}). The command: "
        f"**{r['ratio_of_the_command']:.2f} times** by its own seconds ({min(beside):.2f} to {max(beside):.2f} times "
        "`play` in a round, which differ more by noise than by what is beside the rounds); "
        f"**{r['ratio_of_both_from_start_to_exit']:.2f} times** from start to exit.",
        limits="On two cores of an Intel Xeon an earlier version was 1.72 times as fast. Nothing about GPUs, or about "
        "games whose time goes into convolutions.",
    )


def sngan_speed(r: Result) -> Section:
    """SNGAN against torch-mimicry."""
    rows = [
        ["**Rivals**", f"{median(r['ours']):.1f}"],
        ["torch-mimicry", f"{median(r['peer']):.1f}"],
        ["torch-mimicry, nearest upsampling", f"{median(r['peer_nearest']):.1f}"],
    ]
    return Section(
        title="Training speed: SNGAN",
        question=f"Is SNGAN at 32 px at least {r['target']} times as fast as in torch-mimicry?",
        setup=f"One step of D and one of G, batch size {r['n']}, float32, the same shapes, parameter counts, loss and "
        f"optimizer settings; torch-mimicry {r['peer_version']}.",
        header=["side", "images/s (median)"],
        rows=rows,
        answer=f"**{r['ratio']:.2f} times** (median of {r['rounds']} paired rounds); {r['ratio_nearest']:.2f} times if "
        "torch-mimicry upsamples by nearest neighbor, as published and as Rivals does.",
        limits="Nothing about GPUs.",
    )


def throughput(r: Result) -> Section:
    """What a step's time is spent on."""
    peak, share = r["peak_gigaflops"], r["share_of_peak"]
    return Section(
        title="Where the time of a GAN step goes",
        question=f"Is at least {r['target']:.0%} of a step spent in matrix products and convolutions?",
        setup="The game that `auto` fits to CIFAR-10 for 20 minutes: generator widths "
        f"{'-'.join(map(str, r['recipe']['generator_widths']))}, batch size {r['recipe']['batch_size']}, "
        f"{r['recipe']['precision']}. PyTorch's profiler over full cycles of lazy penalties. The peak is that of a "
        "large matrix product on the same machine.",
        header=["value", "measured"],
        rows=[
            ["matrix products and convolutions", f"**{r['share_of_products_and_convolutions']:.1%}** of the time"],
            ["images/s", f"{r['images_per_second']:.0f}"],
            ["Gflop/s", f"{r['gigaflops']:.0f}"],
            ["share of the float32 peak", f"{share['float32']:.0%} of {peak['float32']:.0f} Gflop/s"],
            ["share of the bf16 peak", f"{share['bf16']:.0%} of {peak['bf16']:.0f} Gflop/s"],
        ],
        answer="Little time is left to save outside them.",
        limits="One machine. A share above 100% of the float32 peak is possible because most products run in bf16.",
    )


def rectangles(r: Result) -> Section:
    """The cost of a pixel in rectangles and in squares."""
    wide, square = r["sizes"]
    rows = [
        [f"`{case}`", f"{median(found[wide]):.3g}", f"{median(found[square]):.3g}", f"**{found['ratio']:.2f}**"]
        for case, found in r["cases"].items()
    ]
    least = min(r["cases"], key=lambda case: float(r["cases"][case]["ratio"]))
    return Section(
        title="Rectangular images",
        question=f"Does a training step at {wide} have at least {r['target']:.0%} of the pixels per second that one at "
        f"{square} x {square} has?",
        setup=f"Recipes and classifiers at their default widths, float32, one thread; {r['rounds']} rounds, the two "
        "sizes in turn, by processor time. A step of a recipe is the mean over a cycle of its lazy penalties.",
        header=["network", f"{wide}, M pixels/s", f"{square} x {square}, M pixels/s", "ratio (median of rounds)"],
        rows=rows,
        answer=f"The least ratio is **{r['cases'][least]['ratio']:.2f}** (`{least}`).",
        limits="Nothing about GPUs. Fully connected networks have layers whose cost does not grow with the image, "
        "which makes a pixel of the larger image cheaper.",
    )
