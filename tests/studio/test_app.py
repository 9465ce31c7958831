"""The studio in a browser: every tab loads, runs are begun and stopped, sliders move pictures, nothing leaves home."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from fake_runs import fake_run
from rivals.base.spans import Span
from test_studio import networks

pytest.importorskip("gradio", reason="the studio's extra is not installed: pip install 'rivals[studio]'")
sync = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)

WAIT = 120_000  # milliseconds, for machines that are busy


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The address of a studio, and its folder of runs."""
    home = tmp_path_factory.mktemp("runs")
    networks(home)
    fake_run(home / "made", config={"until": "12800 images", "batch": 64})
    with socket.socket() as probe:  # any port: another worker's studio, begun as this one is, takes the first free one
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(home.parent / "uploads")}
    words = [sys.executable, "-m", "rivals", "studio", str(home), "--port", str(port), "--no-open"]
    server = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, cwd=home)
    address = f"http://127.0.0.1:{port}/"
    end = time.monotonic() + 240
    while True:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address).close()
            break
        except OSError:
            assert server.poll() is None, server.stderr.read()
            assert time.monotonic() < end, "the studio does not answer"
            time.sleep(0.2)
    yield address, home
    assert server.poll() is None, f"the studio ended by itself with {server.returncode}: {server.stderr.read()}"
    server.send_signal(signal.SIGINT)
    said = server.communicate(timeout=30)[1]
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def browser():
    with sync.sync_playwright() as playwright:
        options = ["--no-sandbox", "--no-proxy-server", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390])
