"""What is looked for by default, and what follows. `docs/verdicts.md` has the sources."""

from typing import NamedTuple

from vmfsm import Action


class Rule(NamedTuple):
    """A kind of verdict: how it is found in streams, and what is to follow, whoever has found it."""

    patterns: tuple[str, ...] = ()
    """None where others report it."""
    sources: frozenset[str] = frozenset()
    """Where it is looked for: in the consoles, in QEMU's output."""
    action: Action = "wake"
    dump: bool = True
    apart: int = 0
    """Bytes in which a match of another pattern belongs to the first: several lines may tell of one thing."""
    unless: tuple[str, ...] = ()
    """A line with one of these does not count."""


CONSOLE, OUTPUT = "console", "output"
_SAME = 2048


def _kernel(*patterns: str, apart: int = 0, unless: tuple[str, ...] = ()) -> Rule:
    return Rule(patterns, frozenset({CONSOLE}), apart=apart, unless=unless)


def _qemu(*patterns: str, apart: int = 0) -> Rule:
    return Rule(patterns, frozenset({OUTPUT}), apart=apart)


RULES = {
    # Linux: kernel/panic.c. Where it is not to reboot, it says so again at the end.
    "kernel-panic": _kernel("Kernel panic - not syncing", unless=("end Kernel panic - not syncing",)),
    # arch/*/mm/fault.c and traps.c, lib/bug.c: what has happened, then the line with the number of the oops.
    "kernel-oops": _kernel(
        "BUG: unable to handle",
        "BUG: kernel NULL pointer dereference",
        "Unable to handle kernel ",
        "kernel BUG at ",
        "Oops*[#",
        "Internal error: *[#",
        "general protection fault*[#",
        ": 0000 [#",  # x86: all traps that have no error code, invalid opcode and divide error among them
        " ilc:*[#",  # s390
        "Kernel bug detected*[#",  # MIPS
        apart=_SAME,
    ),
    # kernel/watchdog.c, arch/powerpc/kernel/watchdog.c, kernel/workqueue.c.
    "kernel-lockup": _kernel(
        "BUG: soft lockup - CPU#", "detected hard LOCKUP ", "BUG: workqueue lockup - pool"
    ),
    # kernel/hung_task.c.
    "hung-task": _kernel("INFO: task *blocked*for more than * seconds"),
    # kernel/rcu/tree_stall.h, tree_exp.h, tasks.h.
    "rcu-stall": _kernel(
        "INFO: rcu*self-detected stall on CPU",
        "INFO: rcu*detected stalls on CPUs/tasks",
        "INFO: rcu*detected expedited stalls on CPUs/tasks",
        "INFO: rcu*detected stalls on tasks",
        apart=_SAME,
    ),
    # mm/kasan/report.c, mm/kmsan/report.c, mm/kfence/report.c, kernel/kcsan/report.c, lib/ubsan.c.
    "kasan": _kernel("BUG: KASAN: "),
    "kmsan": _kernel("BUG: KMSAN: "),
    "kfence": _kernel("BUG: KFENCE: "),
    "kcsan": _kernel("BUG: KCSAN: "),
    "ubsan": _kernel("UBSAN: * in *:*:"),
    # initramfs-tools, dracut and systemd: a shell for whoever is there, and nobody is.
    "initramfs": _kernel(
        "Gave up waiting for root ",
        "Dropping to a shell!",
        "Entering emergency mode.",
        "You are in emergency mode.",
        apart=_SAME,
    ),
    # The sanitizers' run-time libraries (compiler-rt, libsanitizer).
    "qemu-asan": _qemu("ERROR: AddressSanitizer: "),
    "qemu-msan": _qemu("WARNING: MemorySanitizer: ", "ERROR: MemorySanitizer: "),
    "qemu-tsan": _qemu("WARNING: ThreadSanitizer: ", "ERROR: ThreadSanitizer: "),
    "qemu-lsan": _qemu("ERROR: LeakSanitizer: "),
    "qemu-ubsan": _qemu(": runtime error: ", "ERROR: UndefinedBehaviorSanitizer: "),
    # assert(3), GLib's g_assert.
    "qemu-assertion": _qemu(
        "Assertion `*' failed",
        "\nERROR:*: assertion failed",
        "\nERROR:*: code should not be reached",
        apart=_SAME,
    ),
    # util/error.c, util/qemu-thread-posix.c, util/qemu-coroutine.c, tcg/tcg.c, cpu.c and others of QEMU;
    # GLib's g_error; the C library's malloc and _FORTIFY_SOURCE.
    "qemu-abort": _qemu(
        "Unexpected error in *() at *:",
        "qemu: qemu_*: ",
        "qemu: fatal: ",
        "qemu: hardware error: ",
        "tcg fatal error",
        "Co-routine re-entered recursively",
        "Co-routine was already scheduled in ",
        "GLib-ERROR **: ",
        "stack smashing detected",
        "buffer overflow detected",
        "double free or corruption",
        "corrupted size vs. prev_size",
        "corrupted double-linked list",
        "free(): ",
        "malloc(): ",
        "realloc(): ",
        "munmap_chunk(): ",
        apart=_SAME,
    ),
    # accel/kvm/kvm-all.c: the guest stands still from then on, and QEMU goes on.
    "kvm-error": _qemu("KVM internal error. ", "error: kvm run failed ", "KVM: entry failed, ", apart=_SAME),
}

REPORTED = ("guest-panicked", "guest-crashloaded", "watchdog", "boot-loop", "companion-ended")
"""Kinds that come from elsewhere: the monitor, and the framework. There may be more, of other plugins."""
