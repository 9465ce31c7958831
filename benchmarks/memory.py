"""Memory of a step of the published recipes, and how many devices of a size they need: computed, not run."""

from __future__ import annotations

from benchmarks.harness import record
from rivals.api.training.memory import estimate_memory
from rivals.recipes import PUBLISHED, RECIPES

CARDS = (24, 80)  # GiB
ROOM = 0.9  # of a card: the rest is for the allocator and libraries
SIZES = {"r3-cifar10": 32, "r3-ffhq64": 64, "r3-ffhq256": 256, "r3-imagenet32": 32, "r3-imagenet64": 64}
CLASSES = {"r3-cifar10": 10, "r3-imagenet32": 1000, "r3-imagenet64": 1000}


def main() -> None:
    """Compute them for micro-batches of half as many images each, until one fits the smallest card."""
    rows = []
    for name in PUBLISHED:
        config = RECIPES[name]()
        parts, needed = 1, {}
        while True:
            # On one device all micro-batches are played one after the other.
            needed[parts] = estimate_memory(
                config, size=SIZES[name], channels=3, classes=CLASSES.get(name, 1), micro_batches=parts
            )
            print(f"{name}: {config.batch_size // parts} images at a time {needed[parts] / 2**30:.1f} GiB", flush=True)
            if needed[parts] < ROOM * CARDS[0] * 2**30 or config.batch_size < 4 * parts:
                break
            parts *= 2
        least = {str(card): next((p for p in needed if needed[p] < ROOM * card * 2**30), None) for card in CARDS}
        rows.append(
            {
                "recipe": name,
                "batch_size": config.batch_size,
                "gib": {str(parts): round(bytes / 2**30, 1) for parts, bytes in needed.items()},
                "least_micro_batches": least,
            }
        )
    record("memory", description="peak of a round in 32-bit floats, penalties due", cards_gib=CARDS, rows=rows)


if __name__ == "__main__":
    main()
