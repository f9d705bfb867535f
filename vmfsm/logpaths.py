"""Log files: names under which nothing that was written is lost, and opening them where nobody else leads.

Linux does much of the latter by itself in directories with the sticky bit, where `fs.protected_symlinks`,
`protected_hardlinks` and `protected_regular` are on (proc_sys_fs(5)).
"""

import errno
import os
import stat
import threading

_used: dict[str, int] = {}
"""The paths that were given out, and up to which number they were counted on. What is numbered has no entry
of its own: a machine may be launched any number of times."""
_lock = threading.Lock()
_MOST_LINKS = 40
"""As Linux follows (path_resolution(7))."""


def unused(path: str) -> str:
    """`path`, or the next of `vm.2.log`, `vm.3.log`, … where this process has written to it already.

    So nothing is overwritten that an earlier launch wrote, or another machine of the same name. Where `path`
    is no ordinary file, but a device, say, it is always that.
    """
    with _lock:
        first = os.path.realpath(path)
        if not _is_used(first) or not os.path.isfile(path):
            _used.setdefault(first, 1)
            return path
        number = _used.get(first, 1)
        root, extension = os.path.splitext(path)
        while True:
            number += 1
            path = f"{root}.{number}{extension}"
            target = os.path.realpath(path)
            if not _is_used(target):
                _used[first] = number
                if not _is_used(target):  # there is a link in `path`
                    _used[target] = 1
                return path


def _is_used(path: str) -> bool:
    root, extension = os.path.splitext(path)
    first, dot, number = root.rpartition(".")
    is_numbered = dot and number.isdecimal() and number == str(int(number))
    return path in _used or bool(is_numbered and 2 <= int(number) <= _used.get(first + extension, 0))


def open_for_log(path: str) -> int:
    """Open a log file to append to, emptied; the descriptor, which waits for nobody (`O_NONBLOCK`).

    Others may read a new file where the umask lets them, and never write to it. Where everybody may write to
    its directory, what is there already has to be this user's, or of the directory's owner, and have no other
    name: else somebody could have the log written over a file of this user's, or get to read it. An ordinary
    file of somebody else's, an earlier log, say, is replaced where the directory has no sticky bit.

    :raises OSError: as the system says; `PermissionError` where it was planted.
    """
    return _open(path, _MOST_LINKS)


def _open(path: str, links: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        directory = os.stat(os.path.dirname(path) or ".")
    except OSError:  # the error of opening it says more
        return os.open(path, flags | os.O_TRUNC, 0o664)
    if not directory.st_mode & stat.S_IWOTH:
        return os.open(path, flags | os.O_TRUNC, 0o664)
    try:
        # Whoever it belongs to then: a file server may have its own mind about that.
        return os.open(path, flags | os.O_EXCL, 0o664)
    except FileExistsError:
        pass
    may_have_made_it = {os.geteuid(), directory.st_uid}
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW, 0o664)
    except OSError as error:
        if error.errno != errno.ELOOP or not links:
            raise
        if os.lstat(path).st_uid not in may_have_made_it:
            raise _planted(path) from None
        # Where that leads somebody may have put something, too.
        return _open(os.path.join(os.path.dirname(path), os.readlink(path)), links - 1)
    try:
        found = os.fstat(fd)
        if found.st_nlink > 1:
            raise _planted(path)
        if found.st_uid not in may_have_made_it:
            if directory.st_mode & stat.S_ISVTX or not stat.S_ISREG(found.st_mode):
                raise _planted(path)
            os.unlink(path)
            ours = os.open(path, flags | os.O_EXCL, 0o664)
            os.close(fd)
            return ours
        if stat.S_ISREG(found.st_mode):
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _planted(path: str) -> PermissionError:
    return PermissionError(errno.EPERM, "somebody else may have put it into a directory open to all", path)
