"""The page, made by Gradio and served until Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib
import socket
import threading
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rivals.studio.access import AccessControl, AllowedHosts
from rivals.studio.classifier_sources import ClassifierSources
from rivals.studio.data_sources import DataSources
from rivals.studio.figure_cache import FigureCache
from rivals.studio.input_images import MAX_BYTES
from rivals.studio.layout_offers import Offers
from rivals.studio.layout_runs import build_runs_tab
from rivals.studio.layout_tabs import (
    build_attack_tab,
    build_compare_tab,
    build_equilibrium_tab,
    build_latent_tab,
    build_translate_tab,
)
from rivals.studio.polling import UpdateChecker
from rivals.studio.processes import RunProcesses
from rivals.studio.run_store import RunStore
from rivals.studio.uploads import UploadLimits

STYLE = Path(__file__).with_name("studio.css")
SCRIPT = Path(__file__).with_name("page.js")
TORCH_DELAY = 4.0  # seconds after which torch is imported
# Fonts that every machine has, as the page asks the network for nothing.
FONT: Any = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Arial", "sans-serif"]
MONOSPACE: Any = ["ui-monospace", "Menlo", "Consolas", "monospace"]


@dataclass(frozen=True)
class Studio:
    """What the page works with.

    Attributes:
        store: The runs.
        processes: Those that the page has started.
        sources: The data that it may read.
        classifiers: What it may attack.
    """

    store: RunStore
    processes: RunProcesses
    sources: DataSources
    classifiers: ClassifierSources


def serve(studio: Studio, listening: socket.socket, hosts: AllowedHosts, token: str, uploads: Path) -> None:
    """Serve the page until Ctrl-C.

    Args:
        studio: What the page works with.
        listening: The socket to serve at.
        hosts: Names by which the page may be reached.
        token: What a user must know.
        uploads: The folder that receives uploads: that of ``GRADIO_TEMP_DIR`` when Gradio was imported.
    """
    # Torch takes seconds to import: do it before the first tab needs it, but after the page is served.
    timer = threading.Timer(TORCH_DELAY, importlib.import_module, ("rivals.attacks",))
    timer.daemon = True
    timer.start()
    app = AccessControl(UploadLimits(build_app(studio), uploads), hosts, token)
    # A page holds a connection open for as long as it is shown, so closing cannot wait for all of them.
    config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1, server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def build_app(studio: Studio) -> FastAPI:
    """The routes of the page, which is open to everybody: :class:`AccessControl` is to be put before it."""
    page, check_updates = build_page(studio), UpdateChecker(studio.store, studio.processes)

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(check_updates(request.query_params.get("page", "")))

    page.queue(default_concurrency_limit=4)
    app = FastAPI(routes=[Route("/studio/updates", answer)], openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        max_file_size=MAX_BYTES,
        js=SCRIPT.read_text("utf-8"),
        css_paths=[STYLE],
        theme=gr.themes.Base(font=FONT, font_mono=MONOSPACE, primary_hue="blue", radius_size="sm"),
    )
    return app


def build_page(studio: Studio) -> gr.Blocks:
    """The page of a folder of runs."""
    store, figures = studio.store, FigureCache()
    with gr.Blocks(title="Rivals studio", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(f"<h1>Rivals studio</h1><p class='muted'>{escape(str(store.root.resolve()))}</p>")
        # The page's script clicks these hidden buttons when there is anything new.
        refresh_runs = gr.Button(elem_id="refresh-runs", elem_classes="hidden-button")
        refresh_equilibrium = gr.Button(elem_id="refresh-equilibrium", elem_classes="hidden-button")
        messages = gr.HTML(elem_id="messages", render=False)
        started = gr.State("", render=False)  # the run that was started from this page, until it is in the list
        with gr.Tabs(selected="runs") as tabs:
            offers = Offers(store, studio.processes, studio.sources, tabs, messages, started)
            with gr.Tab("Runs", id="runs"):
                openers = build_runs_tab(offers, figures, refresh_runs, bool(studio.classifiers.committed()))
            with gr.Tab("Latent", id="latent") as latent:
                build_latent_tab(offers, latent)
            with gr.Tab("Translate", id="translate") as translate:
                build_translate_tab(offers, translate)
            with gr.Tab("Attack", id="attack") as attack:
                build_attack_tab(studio.classifiers, offers, openers, attack)
            with gr.Tab("Equilibrium", id="equilibrium") as equilibrium:
                build_equilibrium_tab(offers, figures, refresh_equilibrium, equilibrium)
            with gr.Tab("Compare", id="compare") as compare:
                build_compare_tab(offers, figures, compare)
    return page
