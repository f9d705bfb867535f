"""What is in a recording, for programs in any language."""

from importlib import resources
from typing import Any


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a line, as it is shipped in `vmfsm/recording/schema.json`."""
    import json

    text = resources.files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
