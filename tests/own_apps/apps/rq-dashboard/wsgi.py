import os

from rq_dashboard import web
from rq_dashboard.cli import make_flask_app

app = make_flask_app(None, None, None, "")
app.config["RQ_DASHBOARD_REDIS_URL"] = os.environ["REDIS_URL"]
web.setup_rq_connection(app)
