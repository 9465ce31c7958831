"""``docs/benchmarks.md`` from the committed results, so that no figure is ever copied by hand."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def classic_speed(r: dict[str, Any]) -> tuple[str, str]:
    """The article's game against a plain loop."""
    speeds = {side: median(values) for side, values in r["images_per_second"].items()}
    said = ", ".join(f"{side}: {value:.0f}" for side, value in speeds.items())
    ours, *plain = speeds.values()
    return (
        f"at least {r['asked']} times the plain loop's images/s, `mlp-classic` on CIFAR-10, batch 100",
        f"**{r['ratio_to_the_better_plain_loop']:.2f} times** the better one (median of {r['rounds']} rounds' ratios; "
        f"of the sides' medians {ours / max(plain):.2f}; images/s: {said})",
    )


def sngan_speed(r: dict[str, Any]) -> tuple[str, str]:
    """SNGAN against torch-mimicry."""
    return (
        "at least 1.5 times torch-mimicry's images/s for one step of D and one of G, SNGAN-32, batch 64",
        f"**{r['ratio']:.2f} times** ({median(r['ours']):.1f} against {median(r['peer']):.1f} images/s, "
        f"median of {r['rounds']} rounds)",
    )


def mlp_mnist(r: dict[str, Any]) -> tuple[str, str]:
    """Ten digits by fully connected layers."""
    alarms = ", ".join(alarm["alarm"] for alarm in r["alarms_at_the_end"]) or "no alarm"
    return (
        f"`mlp` on MNIST, 20 epochs: no alarm at the end, each digit above {r['asked']:.0%} of 10,000 samples",
        f"**{alarms}**, rarest digit **{r['least_share']:.1%}** "
        f"(judge's test accuracy {r['judge_test_accuracy']:.2%}; {r['seconds'] / 60:.0f} minutes)",
    )


def resume(r: dict[str, Any]) -> tuple[str, str]:
    """Killed and resumed."""
    disk = r["full_disk"]
    full = disk.get("skipped") or (
        f"full disk: status {disk['status']}, {disk['lines']} line, checkpoint {disk['newest_readable_checkpoint']} "
        f"intact, with room again the same bytes: {disk['same_bytes_once_there_is_room']}"
    )
    return (
        "killed by SIGKILL at 20 random moments, the same `generator.safetensors`, no checkpoint unreadable",
        f"**{'same bytes' if r['same_bytes'] else 'other bytes'}** after {r['kills']} kills, "
        f"{r['unreadable_checkpoints']} unreadable; {full}",
    )


def startup(r: dict[str, Any]) -> tuple[str, str]:
    """Starting up."""
    return (
        f"`rivals --help` and the help of every verb under {r['asked']} s",
        f"slowest **{r['slowest']:.2f} s**, `import rivals` {r['seconds']['import rivals']:.2f} s "
        f"(median of 7; bare Python {r['seconds']['python -c pass']:.2f} s)",
    )


def attack_strength(r: dict[str, Any]) -> tuple[str, str]:
    """PGD and the minimum-norm attacks against the peers."""
    cases = r["pgd"]["standing"]
    said = ", ".join(
        f"{name} {row['ours']} ({min(row[peer] for peer in row if peer not in ('ours', 'clean'))})"
        for name, row in cases.items()
    )
    far = "; ".join(
        f"{kind}: " + ", ".join(f"{model} {_ours_and_best(row)}" for model, row in models.items())
        for kind, models in r["nearest"]["median"].items()
    )
    return (
        f"PGD-{r['pgd']['steps']} leaves no more of {r['pgd']['n']} images standing than the best peer's; medians of "
        f"DeepFool, C&W and DDN (L2, {r['nearest']['n']} images) at most 1 % larger",
        f"standing, ours (best of torchattacks, foolbox, ART): {said}. Medians, ours (best peer): {far}",
    )


def _ours_and_best(row: dict[str, Any]) -> str:
    peers = [value for name, value in row.items() if name != "ours" and not name.endswith("missed")]
    return f"**{row['ours']:.4g}** ({min(peers):.4g})"


