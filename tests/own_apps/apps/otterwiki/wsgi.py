import subprocess

subprocess.run(["git", "init", "/tmp/wiki"], check=True)

from otterwiki.server import app  # noqa: E402, F401