def page(studio, browser, request):
    """The page, open; at its end there were no errors and no requests to anybody else."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.set_default_timeout(WAIT)
    errors, strangers = [], []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    def watch(sent):
        if not sent.url.startswith((studio[0], "data:", "blob:")):
            strangers.append(sent.url)

    page.on("request", watch)
    page.goto(studio[0])
    page.wait_for_selector("#runs-list .runs")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param
    page.close()
    assert not errors and not strangers


def turn_to(page, tab):
    """Open a tab, be it behind the menu of those that have no room."""
    place = page.get_by_role("tab", name=tab, exact=True)
    if not place.is_visible():
        page.locator(".overflow-menu button").first.click()
        place = page.locator(".overflow-dropdown").get_by_text(tab, exact=True)
    place.click()


def slide(page, name, value):
    """Move a slider by its number."""
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def changes(page, where, before):
    """Wait until the picture is another."""
    page.wait_for_function(
        "([where, before]) => { const now = document.querySelector(where); return now && now.src !== before }",
        arg=[where, before],
    )


def test_every_tab(page, studio):
    page.wait_for_selector("#curves svg >> visible=true")
    page.wait_for_selector("#sheet img")

    turn_to(page, "Latent")
    picture = page.wait_for_selector("#place img").get_attribute("src")
    slide(page, "seed", 5)
    changes(page, "#place img", picture)

    turn_to(page, "Attack")
    page.wait_for_selector("#fooled")
    page.locator("#attack-data textarea, #attack-data input").first.fill(str(Path(studio[1]) / "photos"))
    attacked = "#fooled .trio figure:nth-child(3) img"
    before = page.wait_for_selector(attacked).get_attribute("src")
    slide(page, "eps", 100)
    changes(page, attacked, before)
    with page.expect_file_chooser() as chooser:
        page.locator("#upload").get_by_text("Click to Upload").click()
    svg = {"name": "bad.png", "mimeType": "image/png", "buffer": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}
    chooser.value.set_files(svg)
    page.locator("#fooled .alarm", has_text="cannot be read").wait_for()

    turn_to(page, "Equilibrium")
    page.wait_for_selector("#draw .words")
    turn_to(page, "Compare")
    page.wait_for_selector("#drawn img")


def listed(page, name, says):
    """Wait until the list of runs says so of a run."""
    page.locator("#runs-list li", has_text=name).filter(has_text=says).wait_for()


def choose(page, name):
    """Look at one run more. A menu that news set anew closes under the hand, which then opens it again."""
    for patience in (3_000, 3_000, WAIT):
        page.locator("#chosen input").click()
        try:
            page.get_by_role("option", name=name, exact=True).click(timeout=patience)
            break
        except sync.TimeoutError:
            page.keyboard.press("Escape")
            page.locator("h1, h2, label").first.click()
    page.keyboard.press("Escape")
    page.locator("#chosen .token", has_text=name).wait_for()


def test_what_cannot_be_shown_is_said(page, studio):
    if page.viewport_size["width"] < 1000:
        pytest.skip("the same on a narrow page: once is enough")
    home = studio[1]
    for name, content in (("half", '{"format": 1, "st'), ("newer", '{"format": 99}')):
        (home / name).mkdir()
        (home / name / "run.json").write_text(content)
    fake_run(home / "brief", steps=20)
    listed(page, "half", "cannot be understood")
    listed(page, "newer", "newer version")
    listed(page, "brief", "finished")
    choose(page, "half")
    page.locator("#curves .alarm", has_text="cannot be understood").wait_for()
    shutil.rmtree(home / "half")
    page.locator("#curves svg >> visible=true").first.wait_for()  # of the run that is left
    choose(page, "brief")  # before the other is let go: a page on which nothing is chosen chooses by itself
    page.locator("#chosen .token", has_text="made").locator("[title^=Remove]").click()
    page.locator("#sheet figcaption", has_text="brief").wait_for()
    shutil.rmtree(home / "brief")
    page.locator("#sheet figcaption", has_text="brief").wait_for(state="detached")
    assert page.locator("#runs-list li", has_text="brief").count() == 0
    shutil.rmtree(home / "newer")


def test_a_run_is_begun_stopped_resumed_and_extended(page, studio):
    if page.viewport_size["width"] < 1000:
        pytest.skip("the same on a narrow page: once is enough")
    begin = page.locator("#begin").get_by_text("Begin a run")
    if not page.locator("#start").is_visible():
        begin.click()
    page.locator("#data textarea, #data input").first.fill(str(Path(studio[1]) / "photos"))
    page.locator("#length textarea, #length input").first.fill("4 minutes")
    page.locator("#name textarea, #name input").first.fill("made")
    page.locator("#start").click()
    page.locator("#told .alarm", has_text="exists already").wait_for()
    page.locator("#name textarea, #name input").first.fill("begun")
    page.locator("#start").click()
    page.locator("#told .calm", has_text="has begun").wait_for()
    listed(page, "begun", "running: ")
    # What was begun here is looked at as soon as it is there.
    page.locator("#chosen .token", has_text="begun").wait_for()
    page.locator("#chosen .token", has_text="made").wait_for(state="detached")
    page.locator("#resume").click()
    page.locator("#told .alarm", has_text="'begun' is running already").wait_for()

    def stop():
        page.locator("#stop").click()
        page.locator("#told .calm", has_text="'begun' was asked to stop").wait_for()
        listed(page, "begun", "interrupted: ")
        return json.loads((studio[1] / "begun" / "run.json").read_text())

    while not (studio[1] / "begun" / "samples").exists():  # stopped any earlier, it would leave nothing to resume
        page.wait_for_timeout(100)
    first = stop()
    page.locator("#resume").click()
    page.locator("#told .calm", has_text="goes on from its last checkpoint").wait_for()
    listed(page, "begun", "running: ")
    page.wait_for_function("document.querySelector('#sheet img') !== null")
    second = stop()
    assert second["images"] > first["images"] and second["config"]["until"] == "4 minutes"

    page.locator("#extend").click()
    page.locator("#told .alarm", has_text="write how long it is to be").wait_for()
    end = second["images"] + 5 * second["config"]["batch"]
    page.locator("#extend-to textarea, #extend-to input").first.fill(f"{end} images")
    page.locator("#extend").click()
    listed(page, "begun", f"finished: 100 %, {end:,} images")
    last = json.loads((studio[1] / "begun" / "run.json").read_text())
    assert last["images"] == end and Span.parse(last["config"]["until"]) == Span(end, "images")
    assert (studio[1] / "begun" / "generator.safetensors").exists()
