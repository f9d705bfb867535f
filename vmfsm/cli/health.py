"""What vmfsm and its features need of the system: looked at, with what to do where it is missing."""

import contextlib
import enum
import glob
import grp
import os
import platform
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from vmfsm import proc, registry

_PATIENCE = 10.0
"""Seconds that a tool has to say its version."""
_FEW_DESCRIPTORS = 256
_FEW_PROCESSES = 64
_LITTLE_SPACE = 100 * 2**20


class Grade(enum.Enum):
    """How much it matters."""

    OK = "ok"
    LACKS = "lacks"
    """Machines run, and some feature does not work."""
    FAILS = "fails"
    """No machine runs with it."""


class Check(NamedTuple):
    """What was looked at."""

    section: str
    name: str
    grade: Grade
    detail: str
    """What was found."""
    advice: str = ""
    """What it matters for, and what to do."""


def qemus() -> list[str]:
    """The names of all system emulators in `PATH`."""
    found = {
        os.path.basename(path)
        for directory in os.get_exec_path()
        for path in glob.glob(os.path.join(glob.escape(directory), "qemu-system-*"))
        if os.path.isfile(path) and os.access(path, os.X_OK)
    }
    return sorted(found)


def no_qemu() -> Check:
    return Check(
        "QEMU",
        "qemu-system-*",
        Grade.FAILS,
        "none in PATH",
        "install one: apt install qemu-system-x86, dnf install qemu-system-x86",
    )


def checks(kvm_refused: str | None) -> list[Check]:
    """All but the QEMUs.

    :param kvm_refused: why no QEMU here gets anywhere with KVM, where that has been tried.
    """
    return [*_tools(), *_devices(kvm_refused), *_system(), *_limits(), *_python()]


# -- tools --------------------------------------------------------------------------------------------------

_TOOLS = (
    ("qemu-img", "vmfsm.qemu_img (disk images)", "apt install qemu-utils", ()),
    ("swtpm", "a TPM for the guest", "apt install swtpm", ()),
    (
        "virtiofsd",
        "directories shared with the guest",
        "apt install virtiofsd (or qemu-system-common)",
        ("/usr/libexec", "/usr/lib/qemu"),
    ),
    ("gdb", "vmfsm gdb", "apt install gdb (gdb-multiarch for guests of another architecture)", ()),
)


def _tools() -> Iterator[Check]:
    for name, purpose, installing, beside in _TOOLS:
        path = shutil.which(name, path=os.pathsep.join([*os.get_exec_path(), *beside]))
        if path is None:
            yield Check("Tools", name, Grade.LACKS, "not found", f"for {purpose}: {installing}")
        elif version := _version(path):
            yield Check("Tools", name, Grade.OK, f"{version}  {path}")
        else:
            yield Check("Tools", name, Grade.LACKS, f"does not run  {path}", f"for {purpose}: reinstall it")