def autoattack(r: dict[str, Any]) -> tuple[str, str]:
    """Both versions against the reference."""
    rows = []
    for name, case in r["cases"].items():
        sides = [
            f"{side} {case[side]['robust']}" + (f" ({case['times'][side]:.1f} times)" if side != "reference" else "")
            for side in ("reference", "standard", "swift")
            if side in case
        ]
        rows.append(f"{name}: {', '.join(sides)}")
    whole = []
    for side in ("standard", "swift"):
        both = [case for case in r["cases"].values() if side in case and "reference" in case]
        cost = [sum(case[each]["cpu_seconds"] for case in both) for each in ("reference", side)]
        whole.append(f"{side} **{cost[0] / cost[1]:.1f} times** over {len(both)} cases")
    return (
        f"AutoAttack at least as strong as {r['peer']} and {r['asked']['standard']} times as fast; swift no weaker and "
        f"{r['asked']['swift']} times as fast",
        f"{'; '.join(whole)} (processor time). Standing of {r['n']}: {'; '.join(rows)}",
    )


def attack_speed(r: dict[str, Any]) -> tuple[str, str]:
    """PGD against the fastest peer."""
    said = "; ".join(
        f"{name}: **{scene['ratio']:.1f} times** (asked {scene['asked']:g}; {scene['model']}, eps {scene['eps']:.4g}, "
        f"standing {scene['standing']['ours']} of {r['n']})"
        for name, scene in r["scenes"].items()
    )
    return f"PGD-{r['steps']} against the fastest of torchattacks, foolbox and ART", said


def hardening_cost(r: dict[str, Any]) -> tuple[str, str]:
    """A step of hardening against the passes it needs."""
    said = "; ".join(
        f"{net}: " + ", ".join(f"{method} {each['ratio']:.2f}" for method, each in methods.items())
        for net, methods in r["nets"].items()
    )
    worst = max(each["ratio"] for methods in r["nets"].values() for each in methods.values())
    return (
        f"a step of hardening at most {r['asked']} times the bare forward and backward passes that its method needs",
        f"at most **{worst:.2f} times** (batch {r['batch']}, medians of {r['rounds']} rounds in turn; {said})",
    )


def overfitting(r: dict[str, Any]) -> tuple[str, str]:
    """Runs made to fail."""

    def left(side: dict[str, Any]) -> str:
        return f"{side['left']['robust']['value']:.1%}" if side["left"] else "nothing"

    said = []
    for name, scene in r["scenes"].items():
        watched = scene["watched"]
        alarms = f"rollbacks: {watched['rollbacks']}, other notices: {len(watched['told']) - watched['rollbacks']}"
        n = watched["left"]["robust"]["of"] if watched["left"] else 0
        said.append(
            f"{name} ({scene['data']}, eps {scene['eps']:g}): **{left(watched)}** of {n} stand under PGD-20, unwatched "
            f"{left(scene['unwatched'])} ({alarms}; first: {watched['told'][0]})"
        )
    return "catastrophic and robust overfitting are noticed, and the best state is what is left", "; ".join(said)


def hardening(r: dict[str, Any]) -> tuple[str, str]:
    """What minutes of hardening buy."""
    names = {"pgd": "PGD-40", "autoattack-swift": "swift", "autoattack": "autoattack", "pyautoattack": "pyautoattack"}
    cases = []
    for case, told in r["cases"].items():
        sides = []
        for entry, facts in told.items():
            if not isinstance(facts, dict):
                continue
            stands = ", ".join(f"{names[key]} {facts[key]:.1%}" for key in names if key in facts)
            bold = "**" if entry.startswith("ours") else ""
            sides.append(
                f"{bold}{entry.rpartition(' ')[0]}{bold} (seed {entry.rpartition(' ')[2]}, {facts['cpu_minutes']:.0f} "
                f"minutes, {facts['images'] // 1000}k images): clean {facts['clean']:.1%}, {stands}"
            )
        cases.append(f"{case} at {told['eps']}: {'; '.join(sides)}")
    return (
        f"minutes of one thread, and what then stands of {r['n']:,} test images (pyautoattack: of {r['reference_n']})",
        ". ".join(cases),
    )


