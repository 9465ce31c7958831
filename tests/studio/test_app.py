"""The studio in a browser: tabs, sliders, starting and stopping runs, and no request to another host."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import NamedTuple

import pytest

from helpers.fake_runs import fake_run
from helpers.small_networks import save_networks
from rivals.base.duration import Duration

pytest.importorskip("gradio", reason="the studio's extra is not installed: pip install 'rivals[studio]'")
sync = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)

BROWSER_OPTIONS = ["--no-sandbox", "--no-proxy-server", "--disable-background-networking"]
WAIT = 120_000  # milliseconds, for machines that are busy


class Address(NamedTuple):
    """Where a studio is: without and with its token."""

    base: str
    full: str


@contextlib.contextmanager
def serve(home, *words):
    """A studio of a folder, until it is closed by Ctrl-C, which leaves no temporary files."""
    with socket.socket() as probe:  # any port: another worker's studio, begun as this one is, takes the first free one
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scratch = home.parent / f"{home.name}-temporary"
    scratch.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    command = [sys.executable, "-m", "rivals", "studio", str(home), "--port", str(port), "--no-open", *words]
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=home)
    full = re.search(r"http://\S+", server.stderr.readline())[0]
    base = f"http://127.0.0.1:{port}/"
    assert full.startswith(f"{base}?token=")
    end = time.monotonic() + 240
    while True:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(full).close()
            break
        except OSError:
            assert server.poll() is None, server.stderr.read()
            assert time.monotonic() < end, "the studio does not answer"
            time.sleep(0.2)
    yield Address(base, full)
    assert server.poll() is None, f"the studio ended by itself with {server.returncode}: {server.stderr.read()}"
    server.send_signal(signal.SIGINT)
    said = server.communicate(timeout=30)[1]
    assert server.returncode == 0 and "Traceback" not in said, said
    assert not list(scratch.glob("rivals-studio-*"))


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The address of a studio, and its folder of runs."""
    home = tmp_path_factory.mktemp("runs")
    save_networks(home)
    fake_run(home / "made", config={"until": "12800 images", "batch_size": 64})
    with serve(home, "--data", str(home / "photos")) as address:
        yield address, home


@pytest.fixture(scope="module")
def playwright():
    with sync.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright):
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_OPTIONS)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def browser_of_victim(playwright):
    """A browser for which evil.test is this machine, as after DNS rebinding."""
    rebinding = "--host-resolver-rules=MAP evil.test 127.0.0.1"
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*BROWSER_OPTIONS, rebinding])
    yield browser
    browser.close()


