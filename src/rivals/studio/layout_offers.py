"""The buttons of a page with nothing to show yet: what to do, in one click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from rivals.base.errors import UserError
from rivals.reports.html import tag
from rivals.studio.controls import EVENT
from rivals.studio.data_sources import DataSources
from rivals.studio.first_visit import MinuteRun, start_minute_run
from rivals.studio.html_parts import error_notice, notice
from rivals.studio.processes import RunProcesses
from rivals.studio.run_store import RunStore


@dataclass(frozen=True)
class Offers:
    """What the buttons of all tabs act on.

    Attributes:
        store: The runs.
        processes: Those that the page has started.
        sources: The data that it may read.
        tabs: The tabs, of which Runs is opened when a run starts.
        messages: Where it is said that one has started.
        started: The name of the run that is awaited.
    """

    store: RunStore
    processes: RunProcesses
    sources: DataSources
    tabs: gr.Tabs
    messages: gr.HTML
    started: gr.State

    def build(
        self, runs: Sequence[MinuteRun], text: str, is_empty: Callable[[], bool], tab: gr.Tab | None = None
    ) -> gr.Column:
        """A text and a button for each run, shown as long as there is nothing else to show.

        Args:
            runs: What may be started.
            text: Above the buttons.
            is_empty: Whether there is nothing to show.
            tab: The tab that updates it when it is opened.
        """
        with gr.Column(visible=is_empty(), elem_classes="offers") as offers:
            gr.HTML(tag("p", text))
            with gr.Row():
                for run in runs:
                    button = gr.Button(run.label, variant="primary", elem_classes=f"start-{run.stem}", min_width=220)
                    button.click(partial(self._start, run), None, [self.messages, self.started, self.tabs], **EVENT)
        if tab is not None:
            tab.select(lambda: gr.Column(visible=is_empty()), None, offers, **EVENT)
        return offers

    def _start(self, run: MinuteRun) -> tuple[str, str, Any]:
        try:
            said, name = start_minute_run(self.store, self.processes, self.sources, run)
        except UserError as error:
            return error_notice(error), "", gr.Tabs(selected="runs")
        return notice(said), name, gr.Tabs(selected="runs")
