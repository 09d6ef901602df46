"""Imported by every Python of a container when it starts, because migrations need the secrets as well."""

import os

from _flask_fleet import secrets

secrets.into_environment(os.environ)
