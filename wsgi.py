"""What gunicorn serves: ``gunicorn wsgi:app``."""

from receiver.web import create_app

app = create_app()
