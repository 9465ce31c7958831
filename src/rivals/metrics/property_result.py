"""The result of checking a property of a network."""

from __future__ import annotations

from dataclasses import dataclass

from rivals.base.run_folder import Record


@dataclass(frozen=True)
class PropertyResult:
    """The result of ``certify`` for a property. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        status: ``unsat``: proven, nothing violates the property. ``sat``: something does. ``unknown``: neither is
            shown.
        method: The bounds.
        cases: Ways to violate the property.
        excluded: Those that are proven impossible.
        inputs: The counterexample, or nothing.
        outputs: Its outputs.
        seconds: Time spent.
        note: What else is to be said.
    """

    status: str
    method: str
    cases: int
    excluded: int
    inputs: tuple[float, ...]
    outputs: tuple[float, ...]
    seconds: float
    note: str = ""

    def as_dict(self) -> Record:
        """As plain values, as ``--json`` prints them."""
        found = {"inputs": list(self.inputs), "outputs": list(self.outputs)} if self.inputs else None
        return {
            "status": self.status,
            "method": self.method,
            "cases": self.cases,
            "excluded": self.excluded,
            "counterexample": found,
            "seconds": round(self.seconds, 3),
            "note": self.note,
        }

    def __str__(self) -> str:
        """The status, and a counterexample as VNN-COMP writes it."""
        if self.status != "sat":
            said = (
                f"; {self.note}" if self.note else f"; {self.excluded} of {self.cases} cases excluded by {self.method}"
            )
            return f"{self.status}\n{said}"
        named = [(f"X_{i}", value) for i, value in enumerate(self.inputs)]
        named += [(f"Y_{i}", value) for i, value in enumerate(self.outputs)]
        lines = [f"({name} {value!r})" for name, value in named]
        return "sat\n(" + "\n ".join(lines) + ")"
