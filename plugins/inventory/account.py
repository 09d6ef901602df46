"""Ansible inventory source: makes sure that somebody answers as AWS before instances are asked for.

Without it a missing credential ends in pages of parser warnings, or in an empty inventory.
"""

from __future__ import annotations

import os
from typing import Any

import boto3
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.display import Display
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

DOCUMENTATION = """
name: account
short_description: Refuse to go on when neither AWS nor the rehearsal answers
description:
  - Adds no host. Ends the run with one message that says how to reach either.
options:
  plugin:
    description: Always C(account).
    required: true
    choices: [account]
"""

EXAMPLES = """
plugin: account
"""

WAYS_OUT = """\
  rehearsal (no account needed):  make rehearse, or if it runs: eval "$(python -m rehearsal env)"
  AWS:                            export AWS_PROFILE=..., or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"""


def problem() -> str | None:
    """Ask who we are.

    Returns:
        A message when nobody answers, else None.
    """
    try:
        boto3.client("sts", region_name=os.environ.get("AWS_REGION", "us-east-1")).get_caller_identity()
    except NoCredentialsError:
        return f"There are no AWS credentials and no rehearsal is chosen. Two ways on:\n{WAYS_OUT}"
    except EndpointConnectionError:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "AWS")
        return f"Nobody answers at {endpoint} (AWS_ENDPOINT_URL). Two ways on:\n{WAYS_OUT}"
    except ValueError as error:
        return f"AWS_ENDPOINT_URL is {os.environ.get('AWS_ENDPOINT_URL')!r}: {error}. Two ways on:\n{WAYS_OUT}"
    except (BotoCoreError, ClientError) as error:
        return f"AWS does not accept the credentials: {error}. Two ways on:\n{WAYS_OUT}"
    return None


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    """Ansible's entry point."""

    NAME = "account"

    def verify_file(self, path: str) -> bool:
        """Tell whether a file is this plugin's.

        Args:
            path: The file.

        Returns:
            True for account.yml.
        """
        return bool(super().verify_file(path)) and path.endswith("account.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Check, and adds nothing.

        Args:
            inventory: Unused.
            loader: Ansible's file loader.
            path: The file.
            cache: Unused.

        Raises:
            SystemExit: Nobody answers. An ordinary error would be buried under what the other parsers say.
        """
        super().parse(inventory, loader, path, cache)
        found = problem()
        if found:
            Display().error(found, wrap_text=False)
            raise SystemExit(1)
