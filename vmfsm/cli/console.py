"""`vmfsm console`: what a machine's console says, as it comes, and typing at it."""

import os
import sys
import time

import click

from vmfsm.control import Client, ControlError, Disconnected, NoAnswer, NoSuchMachine, Output, Stream
from vmfsm.errors import printable

from .command import command
from .machines import EXITS, complete, find
from .output import colors, one_line
from .terminal.departure import Departure, broken_pipe
from .terminal.interrupts import Interrupted, Interrupts
from .terminal.keys import EscapeKeys, Keyboard
from .terminal.raw import RawTerminal, is_ours
from .terminal.safely import SafeText
from .terminal.sinks import write

_STDIN, _STDOUT = 0, 1
_AGAIN = 0.5
"""Seconds until a machine that is gone is looked for again."""
_TAIL = 64 * 1024
_MOST_TYPED = 64 * 1024
_HELP = """\
Ctrl-] ?       this
Ctrl-] q       leave; the machine goes on
Ctrl-] Ctrl-]  send Ctrl-] to the guest
Everything else goes to the guest, Ctrl-C too."""


@command(
    exits=EXITS,
    examples=(
        ("vmfsm console boot-test", "the last lines, and then what comes"),
        ("vmfsm console boot-test/hvc0 -n 100", "of another console, and more of it"),
        ("vmfsm console -i boot-test", "type at it; Ctrl-] q leaves, Ctrl-] ? says what else there is"),
        ("vmfsm console boot-test >log", "every byte as it is"),
        ("echo ls | vmfsm console -i boot-test", "send a line, and see what follows"),
    ),
)
@click.argument("name", metavar="NAME[/CONSOLE]", shell_complete=complete)
@click.option("-i", "--interactive", is_flag=True, help="Send to the guest what is typed, or comes on stdin.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    metavar="N",
    help="Begin with the last N lines of what came before.",
)
@click.option("--reconnect", is_flag=True, help="Go on when the machine has ended, for its next launch.")
@click.option("--raw", is_flag=True, help="Every byte as it is on a terminal, too, as with -i.")
def console(name: str, interactive: bool, lines: int, reconnect: bool, raw: bool) -> None:
    """Follow a machine's console, or type at it.

    The test that runs the machine, and any number of people, can do so at the same time: all see everything,
    and what they type reaches the guest.

    On a terminal, what the guest says is made harmless: colours are let through, and other control sequences
    are shown as what they are. With --interactive the terminal is the guest's, as a serial terminal is: then
    what it says moves the cursor, and may do whatever else your terminal does when it is told to.
    It ends when the machine does.
    """
    machine, which = _split(name)
    _Following(machine, which, lines=lines, reconnect=reconnect, raw=raw or interactive).run(interactive)


def _split(name: str) -> tuple[str, str | None]:
    """The machine, `NAME` or `PID/NAME`, and the console."""
    head, slash, rest = name.partition("/")
    if slash and head.isdecimal():
        machine, slash, console = rest.partition("/")
        return f"{head}/{machine}", console if slash else None
    return head, rest if slash else None


