"""README.txt of a bundle: the cause, where to look first, what there is and what not."""

import shlex
from collections.abc import Sequence

from vmfsm import printable
from vmfsm.diagnosis import Diagnosis

from .contents import File
from .report import NAME as REPORT

_WIDTH = 28


def readme(
    *,
    machine: str,
    test: str | None,
    when: str,
    why: str,
    diagnosis: Diagnosis | None,
    files: Sequence[File],
    missing: Sequence[tuple[str, str]],
    binary: str,
) -> str:
    """The text."""
    parts = [
        f"{machine}, {when}",
        *([f"test: {test}"] if test else []),
        "",
        *_first(diagnosis, why),
        *_look(files, diagnosis),
        "WHAT IS HERE\n",
        *(f"  {file.file:<{_WIDTH}} {file.what} ({file.bytes} bytes)" for file in files),
        *([] if not missing else ["\nWHAT IS NOT, AND WHY\n"]),
        *(f"  {what}: {reason}" for what, reason in missing),
        *_how([file.file for file in files], binary),
        "\nThere may be in it whatever the guest printed or had in its memory: it is for its owner alone.",
    ]
    return printable("\n".join(parts)) + "\n"


def _first(diagnosis: Diagnosis | None, why: str) -> list[str]:
    cause = diagnosis.cause if diagnosis is not None else why
    return [f"CAUSE: {cause}", *([f"why this was made: {why}"] if why != cause else []), ""]


def _look(files: Sequence[File], diagnosis: Diagnosis | None) -> list[str]:
    names = {file.file for file in files}
    lines = [f"  {clue.text}" for clue in diagnosis.clues] if diagnosis is not None else []
    if REPORT in names:
        lines.append(f"  {REPORT}: all of it on one page, in a browser")
    logs = [name for name in sorted(names) if name.startswith("console-")]
    lines += [f"  {name}: what the guest said last is at its end" for name in logs]
    return ["WHERE TO LOOK FIRST\n", *lines, ""] if lines else []


def _how(names: Sequence[str], binary: str) -> list[str]:
    lines = ["  in this directory:"]
    if REPORT not in names:
        lines += [
            "  vmfsm report .",
            f"    makes {REPORT} (it takes: pip install 'path/to/vmfsm[cli]')",
        ]
    lines += ["  vmfsm report --text .", "    tells it in a terminal"]
    if "guest-memory.elf" in names:
        lines += [
            "  crash vmlinux guest-memory.elf",
            "  gdb vmlinux guest-memory.elf",
            "    look at the guest's memory, with the symbols of its kernel (vmlinux, not vmlinuz)",
        ]
    if "core" in names:
        lines += [f"  gdb {shlex.quote(binary)} core", "    shows where QEMU crashed: 'bt'"]
    return ["\nHOW TO LOOK\n", *lines]
