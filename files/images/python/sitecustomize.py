"""Imported by every Python of a container when it starts, because migrations need the secrets as well."""

import os
from pathlib import Path

from _flask_fleet import command_line, secrets

secrets.into_environment(os.environ)
command_line.into_environment(os.environ, Path.cwd())
