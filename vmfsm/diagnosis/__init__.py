"""Why a machine failed, from its records alone: `from vmfsm import diagnosis`.

    it = diagnosis.diagnose(recording.read("vm-20261121T214647Z-30321-0001.jsonl"))
    print(it.cause)

What is said is what records show; where more is meant, it says "seems". `docs/diagnosis.md` has the kinds.
"""

from .case import Clue, Diagnosis
from .diagnostician import Diagnostician, diagnose

__all__ = ("Clue", "Diagnosis", "Diagnostician", "diagnose")
