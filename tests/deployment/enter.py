"""Becomes a container's process: `python enter.py FILE`, where FILE is the JSON that
machine.Namespaces writes.

The process gets a mount namespace and a root folder of its own, the container's user and groups,
and dies with the tests."""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    32,
    4096,
    16384,
    1 << 18,
)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


def checked(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, target, kind, flags):
    arguments = [value.encode() if value else None for value in (source, str(target), kind)]
    checked(LIBC.mount(*arguments, ctypes.c_ulong(flags), None), f"mount {source} on {target}")


def bind(source, target, read_only):
    """Shows a file or folder of this machine in the container's root, with all that is mounted
    below it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.isdir(source):
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def main():
    container = json.loads(Path(sys.argv[1]).read_text())
    root = Path(container["root"])
    os.umask(0o022)
    checked(LIBC.unshare(CLONE_NEWNS), "unshare")
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV)
    root.chmod(0o755)
    for name, to in container["links"].items():
        (root / name.lstrip("/")).symlink_to(to)
    for path, mode, owner in container["folders"]:
        folder = root / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        os.chown(folder, owner, owner)
    for path, text in container["files"].items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for one in container["mounts"]:
        bind(one["source"], root / one["target"].lstrip("/"), one["read_only"])
    if container["read_only"]:
        mount(None, root, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chroot(root)
    os.chdir(container["folder"])
    os.setgroups(container["groups"])
    os.setgid(container["group"])
    os.setuid(container["user"])
    checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    # After the change of user, which clears it.
    checked(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    if os.getppid() != container["parent"]:
        sys.exit("the tests have ended")
    os.execvpe(container["command"][0], container["command"], container["environment"])


main()
