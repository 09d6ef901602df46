"""A real ACME authority for tests: Debian's pebble on the instance, which resolves names as the test says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from testinfra.host import Host

FOLDER = "/opt/pebble"
UNIT = "pebble"
PORT = 14000
MANAGEMENT_PORT = 15000
VALID_S = 90 * 86400
"""As long as Let's Encrypt's at the time of writing; pebble's own five years would be refused by browsers."""
CONFIG = {
    "pebble": {
        "listenAddress": f"127.0.0.1:{PORT}",
        "managementListenAddress": f"127.0.0.1:{MANAGEMENT_PORT}",
        "certificate": f"{FOLDER}/cert.pem",
        "privateKey": f"{FOLDER}/key.pem",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "certificateValidityPeriod": VALID_S,
    }
}
HOSTS = "/etc/hosts"
MARK = "# of a test"


class Authority:
    """Pebble on the instance.

    Attributes:
        directory: URL of its ACME directory, as seen from the instance.
        own: File on this machine with pebble's own server certificate.
        root: File on this machine with the root of the certificates that pebble issues.
    """

    directory = f"https://localhost:{PORT}/dir"

    def __init__(self, host: Host, folder: Path) -> None:
        """Install pebble without starting it; ``folder`` takes its certificates on this machine."""
        self.host = host
        self.own = folder / "authority.pem"
        self.root = folder / "root.pem"
        self._sudo("apt-get install --yes --no-install-recommends pebble")
        self._sudo(f"mkdir --parents {FOLDER}")
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        files = f"-keyout {FOLDER}/key.pem -out {FOLDER}/cert.pem"
        key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc"
        self._sudo(f"openssl req -x509 {key} -days 30 -subj /CN=pebble -addext {names} {files}")
        self._sudo(f"tee {FOLDER}/config.json <<'END'\n{json.dumps(CONFIG)}\nEND")
        self.own.write_text(self._sudo(f"cat {FOLDER}/cert.pem"))

    def start(self) -> None:
        """Start pebble with a new root certificate."""
        # Without the pauses before each check that make clients wait.
        settings = "--setenv PEBBLE_VA_NOSLEEP=1"
        # One of a run that was killed has another key.
        self._sudo(f"systemctl stop {UNIT} || true")
        self._sudo(f"systemd-run --unit {UNIT} {settings} pebble -config {FOLDER}/config.json")
        ask = f"curl --silent --show-error --retry 20 --retry-connrefused --retry-delay 1 --cacert {FOLDER}/cert.pem"
        self.root.write_text(self._sudo(f"{ask} https://localhost:{MANAGEMENT_PORT}/roots/0"))

    def stop(self) -> None:
        """Stop pebble."""
        self._sudo(f"systemctl stop {UNIT}")

    def point(self, places: Mapping[str, str]) -> None:
        """Make names lead to these addresses alone, for the instance and so for the authority."""
        lines = "".join(f"\n{address} {name} {MARK}" for name, address in places.items())
        # In place: it is a mount in a container.
        self._sudo(f'sh -c \'kept=$(grep -v "{MARK}" {HOSTS}); echo "$kept{lines}" > {HOSTS}\'')

    def _sudo(self, command: str) -> str:
        with self.host.sudo():
            return str(self.host.check_output(command))
