"""Whatever `qemu-img` says of somebody's image: an answer of the right types, or `ImageError`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.effort import tries
from tests.fuzz.hostile import encode, mutate, mutations, raw, texts, values
from vmfsm import ImageError, qemu_img

INFO: dict[str, Any] = {
    "virtual-size": 65536,
    "filename": "disk",
    "format": "qcow2",
    "actual-size": 4096,
    "backing-filename": "base",
    "full-backing-filename": "/base",
    "backing-filename-format": "raw",
    "format-specific": {"type": "qcow2", "data": {"compat": "1.1"}},
}
changed = st.dictionaries(st.one_of(st.sampled_from(tuple(INFO)), texts), values, max_size=3).map(
    lambda changes: INFO | changes
)
answers = st.one_of(
    raw,
    values.map(encode),
    changed.map(encode),
    st.lists(changed, max_size=3).map(encode),
    mutations.map(lambda places: mutate(encode(INFO), places)),
)


@tries(40)
@given(answers, st.booleans())
def test_any_answer(answer: bytes, chain: bool) -> None:
    with TemporaryDirectory() as directory:
        tool, said = Path(directory, "tool"), Path(directory, "said")
        said.write_bytes(answer)
        tool.write_text(f"#!/bin/sh\nexec cat '{said}'\n")
        tool.chmod(0o700)
        try:
            info = qemu_img.info("disk", backing_chain=chain, binary=tool)
        except ImageError:
            return
        while info is not None:
            assert isinstance(info.format, str)
            assert type(info.virtual_size) is int
            info = info.backing  # type: ignore[assignment]  # for the next round
