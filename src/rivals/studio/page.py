"""The page laid out by Gradio: controls, and which function's words each of them changes."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rivals.base.errors import UserError
from rivals.studio import comparing, fooling, wandering, watching
from rivals.studio.children import VERBS, Children
from rivals.studio.pictures import alarm, calm
from rivals.studio.pulse import Pulse
from rivals.studio.shelf import Shelf

CSS = Path(__file__).with_name("studio.css")
SCRIPT = Path(__file__).with_name("pulse.js")
LATER = 4.0  # seconds after which torch is imported
# Fonts that every machine has: a page that asks the network for nothing works without one.
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"]
MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
QUIETLY: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 4}


def serve(root: Path, host: str, port: int, *, open_browser: bool) -> list[Path]:
    """Serve the page until Ctrl-C.

    Returns:
        The folders of runs begun from the page that go on.
    """
    shelf, children = Shelf(root), Children()
    page, pulse = build(shelf, children), Pulse(shelf, children)

    async def asked(request: Request) -> JSONResponse:
        return JSONResponse(pulse(request.query_params.get("page", "")))

    # Torch takes seconds to import: have it at hand when the first tab asks for it, but first comes the page itself.
    later = threading.Timer(LATER, importlib.import_module, ("rivals.attacks",))
    later.daemon = True
    later.start()
    page.queue(default_concurrency_limit=4)
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        quiet=True,
        show_error=True,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        max_file_size=fooling.BYTES,
        app_kwargs={"routes": [Route("/studio/pulse", asked)]},
        js=SCRIPT.read_text("utf-8"),
        css_paths=[CSS],
        theme=gr.themes.Base(font=FONT, font_mono=MONO, primary_hue="blue", radius_size="sm"),
    )
    return children.alive()


def build(shelf: Shelf, children: Children) -> gr.Blocks:
    """The page of a folder of runs."""
    figures = watching.Figures()
    with gr.Blocks(title="Rivals studio", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(f"<h1>Rivals studio</h1><p class='quiet'>{escape(str(shelf.root.resolve()))}</p>")
        # The script of the page presses these when there is something new.
        look, look_game = (gr.Button(elem_id=f"look-{what}", elem_classes="unseen") for what in ("runs", "game"))
        with gr.Tab("Runs", id="runs"):
            _runs(shelf, children, figures, look)
        with gr.Tab("Latent", id="latent") as latent:
            _latent(shelf, latent)
        with gr.Tab("Attack", id="attack") as attack:
            _attack(shelf, attack)
        with gr.Tab("Equilibrium", id="equilibrium") as game:
            _equilibrium(shelf, figures, look_game, game)
        with gr.Tab("Compare", id="compare") as compare:
            _compare(shelf, figures, compare)
    return page


def _live(controls: Sequence[Any], show: Callable[..., str], out: gr.HTML, *more: Any) -> None:
    """Show anew whenever a control changes; of changes that come while it works, the last one counts."""
    triggers = [control.change for control in controls]
    gr.on([*triggers, *more], show, list(controls), out, trigger_mode="always_last", **QUIETLY)


def _runs(shelf: Shelf, children: Children, figures: watching.Figures, look: gr.Button) -> None:
    told = gr.HTML(elem_id="told")
    listed = gr.HTML(lambda: watching.listing(shelf, children), elem_id="runs-list")
    names = shelf.names()
    chosen = gr.Dropdown(
        names, value=names[:1], multiselect=True, label="Runs to look at", elem_id="chosen", max_choices=watching.MOST
    )
    with gr.Row(elem_id="acts"):
        stop = gr.Button("Stop and save", elem_id="stop")
        resume = gr.Button("Resume", elem_id="resume")
        until = gr.Textbox(label="Extend to", placeholder="2M images, 20 minutes", lines=1, elem_id="extend-to")
        extend = gr.Button("Extend", elem_id="extend")
    with gr.Row():
        with gr.Column(min_width=300):
            sheet = gr.HTML(elem_id="sheet")
            scrub = gr.Slider(0, 1, 1, step=0.01, label="Sample timeline: first to newest", elem_id="scrub")
        with gr.Column(min_width=300):
            health = gr.HTML(elem_id="health")
    curves = gr.HTML(elem_id="curves")
    with gr.Accordion("Begin a run", open=not names, elem_id="begin"):
        with gr.Row():
            verb = gr.Dropdown(list(VERBS), value="train", label="What", elem_id="verb")
            data = gr.Textbox("mnist5k", label="Data: a name, a folder or a zip", lines=1, elem_id="data")
            recipe = gr.Dropdown(VERBS["train"], value=VERBS["train"][0], label="Recipe", elem_id="recipe")
        with gr.Row():
            length = gr.Textbox("4 minutes", label="How long", lines=1, elem_id="length")
            eps = gr.Textbox("", label="eps (harden)", placeholder="0.3 or 8/255", lines=1)
            name = gr.Textbox("run-1", label="Name of its folder", lines=1, elem_id="name")
        start = gr.Button("Start", variant="primary", elem_id="start")
    verb.change(lambda which: gr.Dropdown(VERBS[which], value=VERBS[which][0]), verb, recipe, **QUIETLY)
    seen = gr.State(names)
    begun = gr.State("")  # the run that was begun from this page, until it is there to be looked at
    sent = gr.State([])

    def views(picked: list[str], share: float) -> tuple[str, str, str]:
        first = picked[0] if picked else ""
        return (
            watching.curves(shelf, figures, picked or []),
            watching.sheet(shelf, first, share),
            watching.health(shelf, picked or []),
        )

    def looked(known: list[str], awaited: str, before: list[int], picked: list[str], share: float) -> tuple[Any, ...]:
        found = shelf.names()
        here = [awaited] if awaited in found else [each for each in picked or [] if each in found] or found[:1]
        # Only what has come is awaited no longer: a run may have been begun since this look was asked for.
        waits: Any = "" if awaited in found else gr.skip()
        # A menu that is set anew closes under the reader's hand: only when there is something new.
        menu: Any = gr.skip() if found == known and here == picked else gr.Dropdown(found, value=here)
        shown = [watching.listing(shelf, children), *views(here, share)]
        # What is on the page already is not sent again: pictures and curves are by far the most of what is sent.
        marks = [hash(part) for part in shown]
        news = [gr.skip() if mark in before else part for mark, part in zip(marks, shown, strict=True)]
        return menu, found, waits, marks, *news

    gr.on(
        [look.click],
        *(looked, [seen, begun, sent, chosen, scrub], [chosen, seen, begun, sent, listed, curves, sheet, health]),
        trigger_mode="always_last",
        **QUIETLY,
    )
    chosen.change(
        *(views, [chosen, scrub], [curves, sheet, health]),
        trigger_mode="always_last",
        **QUIETLY,
    )
    scrub.change(
        lambda picked, share: watching.sheet(shelf, picked[0] if picked else "", share),
        *([chosen, scrub], sheet),
        trigger_mode="always_last",
        **QUIETLY,
    )

    def each(act: Callable[[Path, str], str]) -> Callable[[list[str], str], str]:
        def do(picked: list[str], end: str) -> str:
            if not picked:
                return alarm("Choose a run first.")
            return "".join(_said(partial(act, shelf.folder(name), end)) for name in picked)

        return do

    stop.click(each(lambda folder, end: children.stop(folder)), [chosen, until], told, **QUIETLY)
    resume.click(each(lambda folder, end: children.resume(folder)), [chosen, until], told, **QUIETLY)
    extend.click(each(partial(_extend, children)), [chosen, until], told, **QUIETLY)

    def begin(*asked: str) -> tuple[str, str]:
        try:
            return calm(children.start(shelf.root, *asked)), asked[-1].strip()
        except UserError as error:
            return _refused(error), ""

    start.click(begin, [verb, data, recipe, length, eps, name], [told, begun], **QUIETLY)


def _extend(children: Children, folder: Path, end: str) -> str:
    if not end.strip():
        raise UserError("to extend a run, write how long it is to be, as '2M images'")
    return children.resume(folder, end)


def _said(act: Callable[[], str]) -> str:
    """What an act says of itself, or why it could not be."""
    try:
        return calm(act())
    except UserError as error:
        return _refused(error)


def _refused(error: UserError) -> str:
    return alarm(f"{str(error)[:1].upper()}{str(error)[1:]}.")


def _fresh(menu: gr.Dropdown, names: Callable[[], list[str]], tab: gr.Tab, place: int = 0) -> None:
    """Fill a menu anew when its tab is opened, keeping what was chosen."""

    def fill(known: str | None) -> Any:
        found = names()
        usual = found[min(place, len(found) - 1)] if found else None
        return gr.Dropdown(found, value=known if known in found else usual)

    tab.select(fill, menu, menu, **QUIETLY)


def _latent(shelf: Shelf, tab: gr.Tab) -> None:
    def names() -> list[str]:
        return shelf.networks("generator")

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            name = gr.Dropdown(names(), value=None, label="Generator", elem_id="generator")
            seed = gr.Slider(0, 999, 0, step=1, label="Seed", elem_id="seed")
            other = gr.Slider(0, 999, 1, step=1, label="Seed to go to")
            way = gr.Slider(0, 1, 0, step=0.01, label="How far on the way", elem_id="way")
            truncation = gr.Slider(0, 2, 1, step=0.05, label="Truncation", elem_id="truncation")
            label = gr.Dropdown([], value=None, label="Class", visible=False)
            kind = gr.Radio(list(wandering.KINDS), value=wandering.KINDS[0], label="Directions found by")
            amounts = [
                gr.Slider(-4, 4, 0, step=0.1, label=f"Direction {i + 1}, in standard deviations", elem_id=f"way-{i}")
                for i in range(wandering.DIRECTIONS)
            ]
        with gr.Column(scale=3, min_width=300):
            out = gr.HTML(elem_id="place")

    def show(chosen: str | None, *given: Any) -> str:
        corner, goal, along, closer, which, found_by, *aside = given
        return wandering.place(shelf, chosen, corner, goal, along, closer, which, found_by, aside)

    def kinds(chosen: str | None) -> Any:
        found = wandering.classes_of(shelf, chosen)
        return gr.Dropdown([("all in turn", ""), *found], value="", visible=bool(found))

    _fresh(name, names, tab)
    name.change(kinds, name, label, **QUIETLY)
    _live([name, seed, other, way, truncation, label, kind, *amounts], show, out, tab.select)


def _attack(shelf: Shelf, tab: gr.Tab) -> None:
    def names() -> list[str]:
        return shelf.networks("classifier")

    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            model = gr.Dropdown(names(), value=None, label="Classifier", elem_id="model")
            beside = gr.Dropdown(names(), value=None, label="Beside it, as a hardened one", elem_id="beside")
            norm = gr.Radio(list(fooling.NORMS), value="Linf", label="Norm", elem_id="norm")
            most, usual, step, unit = fooling.NORMS["Linf"]
            eps = gr.Slider(0, most, usual, step=step, label=unit, elem_id="eps")
            data = gr.Textbox(
                "", label="Data", placeholder="what the classifier learnt from", lines=1, elem_id="attack-data"
            )
            index = gr.Number(0, label="Test image", precision=0, minimum=0, elem_id="index")
            upload = gr.File(label="Or a picture of your own", elem_id="upload", height=160)
        with gr.Column(scale=5, min_width=300):
            out = gr.HTML(elem_id="fooled")

    def refit(chosen: str) -> Any:
        most, usual, step, unit = fooling.NORMS[chosen]
        return gr.Slider(0, most, usual, step=step, label=unit)

    norm.change(refit, norm, eps, **QUIETLY)
    _fresh(model, names, tab)

    def pair(chosen: str | None) -> Any:
        try:
            return gr.Dropdown(names(), value=fooling.partner(shelf, chosen))
        except UserError:
            return gr.Dropdown(names(), value=None)

    model.change(pair, model, beside, **QUIETLY)
    controls = [model, beside, data, index, upload, norm, eps]
    _live(controls, lambda *given: fooling.fooled(shelf, *given), out, tab.select)


def _equilibrium(shelf: Shelf, figures: watching.Figures, look: gr.Button, tab: gr.Tab) -> None:
    def names() -> list[str]:
        return [name for name in shelf.names() if _verb(shelf, name) in ("train", "demo")]

    name = gr.Dropdown(names(), value=None, label="Run", elem_id="game")
    out = gr.HTML(elem_id="draw")
    _fresh(name, names, tab)
    _live([name], lambda chosen: comparing.equilibrium(shelf, figures, chosen), out, tab.select, look.click)


def _verb(shelf: Shelf, name: str) -> str:
    try:
        return str(shelf.history(name).about.get("verb"))
    except UserError:
        return ""


def _compare(shelf: Shelf, figures: watching.Figures, tab: gr.Tab) -> None:
    def generators() -> list[str]:
        return shelf.networks("generator")

    with gr.Row():
        one = gr.Dropdown(shelf.names(), value=None, label="One run", elem_id="one", min_width=260)
        other = gr.Dropdown(shelf.names(), value=None, label="Another run", elem_id="other", min_width=260)
    runs = gr.HTML(elem_id="compared")
    gr.HTML("<h3>Two generators, one seed</h3>")
    with gr.Row():
        first = gr.Dropdown(generators(), value=None, label="One generator", min_width=260)
        second = gr.Dropdown(generators(), value=None, label="Another generator", min_width=260)
        seed = gr.Slider(0, 999, 0, step=1, label="Seed")
    drawn = gr.HTML(elem_id="drawn")
    for menu, names, place in ((one, shelf.names, 0), (other, shelf.names, 1)):
        _fresh(menu, names, tab, place)
    for menu, place in ((first, 0), (second, 1)):
        _fresh(menu, generators, tab, place)
    _live([one, other], lambda *given: comparing.runs(shelf, figures, *given), runs, tab.select)
    _live([first, second, seed], lambda *given: comparing.generators(shelf, *given), drawn, tab.select)
