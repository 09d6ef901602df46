"""Static files under names that change with their content, so that browsers may keep them for ever.

The names are made when the image is built. Where that was not done, as under `flask run`, the plain names serve.
"""

import hashlib
import re
import shutil
from functools import cache
from pathlib import Path

from flask import Flask, Response, request, url_for

ONE_YEAR = 365 * 24 * 3600
FINGERPRINTED = re.compile(r"\.[0-9a-f]{12}\.\w+$", re.ASCII)


def init_app(app: Flask) -> None:
    """Give templates `asset_url()` and static answers their cache headers.

    :param app: the application to extend
    """

    @cache
    def best_name(filename: str) -> str:
        folder = Path(str(app.static_folder))
        copy = fingerprinted(folder / filename)
        return copy.relative_to(folder).as_posix() if copy.is_file() else filename

    @app.template_global()
    def asset_url(filename: str) -> str:
        """Make the address of a static file, with the version of its content in the name."""
        return url_for("static", filename=best_name(filename))

    @app.after_request
    def set_cache_headers(response: Response) -> Response:
        if request.endpoint != "static" or response.status_code not in (200, 206, 304):
            return response
        if FINGERPRINTED.search((request.view_args or {})["filename"]):
            response.cache_control.no_cache = None
            response.cache_control.public = True
            response.cache_control.max_age = ONE_YEAR
            response.cache_control.immutable = True
        return response


def fingerprinted(file: Path) -> Path:
    """Name a file by its content.

    :param file: for example `css/site.css`
    :return: for example `css/site.0123456789ab.css`
    """
    return file.with_suffix(f".{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}{file.suffix}")


def copy_all(folder: Path) -> None:
    """Put a copy beside each static file, under the name of its content.

    :param folder: the folder of the static files
    """
    for file in [file for file in folder.rglob("*") if file.is_file() and not FINGERPRINTED.search(file.name)]:
        # With its time, of which an ETag is made.
        shutil.copy2(file, fingerprinted(file))
