"""Signals as a request to stop, or as an exception; alone and one inside the other."""

import os
import signal
import sys

import pytest

from rivals.base.signals import interrupt_on_signal, stop_on_signal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP and no SIGUSR1")
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_asks_to_stop_or_interrupts(number):
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
    with pytest.raises(KeyboardInterrupt), interrupt_on_signal():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_repeats_do_not_disturb_what_saves_after_the_first_signal_but_ctrl_c_does():
    saved = []
    with interrupt_on_signal():
        try:
            with interrupt_on_signal():
                signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGTERM)
            saved.append("first part")
            signal.raise_signal(signal.SIGHUP)
            saved.append("second part")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert saved == ["first part", "second part"]
    with pytest.raises(KeyboardInterrupt), interrupt_on_signal():  # the next command is a new one
        signal.raise_signal(signal.SIGTERM)


def test_a_hangup_is_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt_on_signal(), stop_on_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_printed_after_the_terminal_was_closed_is_no_error():
    pty = pytest.importorskip("pty")
    child, terminal = pty.fork()
    if not child:
        with stop_on_signal() as stop:
            os.write(1, b"ready")
            while not stop():
                signal.pause()
        try:
            os.write(2, b"saved")
            os._exit(7)
        except OSError:
            os._exit(8)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
