from pyxtermjs.app import app

app.config["cmd"] = ["bash"]
