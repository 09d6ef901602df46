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
        text: What is wrong.
        line: Line in the file; 0 where there is none.
    """

    id: str
    where: str
    text: str
    line: int = 0

    def __str__(self) -> str:
        """Write it for a person."""
        return f"{self.where}{f':{self.line}' if self.line else ''}: {self.id}: {self.text}"


@dataclass(frozen=True)
class Reason:
    """Why findings stay.

    Attributes:
        check: Name of the check.
        id: Pattern of the rule's name.
        where: Pattern of the file.
        reason: The reason.
    """

    check: str
    id: str
    where: str
    reason: str

    def excuses(self, check: str, finding: Finding) -> bool:
        """Tell whether a finding stays for this reason.

        Args:
            check: Name of the check that found it.
            finding: What it found.

        Returns:
            Whether check, rule and file are meant.
        """
        return self.check == check and fnmatchcase(finding.id, self.id) and fnmatchcase(finding.where, self.where)


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        tool: What looked, with its version.
        looked_at: What it looked at, with the number of it; a check that saw nothing says 0.
        findings: What it found.
        count: How many things it looked at.
    """

    tool: str
    looked_at: str
    count: int
    findings: Sequence[Finding] = field(default_factory=tuple)


def judge(check: str, outcome: Outcome, reasons: Sequence[Reason]) -> tuple[list[Finding], int]:
    """Tell what of a check has to be mended.

    Args:
        check: Its name.
        outcome: What came of it.
        reasons: Why findings stay.

    Returns:
        What has to be mended, and the number of findings that stay. A check that looked at nothing, and a reason that
        excuses nothing, have to be mended as well.
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
    """Write the table.

    Args:
        rows: A cell for each column.

    Returns:
        Its lines, the head included.
    """
    lines = [COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines
    )
