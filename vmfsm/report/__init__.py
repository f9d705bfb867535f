"""Reports: what recordings tell, laid out for looking at. See `docs/report.md`.

    data = report.data(["recordings/vm-20261121T214647Z-30321-0001.jsonl"])

The command `vmfsm report` makes pages, texts and files for CI of it.
"""

from .beside import NewFile
from .model import VERSION, data, outcomes
from .sources import page_of

__all__ = ("VERSION", "NewFile", "data", "outcomes", "page_of")
