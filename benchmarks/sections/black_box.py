"""Sections on attacks without the target's gradient: labels only, and transfer."""

from __future__ import annotations

from statistics import fmean

from benchmarks.sections.section import Result, Row, Section


def labels_only(r: Result) -> Section:
    """HopSkipJump against foolbox's; SurFree beside them."""
    most = str(r["queries"])
    rows: list[Row] = []
    far = []
    for model, sides in r["found"].items():
        ours, theirs = sides["hopskipjump"], sides["foolbox"]
        ratio = ours["medians"][most] / theirs["medians"][most]
        if ratio > r["target"]:
            far.append(model)
        missed = [f" ({side['missed']} missed)" if side["missed"] else "" for side in (ours, theirs)]
        rows.append(
            [
                model,
                str(sides["n"]),
                f"{ours['medians']['1000']:.4g}",
                f"{theirs['medians']['1000']:.4g}",
                f"{sides['surfree']['medians']['1000']:.4g}" if "surfree" in sides else "-",
                f"**{ours['medians'][most]:.4g}**{missed[0]}",
                f"{theirs['medians'][most]:.4g}{missed[1]}",
                f"{ratio:.2f}",
            ]
        )
    head = ["HopSkipJump, 1,000", "foolbox, 1,000", "SurFree, 1,000", "HopSkipJump, 5,000", "foolbox, 5,000", "ratio"]
    share = f"{100 * (r['target'] - 1):.0f}%"
    return Section(
        title="Attacks that see labels only",
        question=f"After {r['queries']:,} queries, is the median L2 distance of HopSkipJump at most {share} above that "
        f"of {r['peer']}?",
        setup="Correctly classified test images of each model. All start from the same adversarial noise. "
        "One watched model counts the queries of both sides and keeps the nearest adversarial image of the first "
        "1,000 and 5,000; looks at the clean image and repetitions do not count.",
        header=["model", "images", *head],
        rows=rows,
        answer=f"Median L2 distance; lower is better. The target was {'met' if not far else 'missed'}"
        + (f" on: {', '.join(far)}." if far else " on every model that is listed."),
        limits="One seed, small networks, untargeted attacks. foolbox ran with its defaults. Without a starting "
        "point foolbox fails where it finds no "
        "adversarial white noise.",
    )


def transferred(r: Result) -> Section:
    """MI, DI and VMI against torchattack's."""
    rows: list[Row] = []
    fewer = []
    for pair, attacks in r["found"].items():
        for attack, row in attacks.items():
            means = [fmean(row[side]["fooled"]) for side in ("ours", "torchattack")]
            if means[0] < means[1]:
                fewer.append(f"{attack} from {pair} ({means[0] - means[1]:+.1f} images, p = {row['p']:.2g})")
            counts = [f"{mean:.4g}" for mean in means]
            of = [f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}", str(row["n"])]
            rows.append([pair, attack, *of, f"**{counts[0]}**", counts[1], f"{row['p']:.2g}"])
    return Section(
        title="Transfer",
        question=f"At equal steps and settings, do MI, DI and VMI fool at least as many images of a target as "
        f"{r['peer']}'s?",
        setup=f"Linf, {r['steps']} steps of eps / {r['steps']}, decay 1, VMI with {r['neighbors']} "
        "neighbors. Test images that both models classify correctly. p: how often exchanged sides would differ as "
        "much, image by image.",
        header=["surrogate to target, eps", "attack", "seeds", "images", "Rivals", "torchattack", "p"],
        rows=rows,
        answer="Images that fool the target, the mean over seeds; higher is better. "
        + (f"Fewer: {'; '.join(fewer)}." if fewer else "Never fewer, but with so few images little would be seen."),
        limits="Small networks on one data set, and few images. torchattack draws one resize for a whole batch, Rivals "
        "one for each image.",
    )
