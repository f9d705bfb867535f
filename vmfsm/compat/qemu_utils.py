"""The small functions of the old `qemu.utils` that scripts use."""

import os
import platform
import subprocess
import textwrap

from vmfsm import VMError, capabilities

__all__ = (
    "VerboseProcessError",
    "get_info_usernet_hostfwd_port",
    "hvf_available",
    "kvm_available",
    "list_accel",
    "tcg_available",
)

_ALSO_RUNS = {"x86_64": "i386", "aarch64": "arm"}
"""What a processor runs beside its own instructions."""


def get_info_usernet_hostfwd_port(info_usernet_output: str) -> int | None:
    """The host's port that is forwarded to the guest, from what the monitor's `info usernet` says.

    Of the first TCP forwarding; `None` where there is none.
    """
    for line in info_usernet_output.splitlines():
        words = line.split()
        if words[:1] == ["TCP[HOST_FORWARD]"] and len(words) > 3 and words[3].isdecimal():
            return int(words[3])
    return None


def list_accel(qemu_bin: str) -> list[str]:
    """The accelerators that a QEMU was built with, those that work here first.

    :raises vmfsm.LaunchError: when it cannot be asked.
    """
    can = capabilities(qemu_bin)
    return [*can.accelerators, *can.refused]


def kvm_available(target_arch: str | None = None, qemu_bin: str | None = None) -> bool:
    """Whether KVM can be used, as far as `/dev/kvm` tells.

    :param target_arch: the guest's architecture, as QEMU names it: `False` where this host has another.
    :param qemu_bin: a QEMU that tells more: whether a guest runs with it, once tried and then known.
    """
    host = platform.machine()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    if target_arch is not None and target_arch not in (host, _ALSO_RUNS.get(host)):
        return False
    return qemu_bin is None or _has("kvm", qemu_bin)


def tcg_available(qemu_bin: str) -> bool:
    """Whether a QEMU has its own translator."""
    return _has("tcg", qemu_bin)


def hvf_available(qemu_bin: str | None = None) -> bool:
    """Whether macOS's hypervisor can be used, by a QEMU if one is given."""
    return platform.system() == "Darwin" and (qemu_bin is None or _has("hvf", qemu_bin))


def _has(accelerator: str, qemu_bin: str) -> bool:
    try:
        return accelerator in capabilities(qemu_bin).accelerators
    except VMError:
        return False


class VerboseProcessError(subprocess.CalledProcessError):
    """A `CalledProcessError` whose text has the output of the command."""

    def __str__(self) -> str:
        text = super().__str__()
        for name, output in (("stdout", self.stdout), ("stderr", self.stderr)):
            shown = output.decode(errors="replace") if isinstance(output, bytes) else output
            if shown and shown.strip():
                text += f"\n{name}:\n{textwrap.indent(shown.rstrip(), '  ')}"
        return text
