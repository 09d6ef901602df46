"""Static files that browsers may keep for long, and that still change at once with a new release."""

import hashlib
from functools import cache
from pathlib import Path

from flask import Flask, Response, request, url_for

ONE_YEAR = 365 * 24 * 3600


def init_app(app: Flask) -> None:
    """Give templates `asset_url()` and static answers their cache headers.

    :param app: the application to extend
    """
    static_folder = Path(str(app.static_folder))

    @cache
    def content_version(filename: str) -> str:
        return hashlib.sha256((static_folder / filename).read_bytes()).hexdigest()[:12]

    @app.template_global()
    def asset_url(filename: str) -> str:
        """Make the address of a static file, with the version of its content in it."""
        return url_for("static", filename=filename, v=content_version(filename))

    @app.after_request
    def set_cache_headers(response: Response) -> Response:
        if request.endpoint != "static" or response.status_code not in (200, 206, 304):
            return response
        # During a roll-out an old replica may be asked for a new version: its content must not be kept as that one.
        filename = (request.view_args or {})["filename"]
        if request.args.get("v") == content_version(filename):
            response.cache_control.no_cache = None
            response.cache_control.public = True
            response.cache_control.max_age = ONE_YEAR
            response.cache_control.immutable = True
        return response
