"""What is left in a pipe when the writer is gone is read to its end."""

import asyncio
import os

from vmfsm_plugins.streams.drain import Drain


def test_dry_reads_all_that_is_there() -> None:
    """Also where the end of file does not come, since the pipe is still open for writing."""

    async def drained() -> bytes:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(write_end, False)
        size = os.write(write_end, b"x" * 1_000_000)
        parts: list[bytes] = []
        drain = Drain(read_end, parts.append, lambda: None, most=1000)
        try:
            await drain.dry()
            assert len(b"".join(parts)) == size > 1000
            assert drain.open
        finally:
            drain.close()
            os.close(read_end)
            os.close(write_end)
        return b"".join(parts)

    assert set(asyncio.run(drained())) == {ord("x")}