def gan_quality(r: dict[str, Any]) -> tuple[str, str]:
    """What minutes of training draw."""
    names = {"fd": "FD-lite0", "precision": "precision", "recall": "recall"}
    cases = []
    for case, told in r["cases"].items():
        sides = []
        for entry, facts in told.items():
            if isinstance(facts, dict):
                bold = "**" if entry.startswith("ours") else ""
                values = ", ".join(f"{names[key]} {bold}{facts[key]:.4g}{bold}" for key in names if key in facts)
                side, _, seed = entry.rpartition(" ")
                sides.append(f"{side} (seed {seed}, {facts['images'] // 1000}k images) {values}")
        cases.append(f"{case}, {told['minutes']:g} minutes of one thread: {'; '.join(sides)}")
    return (
        f"images after equal minutes, {r['n']:,} drawn against as many training images: FD-lite0 at most half the best "
        "peer's (lower is better); precision and recall above 0.75",
        ". ".join(cases),
    )


def gan_throughput(r: dict[str, Any]) -> tuple[str, str]:
    """What a game's time is spent on."""
    widths = "-".join(map(str, r["recipe"]["generator_widths"]))
    return (
        f"at least {r['asked']:.0%} of a round in products and convolutions, the game that `auto` fits to CIFAR-10",
        f"**{r['share_of_products_and_convolutions']:.1%}** (generator {widths}, {r['recipe']['precision']}, "
        f"{r['images_per_second']:.0f} images/s; {r['gigaflops']:.0f} Gflop/s, of this machine's measured peak "
        f"{r['share_of_peak']['float32']:.0%} in float32 and {r['share_of_peak']['bf16']:.0%} in bf16)",
    )


def small_data(r: dict[str, Any]) -> tuple[str, str]:
    """Few images, with augmentation and without."""
    sides = [
        f"{name} (`--augment {told['augment']}`): alarms {', '.join(told['raised']) or 'none'}, "
        f"r_v {told['r_v']:.2f}, sheets {told['diversity']:.0%} as varied as the drawings, "
        f"FD-lite0 {told['fd']:.0f}, authenticity {told['authenticity']:.1%}, "
        f"precision {told['precision']:.2f}, recall {told['recall']:.2f}"
        for name, told in r["sides"].items()
    ]
    return (
        f"{r['what']}: no alarm, and without augmentation one",
        "; ".join(sides),
    )


def demo_recipes(r: dict[str, Any]) -> tuple[str, str]:
    """Why the default is the default."""
    rows = sorted(r["recipes"].items(), key=lambda item: item[1]["fd_classifier"])
    said = ", ".join(f"{recipe} {row['fd_classifier']:.0f}" for recipe, row in rows)
    return (
        "the default recipe draws best on mnist5k after 8 minutes of one thread, the demo's 4 of two cores",
        f"**{r['best']}** (FD-classifier of 5,000 samples against MNIST test, lower is better: {said}; "
        f"the 4,500 training images themselves {r['the_training_images_themselves']:.0f}; one seed)",
    )


def equilibrium(r: dict[str, Any]) -> tuple[str, str]:
    """Bounds where the truth is known."""
    low, high = r["gaps_of_the_truth"]
    least = min(run["bound_low"] / row["truth"] for row in r["cases"].values() for run in row["seeds"])
    return (
        f"JSD bound never above the truth, and with a trained D within {r['asked_within']:.0%} of it; the duality gap "
        "likewise",
        f"surely above the truth (the interval's lower end): **{r['looks_surely_above_the_truth']}** of {r['looks']} "
        f"looks; trained, bounds and gaps are **{low:.3f} to {high:.3f}** of the truth (lower ends from "
        f"{least:.3f}; {len(r['cases'])} pairs of distributions, 3 seeds)",
    )


def stacked_mnist(r: dict[str, Any]) -> tuple[str, str]:
    """The modes of two recipes."""
    said = "; ".join(
        f"{recipe} **{row['found']}** (KL {row['kl']:.3f}, {row['images']:,} images seen)"
        for recipe, row in r["recipes"].items()
    )
    floor = next(iter(r["recipes"].values()))
    return (
        f"`r3` draws at least {r['asked']} of stacked MNIST's 1,000 modes after 60 minutes of one thread; `dcgan` for "
        "comparison",
        f"{said}; a perfect generator's KL is {floor['floor']:.3f}",
    )


