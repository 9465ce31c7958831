"""``studio``: the page, served on this machine alone unless a host is named."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path

from rivals.base.errors import UserError

PORT = 7860
MORE = 20  # ports tried after it, where none was asked for


def studio(
    runs: Path = Path("runs"),
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open: bool = True,
) -> None:
    """Show runs and networks on a page, to watch and play with.

    Args:
        runs: The folder of runs.
        host: Address to serve at; 127.0.0.1 is this machine alone. Whoever reaches the page can train here.
        port: Port to serve at; the first free one from 7860 if none is given.
        open: Open the page in a browser.

    Raises:
        UserError: the extra is missing, the folder is a file, or the address or port cannot be had.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the studio needs the package gradio: pip install 'rivals[studio]'")
    root = Path(runs)
    if root.exists() and not root.is_dir():
        raise UserError(f"'{root}' is a file: name the folder that the runs are in")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder '{root}' cannot be made: {error.strerror}: name another") from None
    found = free_port(host, port)
    # Before gradio is imported, which reads them then: nothing is told to anybody, nothing is asked of the network.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

    from rivals.studio.page import serve

    print(f"the studio of '{root}' is at http://{host}:{found} (Ctrl-C closes it; runs go on)", file=sys.stderr)
    going = serve(root, host, found, open_browser=open)
    for folder in going:
        print(f"goes on: {folder}", file=sys.stderr)


def free_port(host: str, port: int | None) -> int:
    """The port asked for if it is free, or the first free one.

    Raises:
        UserError: it is in use, out of range, or there is no such address here.
    """
    if port is not None and not 1 <= port <= 65535:
        raise UserError(f"there is no port {port}: take a number from 1024 to 65535")
    candidates = [port] if port is not None else list(range(PORT, PORT + MORE))
    for each in candidates:
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, each))
            return each
        except PermissionError:
            raise UserError(f"port {each} is for the system alone: take one from 1024 to 65535") from None
        except socket.gaierror:
            raise UserError(
                f"'{host}' is no address of this machine: leave --host out, or give 0.0.0.0 for all"
            ) from None
        except OSError as error:
            if error.errno == 99:  # cannot assign the address asked for
                raise UserError(f"'{host}' is no address of this machine: leave --host out, or give 0.0.0.0") from None
    taken = f"port {port} is" if port is not None else f"the ports {PORT} to {PORT + MORE - 1} are"
    raise UserError(f"{taken} in use: choose another with --port, or close what serves there")
