"""A shell for QMP: commands with completion, and events as they come."""

import json
import os
import threading
from collections.abc import Iterable
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, get_common_complete_suffix
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from vmfsm.control import Client, ControlError, Disconnected, Stream
from vmfsm.errors import printable

from .arguments import parse_command
from .completing import BUILT_IN, candidates, describe, signature
from .history import History, place
from .schema import Schema


class _Completer(Completer):
    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        begun, found = candidates(self._schema, document.text_before_cursor)
        for one in found:
            yield Completion(one.text, start_position=-len(begun), display_meta=one.about)


def _complete(event: KeyPressEvent) -> None:
    """TAB, at once: what comes with the keys after it is not to be executed without it."""
    buffer = event.current_buffer
    if buffer.complete_state:
        buffer.complete_next()
        return
    requested = CompleteEvent(completion_requested=True)
    found = list(buffer.completer.get_completions(buffer.document, requested))
    if len(found) == 1:
        buffer.apply_completion(found[0])
    elif suffix := get_common_complete_suffix(buffer.document, found):
        buffer.insert_text(suffix)
    elif found:
        buffer.start_completion()


class Shell:
    """On a terminal: reads commands until `exit` or Ctrl-D, or the machine ends.

    :param show: makes of a value what is shown.
    """

    def __init__(self, client: Client, *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._schema = Schema(_schema(client, timeout))
        self._events: Stream[dict[str, Any]] = client.events()
        history: History | InMemoryHistory
        try:
            history = History(place())
        except OSError:  # a home that can't be written to
            history = InMemoryHistory()
        # No asking of the terminal where its cursor is: one that does not answer would hold everything up.
        os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
        keys = KeyBindings()
        keys.add("tab")(_complete)
        self._session: PromptSession[str] = PromptSession(
            f"{client.name}> ",
            completer=_Completer(self._schema),
            complete_while_typing=False,
            history=history,
            key_bindings=keys,
            bottom_toolbar=self._toolbar,
        )

    def run(self) -> None:
        """:raises Disconnected: when the machine's program has ended."""
        print(f"{self._client.name}: TAB completes, 'help' says more, Ctrl-D leaves")
        thread = threading.Thread(target=self._show_events, name="vmfsm-events", daemon=True)
        with patch_stdout(), self._events:
            thread.start()
            while True:
                try:
                    line = self._session.prompt()
                except KeyboardInterrupt:
                    continue
                except EOFError:
                    return
                if line.strip() in {"exit", "quit()"}:
                    return
                if line.strip():
                    self._execute(line)

    def _execute(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        if name in {"help", "?"}:
            self._help(rest.strip())
            return
        try:
            command, arguments = parse_command(line)
            reply = self._client.qmp(command, arguments, timeout=self._timeout)
        except Disconnected:
            raise
        except (ValueError, ControlError) as error:
            print(printable(str(error)))
            return
        except KeyboardInterrupt:
            print("not waited for any longer: it may be executed yet")
            return
        if "error" in reply:
            print(refusal(reply["error"]))
        else:
            print(shown(reply.get("return")))

    def _help(self, name: str) -> None:
        if name:
            lines = describe(self._schema, name)
            print(printable("\n".join(lines)) if lines else f"no command or event {name!r}")
            return
        print('COMMAND NAME=VALUE ..., COMMAND {JSON}, or QMP as it is: {"execute": ...}')
        print("Values are JSON, or else text; dots lead into objects: file.driver=null-co")
        for own, about in BUILT_IN.items():
            print(f"{own:6} {about}")
        print(f"{len(self._schema.commands)} commands and {len(self._schema.events)} events: TAB shows them")

    def _toolbar(self) -> str:
        return printable(signature(self._schema, self._session.default_buffer.text)) or " "

    def _show_events(self) -> None:
        try:
            for event in self._events:
                print(told(event))
        except (ControlError, OSError) as error:
            print(printable(str(error)))
            return
        if self._events.over == "gone":
            print(f"{self._client.name}: the machine is gone")


def _schema(client: Client, timeout: float) -> Iterable[dict[str, Any]]:
    reply = client.qmp("query-qmp-schema", timeout=timeout)
    found: list[dict[str, Any]] = reply.get("return", [])
    return found


def shown(value: object) -> str:
    """A value for people. ASCII only, so that nothing in it moves a cursor."""
    return json.dumps(value, indent=2)


def told(event: dict[str, Any]) -> str:
    """An event in a line."""
    if "lost" in event:
        return f"({event['lost']} events came too fast)"
    data = f" {json.dumps(event['data'])}" if event.get("data") else ""
    return f"EVENT {printable(str(event.get('event')))}{data}"


def refusal(error: dict[str, Any]) -> str:
    """What QEMU says of a command that it does not do."""
    return printable(f"{error.get('class')}: {error.get('desc')}")
