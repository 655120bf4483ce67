"""Makes sure that the servers the tests talk to are installed; tox runs it before the tests.

Several environments may run it at once: one installs, the others wait and find the work done.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SERVERS = ("memcached",)


def missing() -> list[str]:
    """Return the servers that are not on this machine."""
    return [name for name in SERVERS if shutil.which(name) is None]


def commands(names: list[str]) -> list[list[str]]:
    """Return what installs `names` here; nothing where there is no way to."""
    if shutil.which("apt-get"):
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        apt = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
        apt += ["-o", "DPkg::Lock::Timeout=300"]
        return [[*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *names]]
    if shutil.which("brew"):
        return [["brew", "install", *names]]
    return []


def main() -> str | None:
    """Install what is missing; return what a person has to do where that failed."""
    if not missing():
        return None
    lock = Path(tempfile.gettempdir()) / f"ratekit-install-servers-{os.geteuid()}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        names = missing()
        try:
            for command in commands(names):
                subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"{error}. Install {', '.join(names)} by hand: the tests start it themselves."
    if names := missing():
        return f"Install {', '.join(names)}: the tests start it themselves, on a port of its own."
    return None


if __name__ == "__main__":
    sys.exit(main())
