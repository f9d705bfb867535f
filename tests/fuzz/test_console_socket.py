"""Whatever a guest writes to the drop-in's console, however it is cut and read: every byte once, in order."""

import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.effort import tries
from tests.fuzz.hostile import raw, sizes, split
from tests.waiting import LIMIT, InThread
from vmfsm.compat.console_socket import ConsoleSocket

outputs = st.lists(st.one_of(raw, st.binary(max_size=30)), max_size=6).map(b"".join)


@tries(40)
@given(outputs, sizes, st.integers(1, 5000), st.booleans(), st.booleans())
def test_all_of_it_is_received(data: bytes, sizes: list[int], portion: int, drain: bool, kept: bool) -> None:
    def send() -> None:
        with guest:
            for piece in split(data, [size * 20 for size in sizes]):
                guest.sendall(piece)

    guest, harness = socket.socketpair()
    with TemporaryDirectory() as directory:
        file = Path(directory, "console")
        console = ConsoleSocket(file=str(file) if kept else None, drain=drain, sock_fd=harness.detach())
        with console:
            console.settimeout(LIMIT)
            sending = InThread(send)
            received = b""
            while piece := console.recv(portion):
                received += piece
            sending.result()
        assert received == data
        if kept:
            assert file.read_bytes() == data
