"""Ansible module: asks a URL repeatedly and counts which replica answered."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: answer_spread
short_description: Count which replicas answer at a URL
options:
  url:
    description: An http URL that answers with a JSON object in which C(container) names the replica.
    type: str
    required: true
  host:
    description: The host name to ask for, when it is not that of the URL.
    type: str
    default: ""
  requests:
    description: How many requests to send, one after the other, over one kept connection.
    type: int
    default: 30
  timeout:
    description: How long the first answer may take to come, and any other answer, in seconds.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
"""

EXAMPLES = """
- name: Ask thirty times
  answer_spread:
    url: http://localhost:7151/whoami
"""

RETURN = """
spread:
  description: Number of answers by container id.
  type: dict
  returned: success
"""


def ask(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> str:
    """Ask once who is there.

    Args:
        connection: Connection to the stack.
        path: Path of the request.
        headers: Headers of the request.

    Returns:
        The id of the container that answered.

    Raises:
        OSError: No answer came.
        ValueError: The answer is not what was expected.
    """
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    if response.status != http.client.OK:
        raise ValueError(f"status {response.status}")
    try:
        return str(json.loads(body)["container"])
    except (KeyError, TypeError) as error:
        raise ValueError("no container in the answer") from error


def wait_for_first(connection: http.client.HTTPConnection, path: str, headers: dict[str, str], timeout: float) -> str:
    """Ask until somebody answers, because a service that was just started may need a moment.

    Args:
        connection: Connection to the stack.
        path: Path of the request.
        headers: Headers of the request.
        timeout: How long to go on, in seconds.

    Returns:
        The id of the container that answered.

    Raises:
        OSError: No answer came in time.
        ValueError: The last answer was not what was expected.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask(connection, path, headers)
        except (OSError, ValueError, http.client.HTTPException):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "host": {"type": "str", "default": ""},
            "requests": {"type": "int", "default": 30},
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    url = urlsplit(module.params["url"])
    timeout = module.params["timeout"]
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=timeout)
    headers = {"Host": module.params["host"]} if module.params["host"] else {}
    try:
        answers = [wait_for_first(connection, url.path, headers, timeout)]
        answers += [ask(connection, url.path, headers) for _ in range(module.params["requests"] - 1)]
    except (OSError, ValueError, http.client.HTTPException) as error:
        module.fail_json(msg=f"{module.params['url']} did not answer as a replica: {error}")
        return
    module.exit_json(changed=False, spread=dict(Counter(answers).most_common()))


if __name__ == "__main__":
    main()
