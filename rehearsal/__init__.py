"""The rehearsal: a local EC2 whose instances are systemd containers on this machine."""

ACCOUNT_ID = "000000000000"
"""Account number that the rehearsal answers with; no real AWS account has it, so playbooks and tests may rely on it."""

CREDENTIAL = "rehearsal"
"""Value of both dummy AWS credentials; the API checks no signature."""

HOME = "/rehearsal"
"""Path under which the API process answers about itself, beside the AWS API."""

CHECKIP = "/checkip"
"""Path that answers with the address at which instances and the API see the controller."""

FAULTS = f"{HOME}/faults"
"""Path under which faults are asked for."""

UNREADABLE = 3
"""Exit code of the API process when it cannot use what an earlier one kept."""
