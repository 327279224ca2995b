"""What a measurement says of how it came about: command, versions, machine, and how busy that was."""

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def provenance(program: str, packages: Iterable[str]) -> dict[str, object]:
    """The head of a result file, taken before anything is measured.

    Args:
        program: as a person starts it; the arguments are this process's.
        packages: distributions whose versions matter; what is not installed is left out.
    """
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": shlex.join([program, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "cpus": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
