"""``python -m benchmarks [NAME ...]``: run the named benchmarks, or all, each in its own process; then the table."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import table

NAMES = (
    *(
        "advgan",
        "attack_speed",
        "attack_strength",
        "autoattack",
        "certified",
        "checkerboard",
        "classic_speed",
        "conditional",
        "critic_part",
        "demo_recipes",
        "equilibrium",
        "extra_data",
        "faults",
    ),
    *(
        "fidelity",
        "fine_tuning",
        "finite_difference_r1",
        "gan_quality",
        "gan_throughput",
        "hardening",
        "hardening_cost",
    ),
    *("kills", "learned_attack", "loop_overhead", "masking"),
    *(
        "memory",
        "mlp_mnist",
        "model_check",
        "overfitting",
        "processes",
        "purification",
        "query_attacks",
        "rectangles",
        "resume",
        "robgan",
        "shards",
        "small_data",
        "sngan_speed",
    ),
    *("sparse_attacks", "stacked_mnist", "startup", "studio", "swift_trial", "transfer", "translation"),
)


def main() -> int:
    """Run what was named; 2 if a name is unknown."""
    names = sys.argv[1:] or NAMES
    if unknown := set(names) - set(NAMES):
        print(f"unknown benchmark {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = [name for name in names if subprocess.call([sys.executable, "-m", f"benchmarks.{name}"])]
    table.main()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
