"""Ansible action: runs the machine's own program flask-fleet, and shows each step as it happens.

The program is brought when the machine does not have it. What it changes is a job of the machine, which goes on when
the connection is cut or ansible-playbook is killed; the next run follows it to its end.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

PACKAGE = Path(__file__).parents[2] / "fleet"
JOBS = frozenset({"databases", "deploy", "restore", "rollback", "scale"})
"""The verbs that may start a job."""
AFTER_OTHERS = JOBS - {"databases", "deploy"}
"""Those that go by what runs, for which a job that changes it has to end; a deploy waits for that before it builds."""
WITH_CHECK = JOBS | {"bring", "certificate", "down", "files", "maintenance", "secrets"}
"""The verbs that say beforehand what they would do."""
READING = frozenset({"facts", "follow", "logs", "status"})
MISSING = 76
"""Exit status of the shell where the program is not there."""
PLACE = """\
if [ "$(id -u)" = 0 ]; then prefix=/usr/local; else prefix=$HOME/.local; fi
folder=$prefix/lib/flask-fleet/{name}
"""
RUN = f'[ -f "$folder/flask-fleet" ] || exit {MISSING}\nexec {{python}} "$folder/flask-fleet" {{words}}'
BRING = """\
set -e
umask 022
mkdir -p "$folder" "$prefix/bin"
cat > "$folder/new.$$"
chmod 755 "$folder/new.$$"
mv "$folder/new.$$" "$folder/flask-fleet"
ln -sfn "$folder/flask-fleet" "$prefix/bin/flask-fleet"
find "$prefix/lib/flask-fleet" -mindepth 1 -maxdepth 1 ! -name {name} -exec rm -r {{}} +
"""


@cache
def program() -> tuple[str, bytes]:
    """Pack the program into one file that Python runs; give its name, which follows from its content, and itself."""
    packed = io.BytesIO(b"#!/usr/bin/env python3\n")
    packed.seek(0, io.SEEK_END)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(PACKAGE.rglob("*.py")):
            # The dates of the files would change the name of the same program.
            archive.writestr(zipfile.ZipInfo(str(file.relative_to(PACKAGE.parent))), file.read_bytes())
        archive.writestr(zipfile.ZipInfo("__main__.py"), "import fleet.__main__\n")
    content = packed.getvalue()
    return hashlib.sha256(content).hexdigest()[:12], content


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"directory", "stdin", "verb", "words"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the verb, follow the job that it starts, and give the program's answer."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._ansible = os.getppid()
        verb, words = str(self._task.args["verb"]), [str(word) for word in self._task.args.get("words", [])]
        if verb == "follow":
            return result | self._follow_other()
        if self._task.check_mode and verb in WITH_CHECK:
            return result | self._told(self._ask(verb, "--check", *words))
        if self._task.check_mode and verb not in READING:
            return result | {"changed": False, "skipped": True}
        if verb in AFTER_OTHERS:
            self._follow_other()
        options = ["--detach"] if verb in JOBS else []
        answer = self._ask(verb, *options, *words)
        while "busy" in answer:
            self._follow_other()
            answer = self._ask(verb, *options, *words)
        return result | (self._follow(str(answer["started"])) if "started" in answer else self._told(answer))

    def _told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Say why it failed where ``no_log`` would hide the reason as well."""
        if self._task.no_log and answer.get("failed"):
            self._say(answer["msg"])
        return answer

    def _follow_other(self) -> dict[str, Any]:
        """Follow a job that somebody else began; its failure is no failure of this task."""
        news = self._ask("follow")
        if not news.get("ended", True) and not self._task.check_mode:
            self._say(f"follows what is under way here: {news['job']}")
            self._follow(str(news["id"]))
        return {"changed": False, "msg": news.get("job", "")}

    def _follow(self, job: str) -> dict[str, Any]:
        """Show each step of a job until it has ended."""
        known = 0
        while True:
            news = self._ask("follow", "--since", str(known), "--job", job)
            if news.get("id") != job:
                raise AnsibleActionFail(f"another job took its place: {news.get('job', news.get('msg'))}")
            for line in news["lines"]:
                self._say(line)
            known += len(news["lines"])
            if news["ended"]:
                return {name: news[name] for name in ("changed", "failed", "msg")}

    def _ask(self, verb: str, *words: str) -> dict[str, Any]:
        """Run the program, which is brought first where it is not there, and read its answer."""
        if os.getppid() != self._ansible:
            # ansible-playbook was killed, and this worker was not.
            os._exit(1)
        name, content = program()
        directory = ["--directory", str(self._task.args["directory"])] if "directory" in self._task.args else []
        line = shlex.join([verb, "--json", *directory, *words])
        command = PLACE.format(name=name) + RUN.format(python=self._python(), words=line)
        said = json.dumps(self._task.args["stdin"]).encode() if "stdin" in self._task.args else None
        done = self._shell(command, said)
        if done["rc"] == MISSING:
            brought = self._shell(PLACE.format(name=name) + BRING.format(name=name), content)
            if brought["rc"]:
                raise AnsibleActionFail(f"flask-fleet could not be brought to the machine: {brought['stderr']}")
            done = self._shell(command, said)
        try:
            answer: dict[str, Any] = json.loads(done["stdout"].strip().splitlines()[-1])
        except (IndexError, ValueError):
            # Ansible would add the error of our own reading to the program's.
            raise AnsibleActionFail(f"flask-fleet {verb}: {done['stderr'] or done['stdout']}") from None
        return answer

    def _shell(self, script: str, content: bytes | None = None) -> dict[str, Any]:
        words = f"{self._compute_environment_string()} /bin/sh -c {shlex.quote(script)}"
        done: dict[str, Any] = self._low_level_execute_command(words.strip(), in_data=content)
        return done

    def _python(self) -> str:
        """Name the machine's Python: that of the inventory where it is a path, or the system's."""
        said = str(self._templar.template(self._vars.get("ansible_python_interpreter", "")))
        return shlex.quote(said) if said.startswith("/") else "python3"

    def _say(self, text: str) -> None:
        for line in text.splitlines():
            Display().display(f"  {self._vars['inventory_hostname']}: {line}", color="cyan")
