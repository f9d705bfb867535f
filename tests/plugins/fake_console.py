"""A process to be run in QEMU's place, with the ends of consoles that QEMU would have, and a will of its own.

    Machine("true", wrapper=program("consoles[0].sendall(b'hello')"), display=None, block=["qmp"])

It runs the Python code it is given, in which `consoles` are the sockets it inherited, and then sleeps.
"""

import os
import re
import socket
import sys
import time


def program(code: str) -> list[str]:
    """The wrapper that turns any binary into this one."""
    return [sys.executable, "-S", "-E", __file__, code]


if __name__ == "__main__":
    numbers = re.findall(r"\bsocket,id=vmfsm-console-\d+,fd=(\d+)", " ".join(sys.argv))
    consoles = [socket.socket(fileno=int(number)) for number in numbers]
    exec(sys.argv[1], {"consoles": consoles, "os": os, "sys": sys, "time": time})
    time.sleep(1000)
