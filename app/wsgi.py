"""The application object that a WSGI server imports: `gunicorn wsgi:app`."""

from hello import create_app

app = create_app()
