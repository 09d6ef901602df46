import shutil

from fava.application import create_app

app = create_app([shutil.copy("shop.beancount", "/tmp")])
