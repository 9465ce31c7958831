"""Write ``docs/benchmarks.md`` from the committed results, so that no figure is copied by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import RESULTS
from benchmarks.sections import (
    adversarial_training,
    at_equal_minutes,
    attacks,
    black_box,
    certificates,
    gans,
    halves,
    metrics,
    system,
    translation,
)
from benchmarks.sections.section import Result, Section

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

INTRO = """\
# Benchmarks

One section for each question. Each is reproduced by the command in its last line; that command writes the full result,
with every round, the settings, versions and machine, to `benchmarks/results/`. The tables are made from those files by
`python -m benchmarks.table`.

Speeds are ratios of two sides run in turn in one benchmark, because absolute times drift with the machine. "Processor
time" is CPU seconds of one thread; other programs on the machine disturb it less than wall-clock time.

On CIFAR-10, the sections on the strength of attacks, sparse attacks, AdvGAN, purification, Rob-GAN, generators that
teach, certificates, finite differences, classes, few images, the critic as a part and translation are of the original
pixels. All other sections are of a JPEG copy, or of images whose hash was not recorded, and their models were trained
on the copy: they do not compare with published numbers, and are to be measured again. The file `cifar10-plain` is of
2026-11-30, trained on the original pixels: sections of earlier dates had another one. `cifar10-linf-8-255` was trained
on the copy."""

# (name of the result file, section, which is None if its part was not measured). In the order of the page.
SECTIONS: tuple[tuple[str, Callable[[Result], Section | None]], ...] = (
    ("attack_strength", attacks.pgd_strength),
    ("attack_strength", attacks.minimum_norm),
    ("sparse_attacks", attacks.sparse),
    ("query_attacks", black_box.labels_only),
    ("transfer", black_box.transferred),
    ("autoattack", attacks.autoattack),
    ("attack_speed", attacks.attack_speed),
    ("masking", attacks.alarms),
    ("model_check", adversarial_training.committed),
    ("hardening", adversarial_training.robustness),
    ("hardening_cost", adversarial_training.step_cost),
    ("overfitting", adversarial_training.overfitting),
    ("advgan", halves.advgan),
    ("purification", halves.purification),
    ("robgan", halves.robgan),
    ("learned_attack", halves.learned_attack),
    ("extra_data", halves.generated),
    ("certified", certificates.properties),
    ("certified", certificates.trained),
    ("certified", certificates.interval_cost),
    ("gan_quality", gans.image_quality),
    ("demo_recipes", gans.default_recipe),
    ("small_data", gans.small_data),
    ("checkerboard", gans.checkerboard),
    ("mlp_mnist", gans.mlp_mnist),
    ("stacked_mnist", gans.stacked_mnist),
    ("classic_speed", gans.classic_speed),
    ("sngan_speed", gans.sngan_speed),
    ("gan_throughput", gans.throughput),
    ("conditional", at_equal_minutes.conditional),
    ("fine_tuning", at_equal_minutes.fine_tuning),
    ("finite_difference_r1", at_equal_minutes.on_dirac),
    ("finite_difference_r1", at_equal_minutes.on_cifar10),
    ("critic_part", at_equal_minutes.critic_part),
    ("translation", translation.translation),
    ("rectangles", gans.rectangles),
    ("fidelity", metrics.fidelity),
    ("equilibrium", metrics.equilibrium),
    ("resume", system.resume),
    ("kills", system.kills),
    ("faults", system.faults),
    ("processes", system.processes),
    ("memory", system.memory),
    ("loop_overhead", system.loop_overhead),
    ("shards", system.shards),
    ("startup", system.startup),
    ("studio", system.studio),
)


def main() -> None:
    """Write the page from the results there are."""
    parts = [INTRO]
    for name, section in SECTIONS:
        path = RESULTS / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            written = section(result)
            if written is not None:
                parts.append(written.markdown(result))
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
