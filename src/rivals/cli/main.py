"""``rivals COMMAND ...``: run one command and exit with its status."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rivals.base.errors import Interrupted, ProcessLost, UserError, printable
from rivals.base.files import discard
from rivals.base.launcher import environment_rank, environment_size, tell_others
from rivals.base.signals import interrupt_on_signal

if TYPE_CHECKING:
    from rivals.cli.commands import Command


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 2 the user can fix it, 130 interrupted, after saving if there is a run.

    Of several processes, as ``torchrun`` starts them, the first one speaks; 1 means that another one was lost.
    """
    # A start makes a million objects that stay; to look for garbage among them as often as usual takes a tenth of it.
    gc.set_threshold(20_000)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or a lost process is reported by pages of stack traces
    with interrupt_on_signal():
        _run_and_exit(list(sys.argv[1:] if argv is None else argv))


def _run_and_exit(words: Sequence[str]) -> None:
    try:
        with _told():
            _run(words)
        print(end="", flush=True)  # here: as the interpreter ends it could only complain of a reader that has left
    except UserError as error:
        _exit(str(error), 2)
    except Interrupted as error:
        _exit(str(error), 130)
    except ProcessLost as error:
        with contextlib.suppress(BrokenPipeError):
            print(f"rivals: {error}", file=sys.stderr)
        os._exit(1)  # at once: shutting down would wait for the lost process
    except KeyboardInterrupt:
        _exit("interrupted", 130)
    except BrokenPipeError:  # of the result or the help, whose reader has seen enough
        discard(sys.stdout)
    except OSError as error:
        if error.strerror is None:  # not from the operating system: a bug, to be seen in full
            raise
        what = f"cannot use '{error.filename}'" if error.filename else "the operating system refused"
        fix = "choose another path" if error.filename else "make room or lift the limit, then try again"
        _exit(f"{what}: {error.strerror}: {fix}", 2)
    sys.exit(0)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The first of several processes speaks: so it must know the error of another one, which would be waited for."""
    try:
        yield
    except Exception as error:
        tell_others(error)
        raise


def _run(words: Sequence[str]) -> None:
    # Not at the top of the module: a signal may come while they are imported.
    from rivals.cli.commands import COMMANDS, split_name
    from rivals.cli.formatting import as_json, as_text
    from rivals.cli.parsing import parse

    if not words or words[0] in ("-h", "--help"):
        print(_overview(COMMANDS))
        sys.exit(0 if words else 2)
    if words[0] in ("-V", "--version"):
        from rivals import __version__

        print(f"rivals {__version__}")
        return
    group = {name: command for name, command in COMMANDS.items() if name.startswith(f"{words[0]} ")}
    if group and words[0] not in COMMANDS and words[1:] in ([], ["-h"], ["--help"]):  # as rivals data
        print(_overview(group))
        return
    name, rest = split_name(words)
    call = parse(COMMANDS[name].flags(rest), name, rest)
    if environment_size() > 1 and not COMMANDS[name].on_processes:
        raise UserError(f"rivals {name} runs in one process, and {environment_size()} were started: call it by itself")
    try:
        with _cached_in(call.cache):
            result = call.function(*call.arguments, **call.settings)
    except BrokenPipeError:  # of a note
        raise UserError(
            "a pipe was closed by its reader before the command was done: send standard error to a file or to /dev/null"
        ) from None
    if environment_rank():
        return
    if call.as_json:
        print(as_json(result))
    elif result is not None:
        print(as_text(result))


@contextlib.contextmanager
def _cached_in(folder: Path | None) -> Iterator[None]:
    """Within it decoded images are kept in ``folder``, if there is one."""
    if folder is None:
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--cache '{folder}' is a file: name a folder")
    before = os.environ.get("RIVALS_CACHE")
    os.environ["RIVALS_CACHE"] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["RIVALS_CACHE"]
        else:
            os.environ["RIVALS_CACHE"] = before


def _exit(message: str, status: int) -> None:
    if environment_rank() == 0:
        try:
            print(f"rivals: {printable(message)}", file=sys.stderr)
        except BrokenPipeError:
            discard(sys.stderr)
    sys.exit(status)


def _overview(commands: Mapping[str, Command]) -> str:
    lines = [f"  {name:<19} {command.summary}" for name, command in commands.items()]
    return "\n".join(
        [
            "usage: rivals COMMAND ...",
            "",
            "Adversarial learning for PyTorch: two players, one game, one loop.",
            "",
            *lines,
            "",
            "rivals COMMAND --help shows the flags of a command. All take --config FILE, for settings from a TOML or",
            "JSON file, --json, for the result as one JSON object, and --cache DIR, for where decoded images are kept.",
        ]
    )
