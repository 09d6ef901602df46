from pathlib import Path

from dulwich.repo import Repo
from klaus import make_app

FOLDER = "/tmp/shop"
if not Path(FOLDER).exists():
    Repo.init_bare(FOLDER, mkdir=True)
app = make_app([FOLDER], "Shop", use_smarthttp=True, unauthenticated_push=True)
