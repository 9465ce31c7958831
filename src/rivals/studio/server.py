"""``studio``: the page, served on this machine only unless a host is named, and only with its token."""

from __future__ import annotations

import errno
import importlib.util
import os
import secrets
import signal
import socket
import sys
import tempfile
import webbrowser
from pathlib import Path

from rivals.base.errors import UserError

PORT = 7860
CLOSING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
N_PORTS = 20  # tried from there if none was given


def studio(
    runs: Path = Path("runs"),
    *,
    data: tuple[str, ...] = (),
    model: tuple[str, ...] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    allow_host: tuple[str, ...] = (),
    open: bool = True,
) -> None:
    """Serve a page to watch runs and explore networks, to whoever has the token in the printed address.

    Args:
        runs: The folder of runs.
        data: A folder or zip of images that the page may read, besides the built-in data sets.
        model: A classifier that the page may attack, besides those of its runs: any that 'rivals attack' takes.
        host: Address to serve at; 127.0.0.1 is this machine only. Whoever has the token can train here.
        port: Port to serve at; the first free one from 7860 if none is given.
        allow_host: Another name by which the page is reached, such as that of a proxy.
        open: Open the page in a browser.

    Raises:
        UserError: the extra is missing, a folder or model is not there, or the address or port is not available.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the studio needs the package gradio: pip install 'rivals[studio]'")
    from rivals.studio.access import PARAMETER, AllowedHosts
    from rivals.studio.classifier_sources import ClassifierSources, named_models
    from rivals.studio.data_sources import DataSources
    from rivals.studio.run_store import RunStore

    root = Path(runs)
    if root.exists() and not root.is_dir():
        raise UserError(f"'{root}' is a file: give the folder of runs")
    sources, hosts = DataSources.named(data), AllowedHosts.of(host, allow_host)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder '{root}': {error.strerror}: give another") from None
    store = RunStore(root)
    classifiers = ClassifierSources(store, named_models(model))
    token = secrets.token_urlsafe(32)
    for number in CLOSING_SIGNALS:  # as Ctrl-C: the temporary files are removed
        signal.signal(number, signal.default_int_handler)
    with (
        listen(host, port) as listening,
        tempfile.TemporaryDirectory(prefix="rivals-studio-", ignore_cleanup_errors=True) as scratch,
    ):
        uploads, logs = Path(scratch) / "uploads", Path(scratch) / "logs"
        # Gradio reads these when it is imported: no telemetry, no requests to the network, a folder for uploads.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)

        from rivals.studio.app import Studio, serve
        from rivals.studio.processes import RunProcesses

        page = Studio(store, RunProcesses(logs, sources), sources, classifiers)
        name = "127.0.0.1" if hosts.any_address else host
        address = f"http://{name}:{listening.getsockname()[1]}/?{PARAMETER}={token}"
        print(f"studio of '{root}': {address} (Ctrl-C closes it; runs continue)", file=sys.stderr, flush=True)
        if open:
            webbrowser.open(address)  # the socket listens already: the browser waits until the page is served
        serve(page, listening, hosts, token, uploads)
    for folder in page.processes.alive():
        print(f"still running: {folder}", file=sys.stderr)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens at the given port, or at the first free one from ``PORT``.

    Raises:
        UserError: the port is in use or out of range, or the host is not an address of this machine.
    """
    if port is not None and not 1 <= port <= 65535:
        raise UserError(f"there is no port {port}: give a number from 1024 to 65535")
    candidates = [port] if port is not None else list(range(PORT, PORT + N_PORTS))
    for candidate in candidates:
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, candidate))
            listening.listen()
            return listening
        except PermissionError:
            listening.close()
            raise UserError(f"port {candidate} is reserved for the system: give one from 1024 to 65535") from None
        except socket.gaierror:
            listening.close()
            raise _wrong_host(host) from None
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise _wrong_host(host) from None
    used = f"port {port} is" if port is not None else f"the ports {PORT} to {PORT + N_PORTS - 1} are"
    raise UserError(f"{used} in use: give another --port, or close what is served there")


def _wrong_host(host: str) -> UserError:
    return UserError(f"'{host}' is not an address of this machine: omit --host, or give 0.0.0.0 for all addresses")
