"""What a check found, what of it stays for a reason, and the table of all checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

COLUMNS = ("check", "with", "looked at", "found", "stays", "result")


@dataclass(frozen=True)
class Finding:
    """Something that a tool does not like.

    Attributes:
        id: The tool's name for the rule.
        where: File, from the project's folder, or what else it is about.
        line: Line in the file; 0 where there is none.
    """

    id: str
    where: str
    text: str
    line: int = 0

    def __str__(self) -> str:
        """Write the finding for a person."""
        return f"{self.where}{f':{self.line}' if self.line else ''}: {self.id}: {self.text}"


@dataclass(frozen=True)
class Reason:
    """Why findings of a check stay; ``id`` and ``where`` are patterns of the rule's name and of the file."""

    check: str
    id: str
    where: str
    reason: str

    def excuses(self, check: str, finding: Finding) -> bool:
        """Tell whether a finding of a check stays for this reason: check, rule and file are all meant."""
        return self.check == check and fnmatchcase(finding.id, self.id) and fnmatchcase(finding.where, self.where)


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        tool: What looked, with its version.
        looked_at: What kind of things it looked at.
        count: How many of them there were; a check that saw nothing says 0.
    """

    tool: str
    looked_at: str
    count: int
    findings: Sequence[Finding] = field(default_factory=tuple)


def judge(check: str, outcome: Outcome, reasons: Sequence[Reason]) -> tuple[list[Finding], int]:
    """Tell what of a check has to be mended, and how many of its findings stay for a reason.

    A check that looked at nothing, and a reason that excuses nothing, have to be mended as well.
    """
    ours = [reason for reason in reasons if reason.check == check]
    excused = [one for one in outcome.findings if any(reason.excuses(check, one) for reason in ours)]
    bad = [one for one in outcome.findings if one not in excused]
    if not outcome.count:
        bad.append(Finding("nothing", check, "there was nothing to look at, which is no success"))
    bad += [
        Finding(reason.id, reason.where, "audit/findings.yml excuses what is not found any more")
        for reason in ours
        if not any(reason.excuses(check, one) for one in outcome.findings)
    ]
    return bad, len(excused)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Write the table from rows with a cell for each column, below a head."""
    lines = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines
    )
