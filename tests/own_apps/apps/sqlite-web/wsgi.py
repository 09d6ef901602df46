from sqlite_web.sqlite_web import app, initialize_app

initialize_app(["/tmp/shop.db"])
