"""The command flask-fleet, for a person on the machine and for the playbooks."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet import deploy
from fleet.bundle import bring
from fleet.database import Databases
from fleet.engine.base import Replica
from fleet.files import File, place
from fleet.job import BusyError, Job, Jobs, Progress
from fleet.secret_files import SecretFolder, hand_over
from fleet.stack import Stack
from fleet.status import status
from fleet.system import FleetError, write

DIRECTORY = Path("/opt/flask-fleet")
FOLLOW_S = 20
"""How long one answer to ``follow`` is waited for; shorter than any connection is kept idle."""
PAGE = "nginx/maintenance.html"
CERTIFICATE_SETTINGS = Path("/var/lib/flask-fleet-certificate/settings.json")

Result = Mapping[str, Any]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    given = _parser().parse_args(words)
    # nginx and the replicas read some of the files, as other users than the operator's.
    os.umask(0o022)
    try:
        result: Result = given.run(given)
    except BusyError as error:
        result = {"failed": True, "busy": True, "msg": str(error)}
    except FleetError as error:
        result = {"failed": True, "msg": str(error)}
    except OSError as error:
        # The error of a full disk does not name the file.
        result = {"failed": True, "msg": f"{error.filename or 'a file'}: {error.strerror}"}
    if given.json:
        print(json.dumps({"changed": False, "failed": False, **result}))
        return 0
    if text := str(result.get("text") or result.get("msg") or ""):
        print(text, file=sys.stderr if result.get("failed") else sys.stdout)
    return int(result.get("status", bool(result.get("failed"))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flask-fleet", description="Look after the stack on this machine.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--directory", type=Path, default=DIRECTORY, help="folder of the stack (%(default)s)")
    common.add_argument("--json", action="store_true", help="answer with one line of JSON")
    checking = argparse.ArgumentParser(add_help=False, parents=[common])
    checking.add_argument("--check", action="store_true", help="only say whether anything would change")
    changing = argparse.ArgumentParser(add_help=False, parents=[checking])
    changing.add_argument("--who", default=_login_name(), help="who wants it, and why, for the audit log (%(default)s)")
    changing.add_argument("--detach", action="store_true", help="do not wait for the end")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], Result], does: str, kind: argparse.ArgumentParser) -> Any:
        added = verbs.add_parser(name, help=does, description=f"{does}.", parents=[kind])
        added.set_defaults(run=run, verb=name)
        return added

    verb("status", _status, "Show what runs", common)
    one = verb("deploy", _deploy, "Bring a release to life, and go back if it does not work", changing)
    one.add_argument("release", nargs="?", default="", help="its id; without it the live one, all of it")
    one = verb("rollback", _deploy, "Go back to an earlier release", changing)
    one.add_argument("release", nargs="?", default="", help="its id; without it the one before")
    one = verb("scale", _scale, "Change the number of replicas until the next deploy", changing)
    one.add_argument("numbers", nargs="+", metavar="SERVICE=COUNT")
    one = verb("follow", _follow, "Follow the job that is under way to its end", common)
    one.add_argument("--since", type=int, default=0, help="how many of its lines are known already")
    one.add_argument("--job", default="", help="its id; without it the one that is under way, or else the last one")
    verb("cancel", _cancel, "End the job that is under way, and go back to the release before", common)
    one = verb("logs", _logs, "Show the last lines of the logs", common)
    one.add_argument("service", nargs="?", default="")
    one.add_argument("--replica", default="", help="id or name of one of its replicas")
    one.add_argument("--lines", type=int, default=50, help="how many of each (%(default)s)")
    one = verb("exec", _exec, "Run a command in one replica", common)
    one.add_argument("service")
    one.add_argument("command", nargs=argparse.REMAINDER)
    one = verb("maintenance", _maintenance, "Answer everything with a page of maintenance, or not", checking)
    one.add_argument("state", choices=["on", "off"])
    verb("prune", _prune, "Remove what no kept release needs", common)
    verb("down", _down, "Remove the stack and its files, but no data of databases", checking)
    _add_data_verbs(verb, common, checking, changing)
    one = verb("facts", _facts, "Say what the machine and its engine are", common)
    one.add_argument("--nginx", default="", help="an image of nginx, whose OpenSSL is asked for")
    one = verb("bring", _bring, "Bring the files of a release, as a playbook gives them", checking)
    one.add_argument("release")
    verb("files", _files, "Write files of the machine, as a playbook gives them", checking)
    verb("secrets", _secrets, "Write files that only the user of a container can read", checking)
    # Only for this command itself, and therefore without help.
    one = verbs.add_parser("job", parents=[changing])
    one.set_defaults(run=_work, verb="job")
    one.add_argument("of", choices=sorted(JOBS))
    one.add_argument("words", nargs="*")
    one.add_argument("after")
    one.add_argument("identity")
    return parser


def _add_data_verbs(
    verb: Callable[..., Any],
    common: argparse.ArgumentParser,
    checking: argparse.ArgumentParser,
    changing: argparse.ArgumentParser,
) -> None:
    one = verb("databases", _databases, "Start the databases; remove what is not described any more, or all", changing)
    one.add_argument("do", choices=["start", "prune", "down"])
    one.add_argument("--data", choices=["keep", "delete"], default="keep", help="what down does with it (%(default)s)")
    one.add_argument("--project", default="", help="their Compose project, where their files may be gone")
    one = verb("backup", _backup, "Write a backup of a database, and read all of it again", common)
    one.add_argument("database")
    one.add_argument("file", type=Path, help="it must not exist")
    one = verb("restore", _restore, "Put a backup in the place of what a database has", changing)
    one.add_argument("database")
    one.add_argument("file", type=Path)
    one = verb("certificate", _certificate, "Make a certificate that nginx can start with, or renew it", checking)
    one.add_argument("do", choices=["prepare", "renew"])
    one.add_argument("--anew", action="store_true", help="also when it is not due")
    one.add_argument("--settings", type=Path, default=CERTIFICATE_SETTINGS, help="what the role wrote (%(default)s)")


def _login_name() -> str:
    """Name the person, also behind sudo, and where no variable does."""
    behind = os.environ.get("SUDO_USER")
    return behind or pwd.getpwuid(os.getuid()).pw_name


def _status(given: argparse.Namespace) -> Result:
    return status(Stack(given.directory), Jobs(given.directory))


def _deploy(given: argparse.Namespace) -> Result:
    stack, jobs = Stack(given.directory), Jobs(given.directory)
    if given.verb == "rollback":
        release = deploy.earlier_release(stack, given.release)
    else:
        release = given.release or stack.releases.live()
        if not release or not stack.releases.folder(release).is_dir():
            raise FleetError(f"release is {release or 'not given'}: there is no such release here")
    last = jobs.progress()
    if last.ended and deploy.is_deployed(stack, release, last):
        return {"changed": False, "msg": f"Release {release} runs already, all of it."}
    return _start(given, f"{given.verb} {release}", [given.verb, release])


def _scale(given: argparse.Namespace) -> Result:
    if given.check:
        return {"changed": deploy.changes_number(Stack(given.directory), _numbers(given.numbers))}
    _numbers(given.numbers)
    return _start(given, f"scale {' '.join(given.numbers)}", ["scale", *given.numbers])


def _numbers(words: Sequence[str]) -> dict[str, int]:
    """Read numbers of replicas such as ``app=5``."""
    pairs = [word.partition("=") for word in words]
    for word, (_, _, count) in zip(words, pairs, strict=True):
        if not count.isdecimal():
            raise FleetError(f"{word}: allowed is SERVICE=COUNT, such as app=5")
    return {name: int(count) for name, _, count in pairs}


def _start(given: argparse.Namespace, what: str, words: Sequence[str]) -> Result:
    """Start a job, and follow it unless somebody else will."""
    if given.check:
        return {"changed": True}
    program = [sys.executable, str(Path(sys.argv[0]).resolve()), "job"]
    options = ["--directory", str(given.directory.absolute()), f"--who={given.who}"]
    begun = Jobs(given.directory).start(what, given.who, [*program, *options, *words])
    if given.detach:
        return {"started": begun.id, "changed": True}
    return _show(given, begun.id)


def _follow(given: argparse.Namespace) -> Result:
    """Print what a job says until it ends; for a program, say once what is new."""
    jobs = Jobs(given.directory)
    if given.json:
        return _news(jobs.follow(given.since, FOLLOW_S, given.job))
    return _show(given, given.job or jobs.progress().id)


def _show(given: argparse.Namespace, job: str) -> Result:
    """Print what a job says until it ends, unless a program asks."""
    jobs, known = Jobs(given.directory), 0
    while True:
        found = jobs.follow(known, FOLLOW_S, job)
        if found.id != job:
            raise FleetError(f"job {job} is not known any more")
        for line in found.lines:
            if not given.json:
                print(line, flush=True)
        known += len(found.lines)
        if found.ended:
            return _end(found)


def _news(found: Progress) -> Result:
    news = {"lines": found.lines, "ended": found.ended, "id": found.id, "job": found.describe() if found.id else ""}
    return {**news, **(_end(found) if found.ended else {})}


def _end(found: Progress) -> Result:
    if not found.id:
        return {"changed": False, "msg": "Nothing was done here yet."}
    if found.was_killed:
        return {"failed": True, "msg": f"It was killed before its end: {found.describe()}. The next deploy ends it."}
    return found.result


def _cancel(given: argparse.Namespace) -> Result:
    found = Jobs(given.directory).cancel()
    return {"changed": True, "msg": f"Cancelled: {found.describe()}. To see how it ends: flask-fleet follow"}


def _logs(given: argparse.Namespace) -> Result:
    engine = Stack(given.directory).engine
    all_of_them = sorted(engine.replicas(), key=lambda one: one.name)
    chosen = chosen_replicas(all_of_them, given.service, given.replica)
    if not chosen or given.lines < 1:
        listed = "\n".join(f"{one.service}  {one.id}  {one.name}" for one in all_of_them)
        raise FleetError(
            f"service is {given.service!r}, replica {given.replica!r} and lines {given.lines}: allowed is a whole "
            f"number of lines, a service, and the id or name of one of its replicas:\n{listed}"
        )
    return {"text": engine.logs(chosen, given.lines)}


def chosen_replicas(replicas: Sequence[Replica], service: str, replica: str) -> list[Replica]:
    """Choose containers by their service, or one by its id, the beginning of that, or its name.

    Of several whose ids begin so, none is meant.
    """
    matching = [
        one
        for one in replicas
        if service in ("", one.service) and (not replica or one.id.startswith(replica) or one.name == replica)
    ]
    return matching if not replica or len(matching) == 1 else []


def _exec(given: argparse.Namespace) -> Result:
    engine = Stack(given.directory).engine
    services = engine.plan(None)
    words = given.command[1:] if given.command[:1] == ["--"] else given.command
    if given.service not in services or not words:
        raise FleetError(
            f"service is {given.service!r} and command {' '.join(words)!r}: allowed is one of the services "
            f"{', '.join(services)}, and a command, such as python -V"
        )
    answer = engine.execute(given.service, words)
    return {"changed": True, "text": answer.text.rstrip("\n"), "status": answer.status}


def _maintenance(given: argparse.Namespace) -> Result:
    page, shown = given.directory / "maintenance.html", given.directory / PAGE
    was_on = shown.exists()
    if given.state == "off":
        if not given.check:
            shown.unlink(missing_ok=True)
        return {"changed": was_on}
    if not was_on and given.check:
        # Nor is there the page yet, perhaps.
        return {"changed": True}
    text = page.read_text(encoding="utf-8")
    is_changed = not was_on or shown.read_text(encoding="utf-8") != text
    if is_changed and not given.check:
        write(shown, text)
    return {"changed": is_changed}


def _prune(given: argparse.Namespace) -> Result:
    Stack(given.directory).prune()
    return {"changed": True}


def _down(given: argparse.Namespace) -> Result:
    stack, job = Stack(given.directory), Jobs(given.directory).progress()
    if not stack.directory.exists():
        return {"changed": False}
    if not job.ended:
        raise BusyError(job)
    if not given.check:
        stack.down()
    return {"changed": True}


def _databases(given: argparse.Namespace) -> Result:
    databases = Databases(given.directory, given.project)
    if given.do == "prune":
        return databases.prune(really=not given.check)
    if given.do == "down":
        return databases.down(deletes_data=given.data == "delete", really=not given.check)
    if not (databases.settings.names or given.check):
        raise FleetError(f"no databases are described in {databases.directory}")
    if not databases.are_current():
        return _start(given, "databases start", ["databases", "start"])
    if not given.check:
        databases.log_in()
    return {"changed": False, "msg": "All databases serve."}


def _backup(given: argparse.Namespace) -> Result:
    return Databases(given.directory).backup(given.database, given.file)


def _restore(given: argparse.Namespace) -> Result:
    Databases(given.directory).running(given.database)
    if not given.file.is_file():
        raise FleetError(f"{given.file}: there is no such file")
    words = ["restore", given.database, str(given.file.absolute())]
    return _start(given, " ".join(words), words)


def _certificate(given: argparse.Namespace) -> Result:
    # Only here, because its modules take longer to load than all the others together.
    from fleet import certificate  # noqa: PLC0415

    reload, renews = Stack(given.directory).proxy.reload, given.do == "renew"
    return certificate.keep(given.settings, reload, renews=renews, anew=given.anew, really=not given.check)


def _memory_mib() -> int:
    """Read it where a container is told of its own, which sysconf does not know."""
    said = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(said["MemTotal"].split()[0]) // 1024


def _facts(given: argparse.Namespace) -> Result:
    engine = Stack(given.directory).engine
    return {
        # As nproc counts them: those that this machine may use, in a container too.
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": _memory_mib(),
        "engine": engine.facts(),
        "openssl": engine.openssl(given.nginx) if given.nginx else "",
    }


def _bring(given: argparse.Namespace) -> Result:
    files = [File(**one) for one in json.load(sys.stdin)]
    return bring(Stack(given.directory), given.release, files, really=not given.check)


def _files(given: argparse.Namespace) -> Result:
    return place([File(**one) for one in json.load(sys.stdin)], really=not given.check)


def _secrets(given: argparse.Namespace) -> Result:
    return hand_over([SecretFolder(**one) for one in json.load(sys.stdin)], really=not given.check)


def _work(given: argparse.Namespace) -> Result:
    """Be the job that ``_start`` has started."""
    stack = Stack(given.directory)
    what = " ".join([given.of, *given.words])

    def task(job: Job) -> Result:
        return JOBS[given.of](stack, job, given.words)

    return {"failed": not Jobs(given.directory).work(given.after, given.identity, what, given.who, task)}


JOBS: dict[str, Callable[[Stack, Job, Sequence[str]], Result]] = {
    "deploy": lambda stack, job, words: deploy.deploy(stack, job, words[0], prepares=True),
    "rollback": lambda stack, job, words: deploy.deploy(stack, job, words[0], prepares=False),
    "scale": lambda stack, job, words: deploy.scale(stack, job, _numbers(words)),
    "databases": lambda stack, job, _: Databases(stack.directory).start(job.say),
    "restore": lambda stack, _, words: Databases(stack.directory).restore(words[0], Path(words[1])),
}