@pytest.fixture(params=[1280, 390])
def page(studio, browser, request):
    """The page, open; at its end there were no errors and no requests to anybody else."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.set_default_timeout(WAIT)
    foreign_requests = []
    page.errors = []
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))

    def watch(sent):
        if not sent.url.startswith((studio[0].base, "data:", "blob:")):
            foreign_requests.append(sent.url)

    page.on("request", watch)
    page.goto(studio[0].full)
    page.wait_for_selector("#runs-list .runs")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param
    page.close()
    assert not page.errors and not foreign_requests


def open_tab(page, tab):
    """Open a tab, or its entry in the menu of a narrow page, which closes when the page lays itself out again."""
    for timeout in (5_000, 5_000, 5_000, WAIT):
        entry = page.get_by_role("tab", name=tab, exact=True)
        if not entry.is_visible():
            page.locator(".overflow-menu button").first.click()
            entry = page.locator(".overflow-dropdown").get_by_text(tab, exact=True)
        try:
            entry.click(timeout=timeout)
            return
        except sync.TimeoutError:
            if timeout == WAIT:
                raise


def slide(page, name, value):
    """Move a slider by its number."""
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def pick(page, menu, choice):
    """Choose an entry of a menu."""
    page.locator(f"#{menu} input").click()
    page.get_by_role("option", name=choice, exact=True).click()


def changes(page, where, before):
    """Wait until the picture is another."""
    page.wait_for_function(
        "([where, before]) => { const now = document.querySelector(where); return now && now.src !== before }",
        arg=[where, before],
    )


def with_reloads(test):
    """Try again on a reloaded page, as a user would.

    Gradio now and then loses the last of several changes that come while it works (``always_last``; seen with 6.28 and
    6.31, in one of ten tries): then the page shows the one before.
    """

    @functools.wraps(test)
    def tried(page, studio):
        for patience in (30_000, 30_000):
            page.set_default_timeout(patience)
            try:
                return test(page, studio)
            except sync.TimeoutError:
                before = list(page.errors)
                page.goto(studio[0].full)
                page.wait_for_selector("#runs-list .runs", timeout=WAIT)
                page.errors[:] = before  # not that the page's requests were aborted when it was left
        page.set_default_timeout(WAIT)
        return test(page, studio)

    return tried


SCALES = """() => [...document.querySelectorAll("figure.picture img")].filter((image) => image.offsetParent)
  .map((image) => [image.getBoundingClientRect().width * devicePixelRatio / image.naturalWidth,
                   getComputedStyle(image).imageRendering])"""


def check_scales(page):
    """All pictures are shown at whole-number scales, and not smoothed."""
    found = page.evaluate(SCALES)
    assert found
    for scale, rendering in found:
        assert scale >= 1 and scale == pytest.approx(round(scale), abs=1e-3) and rendering == "pixelated"


@with_reloads
def test_every_tab_responds_to_its_controls(page, studio):
    page.wait_for_selector("#curves svg >> visible=true")
    page.wait_for_selector("#sample-grid img")
    check_scales(page)

    open_tab(page, "Latent")
    picture = page.wait_for_selector("#latent-images img").get_attribute("src")
    slide(page, "seed", 5)
    changes(page, "#latent-images img", picture)
    check_scales(page)

    open_tab(page, "Attack")
    page.wait_for_selector("#attack-result")
    pick(page, "attack-data", str(studio[1] / "photos"))
    attacked = "#attack-result .trio figure:nth-child(3) img"
    before = page.wait_for_selector(attacked).get_attribute("src")
    slide(page, "eps", 100)
    changes(page, attacked, before)
    check_scales(page)
    with page.expect_file_chooser() as chooser:
        page.locator("#upload").get_by_text("Click to Upload").click()
    svg = {"name": "bad.png", "mimeType": "image/png", "buffer": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}
    chooser.value.set_files(svg)
    page.locator("#attack-result .alarm", has_text="cannot be read").wait_for()

    open_tab(page, "Equilibrium")
    page.wait_for_selector("#equilibrium-view .glossary")
    open_tab(page, "Compare")
    page.wait_for_selector("#compared-samples img")
    check_scales(page)


def test_an_empty_folder_offers_runs_and_attacks_by_one_click(browser, tmp_path):
    home = tmp_path / "runs"
    home.mkdir()
    with serve(home) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1.5)
        page.set_default_timeout(WAIT)
        page.goto(address.full)
        page.wait_for_selector("#runs-list .ok")
        for tab, stem in (("Latent", "gan"), ("Translate", "enlarger"), ("Attack", "classifier"), ("Runs", "gan")):
            open_tab(page, tab)
            page.locator(f".start-{stem} >> visible=true").wait_for()
        page.locator("#open-committed").click()
        page.locator("#attack-result .trio img").first.wait_for()
        check_scales(page)
        page.close()


def wait_for_state(page, name, says):
    """Wait until the list of runs shows a state."""
    page.locator("#runs-list li", has_text=name).filter(has_text=says).wait_for()


def choose(page, name):
    """Choose one more run. An update closes the menu, so try again."""
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


@with_reloads
def test_unreadable_and_deleted_runs_are_messages(page, studio):
    if page.viewport_size["width"] < 1000:
        pytest.skip("the same on a narrow page: once is enough")
    home = studio[1]
    for name, content in (("half", '{"format": 1, "st'), ("newer", '{"format": 99}')):
        (home / name).mkdir(exist_ok=True)
        (home / name / "run.json").write_text(content)
    shutil.rmtree(home / "brief", ignore_errors=True)
    fake_run(home / "brief", steps=20)
    wait_for_state(page, "half", "no JSON at line 1")
    wait_for_state(page, "newer", "newer version")
    wait_for_state(page, "brief", "finished")
    choose(page, "half")
    page.locator("#curves .alarm", has_text="no JSON at line 1").wait_for()
    shutil.rmtree(home / "half")
    page.locator("#curves svg >> visible=true").first.wait_for()  # of the run that is left
    choose(page, "brief")  # before the other is let go: a page on which nothing is chosen chooses by itself
    page.locator("#chosen .token", has_text="made").locator("[title^=Remove]").click()
    page.locator("#sample-grid figcaption", has_text="brief").wait_for()
    shutil.rmtree(home / "brief")
    page.locator("#sample-grid figcaption", has_text="brief").wait_for(state="detached")
    assert page.locator("#runs-list li", has_text="brief").count() == 0
    shutil.rmtree(home / "newer")


@with_reloads
def test_run_is_started_stopped_resumed_and_extended_in_the_browser(page, studio):
    if page.viewport_size["width"] < 1000:
        pytest.skip("the same on a narrow page: once is enough")
    begun = next(name for name in ("begun", "begun2", "begun3") if not (studio[1] / name).exists())
    begin = page.locator("#start-form").get_by_text("Start a run")
    if not page.locator("#start").is_visible():
        begin.click()
    pick(page, "data", str(studio[1] / "photos"))
    page.locator("#length textarea, #length input").first.fill("4 minutes")
    page.locator("#name textarea, #name input").first.fill("made")
    page.locator("#start").click()
    page.locator("#messages .alarm", has_text="exists already").wait_for()
    page.locator("#name textarea, #name input").first.fill(begun)
    page.locator("#start").click()
    page.locator("#messages .ok", has_text="has started").wait_for()
    wait_for_state(page, begun, "running: ")
    # What was begun here is looked at as soon as it is there.
    page.locator("#chosen .token", has_text=begun).wait_for()
    page.locator("#chosen .token", has_text="made").wait_for(state="detached")
    page.locator("#resume").click()
    page.locator("#messages .alarm", has_text=f"'{begun}' is running already").wait_for()

    def stop():
        page.locator("#stop").click()
        page.locator("#messages .ok", has_text=f"'{begun}' was asked to stop").wait_for()
        wait_for_state(page, begun, "interrupted: ")
        return json.loads((studio[1] / begun / "run.json").read_text())

    while not (studio[1] / begun / "samples").exists():  # stopped any earlier, it would leave nothing to resume
        page.wait_for_timeout(100)
    first = stop()
    page.locator("#resume").click()
    page.locator("#messages .ok", has_text="resumes from its last checkpoint").wait_for()
    wait_for_state(page, begun, "running: ")
    page.wait_for_function("document.querySelector('#sample-grid img') !== null")
    second = stop()
    assert second["images"] > first["images"] and second["config"]["until"] == "4 minutes"

    page.locator("#extend").click()
    page.locator("#messages .alarm", has_text="give its new length").wait_for()
    end = second["images"] + 5 * second["config"]["batch_size"]
    page.locator("#extend-to textarea, #extend-to input").first.fill(f"{end} images")
    page.locator("#extend").click()
    wait_for_state(page, begun, f"finished: 100%, {end:,} images")
    last = json.loads((studio[1] / begun / "run.json").read_text())
    assert last["images"] == end and Duration.parse(last["config"]["until"]) == Duration(end, "images")
    assert (studio[1] / begun / "generator.safetensors").exists()


ATTACK = """async ([address, path]) => {
  const form = new FormData();
  form.append("files", new Blob(["picture"]), "a.png");
  try { await fetch(address + path, { method: "POST", body: form, mode: "no-cors", credentials: "include" }) } catch {}
}"""


def test_foreign_page_is_refused_even_where_its_name_leads_here(browser_of_victim, studio):
    page, address = browser_of_victim.new_page(), studio[0]
    assert page.goto(address.full).status == 200  # which leaves the cookie
    assert page.goto(address.base).status == 200
    evil = address.base.replace("127.0.0.1", "evil.test")
    refused = page.goto(evil + address.full.removeprefix(address.base))
    assert refused.status == 403 and "not at the host 'evil.test:" in refused.text()
    answers = []
    page.on("response", lambda response: answers.append((response.url, response.status)))
    for path in ("gradio_api/upload", "gradio_api/queue/join", "gradio_api/run/predict", "studio/updates"):
        for target in (address.base, evil):
            page.evaluate(ATTACK, [target, path])
    assert len(answers) == 8 and {status for _, status in answers} == {403}
    page.close()
