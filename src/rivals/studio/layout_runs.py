"""The layout of the tab of runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from rivals.base.errors import UserError
from rivals.studio import first_visit, tab_attack, tab_runs
from rivals.studio.controls import EVENT, LATEST
from rivals.studio.figure_cache import FigureCache
from rivals.studio.html_parts import alarm, error_notice, notice
from rivals.studio.layout_offers import Offers
from rivals.studio.processes import COMMANDS, RunProcesses, RunRequest
from rivals.studio.run_store import RunStore

FORM_COMMANDS = ("train", "classify", "harden")


def build_runs_tab(offers: Offers, figures: FigureCache, refresh: gr.Button, has_committed: bool) -> list[gr.Button]:
    """The list of runs, the buttons, what is shown of the chosen runs, and the form that starts one.

    Returns:
        The buttons that lead to the tab of attacks: to a classifier that comes with Rivals, and to a model by name.
    """
    store, processes, messages, started = offers.store, offers.processes, offers.messages, offers.started
    messages.render()
    started.render()
    is_empty = partial(_is_empty, store, processes)
    offered = offers.build((first_visit.GAN, first_visit.CLASSIFIER), "Begin with one click:", is_empty)
    with offered, gr.Row():
        openers = [
            gr.Button("Attack a classifier that comes with Rivals", elem_id="open-committed", visible=has_committed),
            gr.Button(f"Attack {tab_attack.EXAMPLE}", elem_id="open-named"),
        ]
    runs = gr.HTML(lambda: tab_runs.run_list(store, processes), elem_id="runs-list")
    names = store.names()
    chosen = gr.Dropdown(
        names, value=names[:1], multiselect=True, label="Runs", elem_id="chosen", max_choices=tab_runs.MAX_RUNS
    )
    _build_buttons(store, processes, chosen, messages)
    with gr.Row():
        with gr.Column(min_width=300):
            grid = gr.HTML(elem_id="sample-grid")
            position = gr.Slider(0, 1, 1, step=0.01, label="Samples: first to newest", elem_id="position")
        with gr.Column(min_width=300):
            health = gr.HTML(elem_id="health")
    curves = gr.HTML(elem_id="curves")
    with gr.Accordion("Start a run", open=False, elem_id="start-form"):
        _build_form(store, processes, offers.sources.choices, messages, started)

    def views(picked: list[str], at: float) -> tuple[str, str, str]:
        return (
            tab_runs.curves(store, figures, picked or []),
            tab_runs.sample_grid(store, picked[0] if picked else "", at),
            tab_runs.health(store, picked or []),
        )

    known_names, sent = gr.State(names), gr.State([])

    def update(known: list[str], awaited: str, before: list[int], picked: list[str], at: float) -> tuple[Any, ...]:
        found = store.names()
        here = [awaited] if awaited in found else [name for name in picked or [] if name in found] or found[:1]
        # Only a run that has appeared is awaited no longer: another may have been started since this refresh began.
        waiting: Any = "" if awaited in found else gr.skip()
        # Setting a menu closes it under the user's hand, so it is set only if something has changed.
        menu: Any = gr.skip() if found == known and here == picked else gr.Dropdown(found, value=here)
        parts = [tab_runs.run_list(store, processes), *views(here, at)]
        # What the page shows already is not sent again: pictures and curves are most of the traffic.
        hashes = [hash(part) for part in parts]
        changed = [gr.skip() if mark in before else part for mark, part in zip(hashes, parts, strict=True)]
        return gr.Column(visible=is_empty()), menu, found, waiting, hashes, *changed

    inputs = [known_names, started, sent, chosen, position]
    outputs = [offered, chosen, known_names, started, sent, runs, curves, grid, health]
    refresh.click(update, inputs, outputs, **LATEST, **EVENT)
    chosen.change(views, [chosen, position], [curves, grid, health], **LATEST, **EVENT)
    position.change(
        lambda picked, at: tab_runs.sample_grid(store, picked[0] if picked else "", at),
        [chosen, position],
        grid,
        **LATEST,
        **EVENT,
    )
    return openers


def _is_empty(store: RunStore, processes: RunProcesses) -> bool:
    return not (store.names() or processes.alive())


def _build_buttons(store: RunStore, processes: RunProcesses, chosen: gr.Dropdown, messages: gr.HTML) -> None:
    """Stop, resume and extend the chosen runs."""
    with gr.Row(elem_id="buttons"):
        stop = gr.Button("Stop and save", elem_id="stop")
        resume = gr.Button("Resume", elem_id="resume")
        until = gr.Textbox(label="New length", placeholder="2M images, 20 minutes", lines=1, elem_id="extend-to")
        extend = gr.Button("Extend", elem_id="extend")

    def for_each(act: Callable[[Path, str], str]) -> Callable[[list[str], str], str]:
        def act_on_all(picked: list[str], length: str) -> str:
            if not picked:
                return alarm("Choose a run first.")
            return "".join(_message(partial(act, store.folder(name), length)) for name in picked)

        return act_on_all

    def extend_run(folder: Path, length: str) -> str:
        if not length.strip():
            raise UserError("to extend a run, give its new length, such as '2M images'")
        return processes.resume(folder, length)

    stop.click(for_each(lambda folder, length: processes.stop(folder)), [chosen, until], messages, **EVENT)
    resume.click(for_each(lambda folder, length: processes.resume(folder)), [chosen, until], messages, **EVENT)
    extend.click(for_each(extend_run), [chosen, until], messages, **EVENT)


def _message(act: Callable[[], str]) -> str:
    """The message of an action, or why it was refused."""
    try:
        return notice(act())
    except UserError as error:
        return error_notice(error)


def _build_form(
    store: RunStore, processes: RunProcesses, data_sets: list[str], messages: gr.HTML, started: gr.State
) -> None:
    """The form that starts a run."""
    with gr.Row():
        command = gr.Dropdown(list(FORM_COMMANDS), value="train", label="Command", elem_id="command")
        data = gr.Dropdown(data_sets, value=data_sets[0], label="Data", elem_id="data")
        recipe = gr.Dropdown(COMMANDS["train"], value=COMMANDS["train"][0], label="Recipe", elem_id="recipe")
    with gr.Row():
        length = gr.Textbox("4 minutes", label="Length", lines=1, elem_id="length")
        eps = gr.Textbox("", label="eps (harden)", placeholder="0.3 or 8/255", lines=1)
        name = gr.Textbox("run-1", label="Name of its folder", lines=1, elem_id="name")
    button = gr.Button("Start", variant="primary", elem_id="start")
    command.change(lambda which: gr.Dropdown(COMMANDS[which], value=COMMANDS[which][0]), command, recipe, **EVENT)

    def start(*fields: str) -> tuple[str, str]:
        request = RunRequest(*fields)
        try:
            return notice(processes.start(store.root, request)), request.name.strip()
        except UserError as error:
            return error_notice(error), ""

    button.click(start, [command, data, recipe, length, eps, name], [messages, started], **EVENT)
