import os
from pathlib import Path

from pygeoapi.openapi import generate_openapi_document

document = Path("/tmp/openapi.yml")
document.write_text(generate_openapi_document(Path(os.environ["PYGEOAPI_CONFIG"]), "yaml"))
os.environ["PYGEOAPI_OPENAPI"] = str(document)

from pygeoapi.flask_app import APP as app  # noqa: E402, F401
