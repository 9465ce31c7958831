"""How the page's controls are wired, the same on every tab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

# No spinner over what is shown, no entry in an API, and four at a time.
EVENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 4}
LATEST = {"trigger_mode": "always_last"}  # of the changes that come while it works, only the last one counts


def update_on_change(controls: Sequence[Any], show: Callable[..., str], output: gr.HTML, *more: Any) -> None:
    """Update an output whenever a control changes, and on further events."""
    triggers = [control.change for control in controls]
    gr.on([*triggers, *more], show, list(controls), output, **LATEST, **EVENT)


def refill_on_select(
    menu: gr.Dropdown, names: Callable[[], Sequence[str | tuple[str, str]]], tab: gr.Tab, default: int = 0
) -> None:
    """Update the choices of a menu, or what it says and gives for each, when its tab is opened.

    What was chosen is kept; where nothing was, it is the first choice, or that at ``default``.
    """

    def refill(chosen: str | None) -> Any:
        found = list(names())
        values = [each if isinstance(each, str) else each[1] for each in found]
        usual = values[min(default, len(values) - 1)] if values else None
        return gr.Dropdown(found, value=chosen if chosen in values else usual)

    tab.select(refill, menu, menu, **EVENT)
