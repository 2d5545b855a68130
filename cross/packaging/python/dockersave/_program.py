"""Where the program is, and how to run it for anything but a pull."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from typing import Union

from ._errors import error

StrPath = Union[str, "os.PathLike[str]"]


def program() -> str:
    """The path of the program that was installed with this package."""
    packages = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    places = [
        # PREFIX/lib/python3.X/site-packages: of a virtual environment, a user or a --prefix.
        os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(packages))), "bin"),
        # pip install --target puts bin beside the package.
        os.path.join(packages, "bin"),
        # Where the system's packages and scripts have different prefixes.
        sysconfig.get_path("scripts"),
    ]
    for place in places:
        path = os.path.join(place, "dockersave")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("the program dockersave is in none of " + ", ".join(places) + ": reinstall the package")


def run(*args: StrPath) -> str:
    """Runs the program with these arguments, and returns its standard output.

    For what is not a pull: run("--tags", "debian"), run("--json", "--verify", "debian.tar").
    Raises the exception for its exit status.
    """
    done = subprocess.run(
        [program(), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        text = done.stderr.decode(errors="replace").strip()
        raise error(done.returncode, text.rpartition("\n")[2], output)
    return output
