"""The optional packages with the tables of ISO 639, BCP 47, ISO 15924 and Unicode, imported where they are used."""

import importlib
from types import ModuleType

from megatron_ext.errors import MissingDependencyError

INSTALL = "pip install 'megatron-ext[corpus]'"


def library(module: str, package: str, purpose: str) -> ModuleType:
    """Import ``module``, which ``package`` installs.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(package, purpose, INSTALL) from error
