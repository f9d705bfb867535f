"""A pipe is read to its end when the writer is gone, and before that by what is not too much at once."""

import asyncio
import os
import time

from vmfsm_plugins.streams.drain import MOST, Drain


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


def test_what_makes_work_is_read_by_less_at_once() -> None:
    """So that the others on the I/O thread have their turns; and by more again when it makes none."""

    async def sizes(data: bytes) -> list[int]:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        found: list[int] = []

        def feed(data: bytes) -> None:
            found.append(len(data))
            until = time.thread_time() + 0.003
            while data[0] == ord("w") and time.thread_time() < until:
                pass

        drain = Drain(read_end, feed, lambda: None)
        try:
            for part in data.split(b"|"):
                left = memoryview(part)
                while left:
                    left = left[os.write(write_end, left[:MOST]) :]
                    await drain.dry()
        finally:
            drain.close()
            os.close(read_end)
            os.close(write_end)
        return found

    work, none = b"w" * 2 * MOST, b"n" * 4 * MOST
    found = asyncio.run(sizes(work + b"|" + none))
    assert found[:5] == [MOST, MOST // 2, MOST // 4, MOST // 8, MOST // 16]
    assert min(found) == 4096
    assert found[-1] == MOST
