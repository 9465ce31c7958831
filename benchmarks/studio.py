"""The studio in a browser: how soon pages and images appear, and how much ten open pages slow a training run down.

Each time is given twice: wall-clock, and processor time of server and browser together. On an idle machine the first is
about the second plus the page's own pauses; where other programs hold the cores, only the second is reliable.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from tests.helpers.fake_runs import batches, fake_run

from benchmarks.harness import RESULTS, record
from rivals.studio.server import listen

MODELS = Path(__file__).parent / "models"
TARGETS = {"load": 3.0, "first_image": 2.0, "mnist": 0.3, "cifar10": 1.5, "long_run": 2.0, "slower": 0.05}
VIEWERS, ROUNDS, WINDOW = 10, 4, 25.0  # open pages, rounds with and without them, and seconds of each
RECORDS = 100_000
TICK = os.sysconf("SC_CLK_TCK")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def spent(*pids: int) -> float:
    """Processor seconds of processes and of their descendants that are alive."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)], ticks[int(path.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    ours = set(pids)
    while found := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= found
    return sum(ticks.get(pid, 0) for pid in ours) / TICK


@contextmanager
def server(home: Path) -> Iterator[tuple[str, int]]:
    """A studio of a folder: its address and its process."""
    with listen("127.0.0.1", None) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "rivals", "studio", str(home), "--port", str(port), "--no-open"]
    process = subprocess.Popen(words, env={**os.environ, **ONE_THREAD}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    announced = re.search(r"http://\S+", process.stderr.readline())
    assert announced is not None, process.stderr.read()
    address = announced[0]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        while True:
            try:
                opener.open(address).close()
                break
            except OSError:
                assert process.poll() is None, "the studio did not start"
                time.sleep(0.1)
        time.sleep(45)  # until it has imported torch, which would be counted in
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def timed(pid: int, act: Callable[[], Any]) -> dict[str, float]:
    """What an action takes: wall-clock seconds, and processor seconds of server and browser together."""
    before, began = spent(pid, os.getpid()), time.perf_counter()
    act()
    return {"clock": time.perf_counter() - began, "processor": spent(pid, os.getpid()) - before}


def medians(times: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, with all measurements."""
    kinds = ("clock", "processor")
    found: dict[str, Any] = {kind: round(median(each[kind] for each in times), 3) for kind in kinds}
    return found | {"all": [[round(each[kind], 3) for kind in kinds] for each in times]}


def opened(browser: Browser, address: str, wide: int = 1280) -> Page:
    """A page of its own browser context, at the list of runs."""
    page = browser.new_context(viewport={"width": wide, "height": 900}).new_page()
    page.set_default_timeout(300_000)
    page.goto(address)
    page.wait_for_selector("#runs-list .runs, #runs-list .ok")
    return page


def loads(browser: Browser, address: str, pid: int, rounds: int = 7) -> dict[str, Any]:
    """From the address to the list of runs, with curves and the newest sample grid."""
    times = []
    for _ in range(rounds):
        pages: list[Page] = []

        def load(pages: list[Page] = pages) -> None:
            pages.append(opened(browser, address))
            pages[0].wait_for_selector("#curves svg >> visible=true")
            pages[0].wait_for_selector("#sample-grid img")

        times.append(timed(pid, load))
        pages[0].context.close()
    return medians(times[1:])  # the first fills the browser's and the server's caches


def first_images(browser: Browser, address: str, pid: int, home: Path, rounds: int = 7) -> dict[str, Any]:
    """From the time that the first sample grid of a new run is written until an open page shows it."""
    page, times = opened(browser, address), []
    for number in range(rounds):
        shutil.rmtree(home / "new", ignore_errors=True)
        page.wait_for_selector("#runs-list .ok")
        page.wait_for_function("document.querySelector('#sample-grid img') === null")
        time.sleep(0.37 * number % 1)  # at all phases of the page's polling
        fake_run(home / "aside", steps=1, grids=1)
        (home / "aside").rename(home / "new")
        times.append(timed(pid, lambda: page.wait_for_selector("#sample-grid img")))
    page.context.close()
    return medians(times)


def slides(browser: Browser, address: str, pid: int, models: tuple[str, ...], rounds: int = 15) -> dict[str, Any]:
    """From a move of the eps slider to another adversarial example."""
    found, page = {}, opened(browser, address)
    page.get_by_role("tab", name="Attack", exact=True).click()
    picture, eps = "#attack-result .trio figure:nth-child(3) img", page.locator("#eps input[type=number]")
    for model in models:
        menu = page.locator("#model input")
        menu.click()
        page.get_by_role("option", name=f"{model}.safetensors", exact=True).click()
        page.locator("#attack-result h4", has_text=f"{model}.safetensors").first.wait_for()
        time.sleep(3)
        n_classifiers = page.locator("#attack-result h4").count()
        times = []
        for number in range(rounds):
            before = page.locator(picture).first.get_attribute("src")

            def slide(number: int = number, before: str | None = before) -> None:
                eps.fill(str(10 + number))
                eps.press("Enter")
                page.wait_for_function("([w, b]) => document.querySelector(w)?.src !== b", arg=[picture, before])

            times.append(timed(pid, slide))
        found[model] = medians(times[1:]) | {"classifiers_at_once": n_classifiers}
    page.context.close()
    return found


def long_run(home: Path) -> dict[str, Any]:
    """The first view of a run of 100,000 records, and of one of a tenth of them, each in a process of its own."""
    found = {}
    for records in (RECORDS // 10, RECORDS):
        run = fake_run(home / f"long-{records}", steps=1)
        run.metrics.write_text("".join(json.dumps(each) + "\n" for each in batches(records)))
        script = (
            "import os, time; from pathlib import Path; from rivals.studio import tab_runs;"
            "from rivals.studio.run_store import RunStore;"
            "from rivals.studio.figure_cache import FigureCache;"
            "held = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGESIZE') / 1e6;"
            "before = held();"
            "b, c = time.perf_counter(), time.process_time(); s = RunStore(Path({home!r})); n = [{name!r}];"
            "tab_runs.curves(s, FigureCache(), n); tab_runs.health(s, n);"
            "print(time.perf_counter() - b, time.process_time() - c, held() - before)"
        ).format(home=str(home), name=f"long-{records}")
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
        clock, processor, megabytes = map(float, out)
        found[str(records)] = {
            "clock": round(clock, 2),
            "processor": round(processor, 2),
            "megabytes": round(megabytes),
        }
        shutil.rmtree(run.folder)
    return found


def ten_viewers(browser: Browser, address: str, pid: int, home: Path) -> dict[str, Any]:
    """Training images per processor second, and the server's share of a core, with ten pages open and without."""
    words = [sys.executable, "-m", "rivals", "train", "mnist5k", "--until", "60 minutes", "--quiet"]
    run = home / "training"
    training = subprocess.Popen(
        [*words, "--out", str(run)],
        env={**os.environ, **ONE_THREAD},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        records = run / "metrics.jsonl"
        while not (records.exists() and records.stat().st_size > 5000):
            time.sleep(0.5)
        pages = [opened(browser, address, 1280 if number % 2 else 390) for number in range(VIEWERS)]
        requests: list[str] = []
        for page in pages:
            page.wait_for_selector("#curves svg >> visible=true")
            page.on("request", lambda sent: requests.append(sent.url))
        sides: dict[str, list[dict[str, float]]] = {"alone": [], "viewed": []}
        for _ in range(ROUNDS):
            for side, windows in sides.items():
                for page in pages:
                    page.context.set_offline(side == "alone")
                pages[0].wait_for_timeout(3000)
                requests.clear()
                windows.append(_window(pages[0], records, training.pid, pid) | {"requests": len(requests)})
        for page in pages:
            page.context.close()
    finally:
        training.send_signal(signal.SIGTERM)
        training.wait()
    # Of all windows together: where the cores are busy, one window holds a second or two of the training.
    pace = {
        side: sum(each["images"] for each in windows) / sum(each["processor_seconds"] for each in windows)
        for side, windows in sides.items()
    }
    share = median(each["server_share"] for each in sides["viewed"])
    return {
        "viewers": VIEWERS,
        "images_per_processor_second": {side: round(each, 1) for side, each in pace.items()},
        "slower": round(1 - pace["viewed"] / pace["alone"], 4),
        "server_share_of_a_core": round(share, 4),
        "server_share_alone": round(median(each["server_share"] for each in sides["alone"]), 4),
        "windows": sides,
    }


def _window(page: Page, records: Path, training: int, studio: int) -> dict[str, float]:
    """What was done between two records, a window apart."""

    def at_a_record() -> tuple[int, float, float, float]:
        size = records.stat().st_size
        while records.stat().st_size == size:
            page.wait_for_timeout(5)
        now = (spent(training), spent(studio), time.perf_counter())
        lines = records.read_bytes()[-20_000:].splitlines()
        return int(json.loads(lines[-1])["images"]), *now

    first = at_a_record()
    page.wait_for_timeout(1000 * WINDOW)
    last = at_a_record()
    images, trained, served, clock = (b - a for a, b in zip(first, last, strict=True))
    return {
        "processor_seconds": round(trained, 2),
        "server_share": round(served / clock, 4),
        "images": images,
        "seconds": round(clock, 2),
    }


PARTS = ("long_run", "first_image", "load", "slider", "ten_viewers")


def main() -> None:
    """Measure everything, or only the parts that are named, keeping earlier results of the others."""
    path = RESULTS / "studio.json"
    parts = sys.argv[1:] or PARTS
    before = json.loads(path.read_text()) if path.exists() else {}
    facts: dict[str, Any] = {"target": TARGETS} | {part: before[part] for part in PARTS if part in before}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        arguments = ["--no-sandbox", "--no-proxy-server", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        facts["browser"] = f"Chromium {browser.version}, headless"
        runs, empty, long = (Path(folder) / name for name in ("runs", "empty", "long"))
        for each in (runs, empty, long):
            each.mkdir()
        fake_run(runs / "made", steps=2000)
        for model in ("mnist-plain", "mnist-hard", "cifar10-plain"):
            for suffix in (".json", ".safetensors"):
                shutil.copy(MODELS / f"{model}{suffix}", runs)
        ways = {
            "long_run": lambda: long_run(long),
            "first_image": lambda: served(empty, lambda *at: first_images(browser, *at, empty)),
            "load": lambda: served(runs, lambda *at: loads(browser, *at)),
            "slider": lambda: served(runs, lambda *at: slides(browser, *at, ("mnist-plain", "cifar10-plain"))),
            "ten_viewers": lambda: served(runs, lambda *at: ten_viewers(browser, *at, runs)),
        }
        for part in parts:
            facts[part] = ways[part]()
            print(part, facts[part], flush=True)
        browser.close()
    record("studio", **facts)


def served(home: Path, measure: Callable[[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Measure the studio of a folder, given its address and its process."""
    with server(home) as at:
        return measure(*at)


if __name__ == "__main__":
    main()
