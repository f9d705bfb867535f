"""A clean-up of several steps, of which none keeps another from being made."""

from collections.abc import Callable


def do_all(*steps: Callable[[], object]) -> None:
    """Call all of them, whatever they raise, in order; then raise the first of that.

    One that raises is called again, once: it may be that only a signal handler's exception hit it.
    """
    errors: list[BaseException] = []
    for step in steps:
        for _ in range(2):
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - it is raised at the end
                errors.append(error)
            else:
                break
    if errors:
        raise errors[0]