class _Following:
    def __init__(self, name: str, console: str | None, *, lines: int, reconnect: bool, raw: bool) -> None:
        self._name = name
        self._console = console
        self._lines = lines
        self._reconnect = reconnect
        on_terminal = os.isatty(_STDOUT)
        context = click.get_current_context()
        coloured = on_terminal and colors() is not False and context.color is not False
        self._text = SafeText(colours=coloured) if on_terminal and not raw else None
        self._coloured = coloured and self._text is not None
        self._newline = "\n"
        self._interrupts = Interrupts()
        self._departure = Departure(_STDOUT, lambda: self._interrupts.interrupt("pipe"))
        self._stream: Stream[Output] | None = None
        self._client: Client | None = None
        self._leaving = False
        self._column = False
        """The cursor is not at the start of a line."""

    def run(self, interactive: bool) -> None:
        client = find(self._name)
        self._client = client
        if not interactive:
            with broken_pipe(_STDOUT):
                try:
                    self._follow(client)
                finally:
                    self._end_line()
            return
        keys = EscapeKeys() if is_ours(_STDIN) else None
        with self._interrupts:
            terminal = RawTerminal(_STDIN, interrupts=False) if keys else None
            if terminal is not None:
                self._newline = "\r\n"
                self._say(f"{self._name}: Ctrl-] q leaves, Ctrl-] ? for help")
                terminal.__enter__()
            keyboard = Keyboard(_STDIN, lambda data: self._typed(data, keys))
            try:
                with self._departure, self._interrupts.raising():
                    self._follow(client)
            except Interrupted as interrupt:
                if interrupt.why == "pipe":
                    raise BrokenPipeError from None
                if interrupt.why != "leave":
                    raise KeyboardInterrupt from None
            finally:
                self._leaving = True
                client.close()  # lets go a write that the guest does not take
                if terminal is not None:
                    terminal.__exit__(None, None, None)
                    self._newline = "\n"
                keyboard.close()
                self._end_line()

    # -- what the machine says ------------------------------------------------------------------------------

    def _follow(self, client: Client) -> None:
        while True:
            ended = self._follow_one(client)
            self._end_line()
            self._say(f"{self._name}: {ended}")
            if not self._reconnect:
                return
            client.close()
            client = self._find_again()
            self._client = client
            self._lines = sys.maxsize  # all that it has said since

    def _follow_one(self, client: Client) -> str:
        """Until the end of the machine; how that came."""
        try:
            with client.console(self._console, tail=_TAIL if self._lines else 0) as stream:
                is_first = True
                if stream.begin.get("closed") and not self._reconnect:
                    for item in client.console(self._console, tail=_TAIL, follow=False):
                        self._show(self._last_lines(item.data))
                    return "the machine is not running"
                for item in stream:
                    if item.lost:
                        self._end_line()
                        self._say(f"{self._name}: {item.lost} bytes came too fast")
                    data = self._last_lines(item.data) if is_first else item.data
                    is_first = False
                    self._show(data)
                    if item.closed and not self._reconnect:
                        return "the machine has ended"
                return "the machine is gone"
        except (Disconnected, NoAnswer, NoSuchMachine) as error:
            if isinstance(error, Disconnected) and error.has_ended:
                return "its program has ended"
            if not self._reconnect:
                raise
            return one_line(error)

    def _find_again(self) -> Client:
        while True:
            try:
                return find(self._name)
            except (NoSuchMachine, NoAnswer):
                time.sleep(_AGAIN)

    def _last_lines(self, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[-self._lines :]) if self._lines else b""

    def _show(self, data: bytes) -> None:
        if not data:
            return
        self._column = not data.endswith(b"\n")
        if self._text is not None:
            data = self._text.feed(data).encode()
        write(_STDOUT, data)

    def _end_line(self) -> None:
        if self._coloured:
            write(_STDOUT, b"\x1b[m")
        if self._column and os.isatty(_STDOUT):
            write(_STDOUT, self._newline.encode())
        self._column = False

    def _say(self, text: str) -> None:
        lines = printable(text).replace("\n", self._newline)
        click.echo(f"{lines}{self._newline}", err=True, nl=False)

    # -- what is typed, in a thread -------------------------------------------------------------------------

    def _typed(self, data: bytes, keys: EscapeKeys | None) -> None:
        for part in keys.split(data) if keys else [data]:
            match part:
                case bytes():
                    self._send(part)
                case "q" | "." | "d":
                    self._interrupts.interrupt("leave")
                case "?" | "h":
                    self._tell(_HELP)
                case _:
                    self._tell("Ctrl-] ? shows what there is")

    def _send(self, data: bytes) -> None:
        assert self._client is not None
        for begin in range(0, len(data), _MOST_TYPED):
            try:
                self._client.write(data[begin : begin + _MOST_TYPED], self._console, timeout=None)
            except (ControlError, OSError) as error:
                if not self._leaving:
                    self._tell(one_line(error))

    def _tell(self, text: str) -> None:
        if self._column:
            click.echo(self._newline, err=True, nl=False)
        self._say(text)
