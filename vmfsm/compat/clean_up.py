"""A clean-up of several steps, of which none keeps another from being made."""

from collections.abc import Callable


def do_all(*steps: Callable[[], object]) -> None:
    """Call all of them, whatever they raise, in order; then raise the first of that.

    One that raises is called again, once: it may be that only a signal handler's exception hit it. For the
    same reason one that came to its end may be called again.
    """
    left = list(steps)
    failed: list[Callable[[], object]] = []
    errors: list[BaseException] = []
    while left:
        try:
            while left:  # inside, so that there is no place where an exception could end it all
                left[0]()
                del left[0]
        except BaseException as error:  # noqa: BLE001 - it is raised at the end
            errors.append(error)
            failed += left[:1]
            if left and failed.count(left[0]) == 2:
                del left[0]
    try:
        if errors:
            raise errors[0]
    finally:
        del errors  # else the exception and this frame know each other, and keep alive what the callers hold
