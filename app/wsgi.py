"""The application object, which a service names as `wsgi:app`."""

from hello import create_app

app = create_app()
