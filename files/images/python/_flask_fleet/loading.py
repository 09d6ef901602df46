"""Finds the application that a service names."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

NAMED = re.compile(
    r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<object>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?P<call>\(\))?"
)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class AppError(Exception):
    """There is no such application; the message is for a person."""


def load(target: str) -> Application:
    """Import the application that ``module:object`` names, or call the function of ``module:function()``.

    Raises:
        AppError: The name is malformed, nothing that can be called has it, or its module ended the import.
    """
    named = NAMED.fullmatch(target)
    if not named:
        raise AppError(f"app is {target!r}: allowed is module:object, such as wsgi:app or shop:create_app()")
    folder = str(Path.cwd())
    # gunicorn puts the first one there itself, the others do not. In the second one many keep their packages.
    sys.path[:0] = [one for one in (folder, f"{folder}/src") if one not in sys.path]
    found = _object(_module(named["module"], target, folder), named["object"], target)
    if named["call"]:
        found = found()
    if not callable(found):
        raise AppError(f"app is {target!r}: that is no WSGI application, but {type(found).__name__}")
    application: Application = found
    return application


def load_or_explain(target: str) -> Application:
    """Import the application as ``load`` does, but show an error of it as one line, without a traceback.

    Raises:
        AppError: As for ``load``. Every server ends at an exception; only gunicorn does at every SystemExit.
    """
    try:
        return load(target)
    except AppError:
        sys.tracebacklimit = 0
        raise


def _module(name: str, target: str, folder: str) -> ModuleType:
    top = name.partition(".")[0]
    taken_by = getattr(sys.modules.get(top), "__file__", None) or "built in"
    is_in_folder = any(Path(folder, one).exists() for one in (f"{top}.py", top))
    if top in sys.modules and is_in_folder and not taken_by.startswith(f"{folder}/"):
        raise AppError(f"app is {target!r}: Python has another module {top} already ({taken_by}); rename yours")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # One that the app itself needs is told by its traceback.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise AppError(f"app is {target!r}: there is no module {error.name} in {folder}, nor is it installed") from None
    except SystemExit as error:
        # gunicorn would start the worker again and again, and uWSGI too.
        raise AppError(f"app is {target!r}: its module ended the process: {error}") from None


def _object(module: ModuleType, name: str, target: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        where = getattr(module, "__file__", None) or "a namespace package"
        raise AppError(f"app is {target!r}: there is no {name} in the module {module.__name__} ({where})") from None
