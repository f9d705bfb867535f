"""A process to be run in QEMU's place, that misbehaves as it is told to.

    Machine(sys.executable, [fake_qemu.__file__, "--on-term", "ignore"], display=None, plugins=[Ready()])

It writes a byte to the descriptor `FAKE_READY_FD` when it is as it was told to be: `tests.waiting.Ready`.
"""

import argparse
import os
import signal
import sys
from types import FrameType


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--on-term", help="what to do on SIGTERM: 'ignore', or the status to exit with")
    parser.add_argument("--child", action="store_true", help="leave a deaf child in the process group")
    parser.add_argument("--say", help="what to write to stderr")
    parser.add_argument("--exit", type=int, help="the status to exit with at once")
    options, _ = parser.parse_known_args()  # the others are what plugins give to QEMU

    def exit_on_term(number: int, frame: FrameType | None) -> None:
        os._exit(int(options.on_term))

    if options.say:
        print(options.say, file=sys.stderr, flush=True)
    if options.exit is not None:
        sys.exit(options.exit)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not options.child or os.fork() != 0:
        if options.on_term != "ignore":
            signal.signal(signal.SIGTERM, exit_on_term if options.on_term else signal.SIG_DFL)
        os.write(int(os.environ["FAKE_READY_FD"]), b"r")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