def _version(path: str) -> str | None:
    """What a tool calls its version; `None` where it does not run."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        ran = subprocess.run(
            [path, "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
        )
        found = re.search(rb"\b\d+(\.\d+)+", ran.stdout)
        if ran.returncode == 0:
            return found[0].decode() if found else "unknown version"
    return None


# -- devices ------------------------------------------------------------------------------------------------

_KVM = "/dev/kvm"
_DEVICES = (
    (_KVM, "KVM", "load kvm_intel or kvm_amd; in a virtual machine, its host has to allow nesting"),
    ("/dev/vhost-vsock", "vsock devices", "modprobe vhost_vsock"),
    ("/dev/net/tun", "tap network devices", "modprobe tun"),
)


def _devices(kvm_refused: str | None) -> Iterator[Check]:
    for path, purpose, loading in _DEVICES:
        grade, detail, advice = Grade.LACKS, "", loading
        try:
            status = os.stat(path)
        except OSError as error:
            detail = os.strerror(error.errno or 0)
        else:
            group = _group(status.st_gid)
            detail = f"group {group}, mode {status.st_mode & 0o777:o}"
            if not os.access(path, os.R_OK | os.W_OK):
                detail = f"may not be opened ({detail})"
                advice = f"join the group: usermod -aG {group} USER, then log in again"
            elif path == _KVM and kvm_refused is not None:
                detail = f"opens ({detail}), and does not work: {kvm_refused}"
                advice = "in a virtual machine, its host has to allow nesting"
            else:
                grade, detail = Grade.OK, f"may be opened ({detail})"
        yield Check("Devices", path, grade, detail, "" if grade is Grade.OK else f"for {purpose}: {advice}")


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


# -- the system ---------------------------------------------------------------------------------------------


def _system() -> Iterator[Check]:
    yield _temporary()
    try:
        path = registry.directory()
        yield Check("System", "registry", Grade.OK, path)
    except OSError as error:
        yield Check(
            "System",
            "registry",
            Grade.LACKS,
            str(error),
            "for vmfsm ps and gc: make it a directory of yours alone (0700), or set XDG_RUNTIME_DIR",
        )
    try:
        proc.pid_namespace()
        yield Check("System", "/proc", Grade.OK, "shows this pid namespace")
    except OSError as error:
        advice = "for ownership of processes: mount -t proc proc /proc"
        yield Check("System", "/proc", Grade.LACKS, str(error), advice)
    yield _pidfd()


def _temporary() -> Check:
    try:
        with tempfile.TemporaryDirectory(prefix="vmfsm-") as directory:
            free = shutil.disk_usage(directory).free
    except OSError as error:
        return Check(
            "System",
            "temporary files",
            Grade.FAILS,
            str(error),
            "set TMPDIR to a directory you may write",
        )
    detail = f"{tempfile.gettempdir()}, {_bytes(free)} free"
    if free < _LITTLE_SPACE:
        return Check("System", "temporary files", Grade.LACKS, detail, "make room there, or set TMPDIR")
    return Check("System", "temporary files", Grade.OK, detail)


def _pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        return Check(
            "System",
            "pidfd",
            Grade.LACKS,
            f"pidfd_open: {error}",
            "for the watchdog, which ends machines of killed programs: Linux 5.3, or a container that lets",
        )
    return Check("System", "pidfd", Grade.OK, f"pidfd_open works (Linux {platform.release()})")


# -- limits -------------------------------------------------------------------------------------------------

_LIMITS = (
    ("open files", resource.RLIMIT_NOFILE, _FEW_DESCRIPTORS, "ulimit -n 4096"),
    ("processes", resource.RLIMIT_NPROC, _FEW_PROCESSES, "ulimit -u 4096"),
)


def _limits() -> Iterator[Check]:
    for name, number, few, raising in _LIMITS:
        soft, hard = resource.getrlimit(number)
        is_few = 0 <= soft < few
        yield Check(
            "Limits",
            name,
            Grade.LACKS if is_few else Grade.OK,
            f"{_limit(soft)} (may be raised to {_limit(hard)})" if soft != hard else _limit(soft),
            f"for several machines at a time: {raising}" if is_few else "",
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    detail = "unlimited" if soft == resource.RLIM_INFINITY else _bytes(soft)
    yield Check("Limits", "locked memory", Grade.OK, detail)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)


def _bytes(count: float) -> str:
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.0f} {units[0]}"


# -- Python -------------------------------------------------------------------------------------------------

_LIBRARIES = ("vmfsm", "qemu.qmp", "transitions", "pluggy", "click", "rich", "prompt_toolkit")


def _python() -> Iterator[Check]:
    yield Check("Python", "python", Grade.OK, platform.python_version())
    for name in _LIBRARIES:
        try:
            yield Check("Python", name, Grade.OK, metadata.version(name))
        except metadata.PackageNotFoundError:
            advice = "for the command line: pip install 'vmfsm[cli]'"
            yield Check("Python", name, Grade.LACKS, "not installed", advice)
    variables = {name: value for name, value in os.environ.items() if name.startswith("VMFSM_")}
    for name, value in sorted(variables.items()):
        yield Check("Python", name, Grade.OK, f"{value} (in the environment)")
