"""Whether the kernel's out-of-memory killer took a process: only the control group says so.

`cgroups(7)`; kernel documentation, "Control Group v2", `memory.events.local`; "Memory Resource Controller"
(version 1), `memory.oom_control`.
"""


def oom_kills(pid: int) -> tuple[str, int] | None:
    """The file that counts the OOM kills in the memory control group of `pid`, and its count.

    `None` where nothing counts them: not on Linux, no memory controller, or one that may not be read.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
            groups = [line.rstrip("\n").split(":", 2) for line in lines]
    except OSError:
        return None
    candidates = [
        f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        for _, controllers, path in groups
        if "memory" in controllers.split(",")
    ] or [f"/sys/fs/cgroup{path}/memory.events.local" for hierarchy, _, path in groups if hierarchy == "0"]
    for file in candidates:
        kills = count(file)
        if kills is not None:
            return file, kills
    return None


def count(file: str) -> int | None:
    """What such a file counts now."""
    try:
        with open(file, encoding="ascii") as lines:
            for line in lines:
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    except (OSError, ValueError):
        pass
    return None