def fidelity(r: dict[str, Any]) -> tuple[str, str]:
    """Fidelity metrics against the peers."""
    step = r["frechet"]
    said = ", ".join(
        f"{m['n']} x {m['n']} at d = {m['dimensions']} **{m['peak_gigabytes']} GB**"
        + (f" ({m['rows_compared']} rows compared, all held)" if m["rows_compared"] < m["n"] else "")
        for m in r["memory"]
    )
    return (
        "same features in: Frechet, KID, IS, precision/recall, density/coverage equal to torch-fidelity's and prdc's "
        f"to {r['asked']['relative']:g}; the Frechet step {step['asked']['times']} times as fast as scipy's sqrtm; "
        f"precision/recall under {r['asked']['gigabytes']} GB",
        f"largest relative difference **{r['worst']:.0e}** (our features in single precision: "
        f"{r['worst_in_single_precision']:.0e}); **{step['ratio']:.1f} times** at {step['dimensions']} dimensions "
        f"(processor time, differing by {step['relative']:.0e}); peak of the process: {said}",
    )


def studio(r: dict[str, Any]) -> tuple[str, str]:
    """How soon the page shows what."""

    def both(times: dict[str, Any]) -> str:
        return f"**{times['processor']:.2f} s** ({times['clock']:.2f} s by the clock)"

    long, ten = r["long_run"], r["ten_lookers"]
    few, many = sorted(long, key=int)
    said = [
        f"the page {both(r['load'])}",
        f"the first picture of a new run {both(r['first_picture'])}",
        *(f"a moved slider on {model} {both(times)}" for model, times in r["slider"].items()),
        f"{int(many):,} records {both(long[many])}, {long[many]['megabytes']} MB ({int(few):,} records: "
        f"{long[few]['megabytes']} MB)",
        f"with {ten['lookers']} pages open the training made **{-ten['slower']:+.1%}** images per processor second and "
        f"the server took {ten['server_share_of_a_core']:.1%} of a core",
    ]
    asked = r["asked"]
    return (
        f"the studio: page under {asked['load']:g} s; first picture under {asked['first_picture']:g} s; slider to "
        f"picture under {asked['mnist']:g} s (MNIST) and {asked['cifar10']:g} s (CIFAR-10); 100,000 records under "
        f"{asked['long_run']:g} s; ten browsers slow a training by {asked['slower']:.0%} at most",
        f"processor time of server and browser: {'; '.join(said)}",
    )


ROWS = (
    *(attack_strength, autoattack, attack_speed, hardening),
    *(hardening_cost, overfitting),
    *(
        classic_speed,
        sngan_speed,
        mlp_mnist,
        gan_quality,
        gan_throughput,
        small_data,
        demo_recipes,
        fidelity,
        equilibrium,
        stacked_mnist,
        resume,
        startup,
        studio,
    ),
)


def main() -> None:
    """Write the page from the results there are."""
    lines = [
        "# Measured results",
        "",
        "Each row is one command; its whole result, with every round, settings, versions and the machine, is in",
        "`benchmarks/results/`. Speeds are ratios of two sides run in turn in one benchmark; absolute times drift with",
        "the machine. This page is written by `python -m benchmarks.table`.",
        "",
        "| asked | measured | command | machine |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        path = RESULTS / f"{row.__name__}.json"
        if path.exists():
            result = json.loads(path.read_text())
            threads = result["hardware"]["threads"]
            machine = f"{result['hardware']['processor']}, {threads} {'thread' if threads == 1 else 'threads'}"
            lines.append(
                " | ".join(["", *row(result), f"`{result['command']}`", f"{machine}, {result['date']}", ""]).strip()
            )
    lines += [
        "",
        "What `mlp` drew after 20 epochs (`mlp_mnist`), and the curves of its game:",
        "",
        "![64 digits](../benchmarks/results/mlp_mnist.png)",
        "![losses, mean answers and gradient norms](../benchmarks/results/mlp_mnist_curves.png)",
        "",
    ]
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
