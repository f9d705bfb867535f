"""The command line that QEMU is given: what comes before the user's own arguments."""

from collections.abc import Sequence

from vmfsm import escape

Address = str | tuple[str, int] | None


def socket_options(name: str, *, fd: int | None = None, address: Address = None, listen: bool = False) -> str:
    """A `-chardev` for a socket: one that QEMU is given, one it connects to, or one it listens at."""
    if fd is not None:
        where = f"fd={fd}"
    elif isinstance(address, tuple):
        where = f"host={escape(address[0])},port={address[1]}"
    else:
        where = f"path={address if address is None else escape(address)}"
    return f"socket,id={name},{where}{',server=on,wait=off' if listen else ''}"


def base_args(
    *,
    monitor: str | None,
    machine: str | None,
    console: str | None,
    console_device: str | None,
    console_index: int,
) -> list[str]:
    """The arguments before the user's.

    :param monitor: the `-chardev` of the monitor.
    :param console: the `-chardev` of the console.
    :param console_index: so many serial ports go nowhere.
    """
    args = ["-display", "none", "-vga", "none"]
    if monitor is not None:
        args += ["-chardev", monitor, "-mon", "chardev=mon,mode=control"]
    if machine is not None:
        args += ["-machine", machine]
    args += ["-serial", "null"] * console_index
    if console is not None:
        args += ["-chardev", console]
        if console_device is None:
            args += ["-serial", "chardev:console"]
        else:
            args += ["-device", f"{console_device},chardev=console"]
    return args


def following(args: Sequence[str], option: str) -> list[str]:
    """What follows each occurrence of an option."""
    return [args[at + 1] for at, arg in enumerate(args) if arg == option]
