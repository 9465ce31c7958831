"""One section of ``docs/benchmarks.md`` and its Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]
Row = Sequence[str]


@dataclass(frozen=True)
class Section:
    """A benchmark as the page shows it.

    Attributes:
        title: Heading.
        question: What the benchmark asks.
        setup: What was compared, on what data, and how.
        header: Column names of the table.
        rows: Cells of the table.
        answer: The result in a sentence or two, with the target that was set.
        limits: What the result does not show.
        images: Pairs (description, file name under ``benchmarks/results/``).
    """

    title: str
    question: str
    setup: str
    header: Row
    rows: Sequence[Row]
    answer: str
    limits: str
    images: Sequence[tuple[str, str]] = ()

    def markdown(self, result: Result) -> str:
        """The section's text, with the command, machine, versions, date and images of ``result``."""
        threads = result["hardware"]["threads"]
        machine = f"{result['hardware']['processor']}, {threads} {'thread' if threads == 1 else 'threads'}"
        hashes = result.get("data_hashes", {})
        images = "".join(f" · {name} {digits[:8]}" for name, digits in hashes.items())
        parts = [
            f"## {self.title}",
            wrap(f"**Question.** {self.question}"),
            wrap(f"**Setup.** {self.setup}"),
            "\n".join(table_lines(self.header, self.rows)),
            wrap(f"**Result.** {self.answer}"),
            wrap(f"**What it does not show.** {self.limits}"),
            *(f"![{text}](../benchmarks/results/{name})" for text, name in self.images),
            f"`{result['command']}` · {machine} · PyTorch {result['versions']['torch']} · {result['date']}{images}",
        ]
        return "\n\n".join(parts)


def wrap(text: str) -> str:
    """A paragraph in lines of at most 116 characters."""
    return textwrap.fill(text, 116, break_long_words=False, break_on_hyphens=False)


def table_lines(header: Row, rows: Sequence[Row]) -> list[str]:
    """A Markdown table, line by line."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def sorted_entries(entries: Result) -> list[tuple[str, Result]]:
    """The sides of a case, ``"SIDE SEED"`` -> values: ours first, then the peers, each by seed."""
    sides = [(entry, value) for entry, value in entries.items() if isinstance(value, dict)]
    return sorted(sides, key=lambda side: (not side[0].startswith("ours"), side[0]))


def split_entry(entry: str) -> tuple[str, str]:
    """``"ours 0"`` -> (``"**Rivals**"``, ``"0"``): the side, as the table shows it, and its seed."""
    side, _, seed = entry.rpartition(" ")
    return ("**Rivals**" if side == "ours" else side), seed
