"""What stands between an application server and any Flask app, so that the app need not know where it runs."""
