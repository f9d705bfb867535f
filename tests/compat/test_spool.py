"""What nobody has read yet is kept in order, and in a bounded room."""

import os
import random
from pathlib import Path

import pytest

from vmfsm.compat import spool
from vmfsm.compat.spool import Spool


@pytest.mark.parametrize("seed", range(5))
def test_a_reader_who_is_always_a_little_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    """All that is ever written is much more than what is kept, and than what the file may take."""
    monkeypatch.setattr(spool, "MEMORY", 1000)
    monkeypatch.setattr(spool, "LIMIT", 10_000)
    chance = random.Random(seed)
    queue = Spool(str(tmp_path))
    put = taken = b""
    most_on_disk = 0
    while len(put) < 200_000:
        piece = chance.randbytes(chance.randint(1, 3000))
        if len(put) - len(taken) + len(piece) <= 10_000:
            queue.put(piece)
            put += piece
        if len(put) - len(taken) > 5000:
            taken += queue.take(chance.randint(1, 4000))
        most_on_disk = max(most_on_disk, 0 if queue._file is None else os.fstat(queue._file.fileno()).st_size)
    while part := queue.take(4000):
        taken += part
    queue.close()
    assert taken == put
    assert 5000 < most_on_disk <= 10_000
