"""The layouts of the tabs Latent, Translate, Attack, Equilibrium and Compare."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from rivals.base.errors import UserError
from rivals.studio import first_visit, tab_attack, tab_compare, tab_latent, tab_translate
from rivals.studio.classifier_sources import ClassifierSources
from rivals.studio.controls import EVENT, refill_on_select, update_on_change
from rivals.studio.figure_cache import FigureCache
from rivals.studio.html_parts import error_notice
from rivals.studio.layout_offers import Offers
from rivals.studio.run_store import RunStore


def build_latent_tab(offers: Offers, tab: gr.Tab) -> None:
    """A generator and its latent space."""
    store = offers.store

    def names() -> list[str]:
        return store.networks("generator")

    offers.build([first_visit.GAN], "This tab explores a generator. Train one:", lambda: not names(), tab)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            name = gr.Dropdown(names(), value=None, label="Generator", elem_id="generator")
            seed = gr.Slider(0, 999, 0, step=1, label="Seed", elem_id="seed")
            other = gr.Slider(0, 999, 1, step=1, label="Other seed")
            position = gr.Slider(0, 1, 0, step=0.01, label="Interpolation", elem_id="interpolation")
            truncation = gr.Slider(0, 2, 1, step=0.05, label="Truncation", elem_id="truncation")
            label = gr.Dropdown([], value=None, label="Class", visible=False)
            method = gr.Radio(list(tab_latent.METHODS), value=tab_latent.METHODS[0], label="Directions by")
            amounts = [
                gr.Slider(-4, 4, 0, step=0.1, label=f"Direction {i + 1}, standard deviations", elem_id=f"direction-{i}")
                for i in range(tab_latent.N_DIRECTIONS)
            ]
        with gr.Column(scale=3, min_width=300):
            output = gr.HTML(elem_id="latent-images")

    def show(chosen: str | None, *values: Any) -> str:
        first, second, at, psi, class_name, found_by, *steps = values
        controls = tab_latent.LatentControls(first, second, at, psi, class_name, found_by, tuple(steps))
        return tab_latent.latent_images(store, chosen, controls)

    def update_classes(chosen: str | None) -> Any:
        found = tab_latent.class_names(store, chosen)
        return gr.Dropdown([("all in turn", ""), *found], value="", visible=bool(found))

    refill_on_select(name, names, tab)
    name.change(update_classes, name, label, **EVENT)
    controls = [name, seed, other, position, truncation, label, method, *amounts]
    update_on_change(controls, show, output, tab.select)


def build_translate_tab(offers: Offers, tab: gr.Tab) -> None:
    """A translator, and a picture to translate."""
    store = offers.store

    def names() -> list[str]:
        return store.networks("translator")

    text = "This tab enlarges pictures, or turns them into others. Train a network to enlarge images:"
    offers.build([first_visit.ENLARGER], text, lambda: not names(), tab)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            name = gr.Dropdown(names(), value=None, label="Translator", elem_id="translator")
            upload = gr.File(label="A picture of your own", elem_id="translate-upload", height=160)
        with gr.Column(scale=5, min_width=300):
            output = gr.HTML(elem_id="translated")
    refill_on_select(name, names, tab)
    update_on_change([name, upload], partial(tab_translate.translated, store), output, tab.select)


def build_attack_tab(classifiers: ClassifierSources, offers: Offers, openers: list[gr.Button], tab: gr.Tab) -> None:
    """One or two classifiers under attack.

    Args:
        classifiers: Those that may be chosen.
        offers: What may be started.
        openers: Buttons elsewhere that lead here: to a classifier that comes with Rivals, and to a model by name.
        tab: This tab.
    """
    sources = offers.sources
    text = "You have no classifier of your own yet: attack one of the menu, load one by its name, or train one:"
    offers.build([first_visit.CLASSIFIER], text, lambda: not classifiers.own(), tab)
    largest, default, step, unit = tab_attack.NORMS["Linf"]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = gr.Dropdown(classifiers.choices(), value=None, label="Classifier", elem_id="model")
            typed = gr.Textbox(
                tab_attack.EXAMPLE, label="Or by name: torchvision:NAME or timm:NAME", lines=1, elem_id="model-name"
            )
            load = gr.Button("Load it", elem_id="load-model")
            refusal = gr.HTML(elem_id="model-refusal")
            other = gr.Dropdown(classifiers.choices(), value=None, label="Compare with", elem_id="other-model")
            norm = gr.Radio(list(tab_attack.NORMS), value="Linf", label="Norm", elem_id="norm")
            eps = gr.Slider(0, largest, default, step=step, label=unit, elem_id="eps")
            choices = [("its training data", ""), *((each, each) for each in sources.choices)]
            data = gr.Dropdown(choices, value="", label="Data", elem_id="attack-data")
            index = gr.Number(0, label="Test image", precision=0, minimum=0, elem_id="index")
            upload = gr.File(label="Or a picture of your own", elem_id="upload", height=160)
        with gr.Column(scale=5, min_width=300):
            output = gr.HTML(elem_id="attack-result")

    def show(*values: Any) -> str:
        return tab_attack.attack_results(classifiers, sources, tab_attack.AttackControls(*values))

    def update_slider(chosen: str) -> Any:
        largest, default, step, unit = tab_attack.NORMS[chosen]
        return gr.Slider(0, largest, default, step=step, label=unit)

    def update_other(chosen: str | None) -> Any:
        try:
            return gr.Dropdown(classifiers.choices(), value=classifiers.match(chosen))
        except UserError:
            return gr.Dropdown(classifiers.choices(), value=None)

    def load_typed(name: str) -> tuple[Any, str]:
        try:
            value = classifiers.type_in(name)
        except UserError as error:
            return gr.skip(), error_notice(error)
        return gr.Dropdown(classifiers.choices(), value=value), ""

    def open_committed() -> tuple[Any, Any]:
        found = classifiers.committed()
        return gr.Tabs(selected="attack"), gr.Dropdown(classifiers.choices(), value=found[0] if found else None)

    norm.change(update_slider, norm, eps, **EVENT)
    refill_on_select(model, classifiers.choices, tab)
    slow = {**EVENT, "show_progress": "full"}  # as weights may be downloaded
    load.click(load_typed, typed, [model, refusal], **slow)
    to_committed, to_named = openers
    to_committed.click(open_committed, None, [offers.tabs, model], **EVENT)
    to_named.click(lambda: (gr.Tabs(selected="attack"), tab_attack.EXAMPLE), None, [offers.tabs, typed], **EVENT).then(
        load_typed, typed, [model, refusal], **slow
    )
    model.change(update_other, model, other, **EVENT)
    controls = [model, other, data, index, upload, norm, eps]
    update_on_change(controls, show, output, tab.select)


def build_equilibrium_tab(offers: Offers, figures: FigureCache, refresh: gr.Button, tab: gr.Tab) -> None:
    """A run and its equilibrium."""
    store = offers.store

    def names() -> list[str]:
        return [name for name in store.names() if _command(store, name) in ("train", "demo")]

    offers.build([first_visit.GAN], "This tab watches the game of a GAN. Start one:", lambda: not names(), tab)
    name = gr.Dropdown(names(), value=None, label="Run", elem_id="equilibrium-run")
    output = gr.HTML(elem_id="equilibrium-view")
    refill_on_select(name, names, tab)
    update_on_change([name], partial(tab_compare.equilibrium, store, figures), output, tab.select, refresh.click)


def _command(store: RunStore, name: str) -> str:
    try:
        return str(store.history(name).info.get("command"))
    except UserError:
        return ""


def build_compare_tab(offers: Offers, figures: FigureCache, tab: gr.Tab) -> None:
    """Two runs, and two generators."""
    store = offers.store

    def generators() -> list[str]:
        return store.networks("generator")

    runs_of_a_minute = (first_visit.GAN, first_visit.CLASSIFIER)
    offers.build(runs_of_a_minute, "This tab compares two runs. Start some:", lambda: len(store.names()) < 2, tab)
    with gr.Row():
        one = gr.Dropdown(store.names(), value=None, label="One run", elem_id="one", min_width=260)
        other = gr.Dropdown(store.names(), value=None, label="Another run", elem_id="other", min_width=260)
    runs = gr.HTML(elem_id="compared-runs")
    gr.HTML("<h3>Two generators, one seed</h3>")
    with gr.Row():
        first = gr.Dropdown(generators(), value=None, label="One generator", min_width=260)
        second = gr.Dropdown(generators(), value=None, label="Another generator", min_width=260)
        seed = gr.Slider(0, 999, 0, step=1, label="Seed")
    samples = gr.HTML(elem_id="compared-samples")
    for menu, names, default in ((one, store.names, 0), (other, store.names, 1)):
        refill_on_select(menu, names, tab, default)
    for menu, default in ((first, 0), (second, 1)):
        refill_on_select(menu, generators, tab, default)
    update_on_change([one, other], partial(tab_compare.runs, store, figures), runs, tab.select)
    update_on_change([first, second, seed], partial(tab_compare.generators, store), samples, tab.select)
