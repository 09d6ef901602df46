"""Images of instances: CreateImage keeps an instance's disk, and RunInstances boots it."""

from __future__ import annotations

from dataclasses import dataclass

from rehearsal import docker
from rehearsal.state import Settings

REPOSITORY = "flask-fleet/ami"

LIMIT = 900.0
"""Seconds to keep or copy a disk."""


@dataclass(frozen=True)
class Disk:
    """The two parts of a kept disk: an image with the system, and a volume with what the inner Docker engine had.

    ``ami_id`` is the id of the image in EC2.
    """

    settings: Settings
    ami_id: str

    @property
    def image(self) -> str:
        """Name of the Docker image."""
        return f"{REPOSITORY}:{self.settings.name}-{self.ami_id}"

    @property
    def volume(self) -> str:
        """Name of the Docker volume."""
        return f"{self.settings.name}-{self.ami_id}-docker"

    def keep(self, container: str, volume: str) -> None:
        """Keep the disk of an instance, which is its container and its volume.

        Raises:
            DockerError: The engine refused.
        """
        label = f"{docker.LABEL}={self.settings.name}"
        docker.run("container", "commit", "--change", f"LABEL {label}", container, self.image, timeout=LIMIT)
        docker.run("volume", "create", f"--label={label}", self.volume)
        self._copy(volume, self.volume)

    def fill(self, volume: str) -> None:
        """Copy the disk into an instance's volume, which is empty.

        Raises:
            DockerError: The engine refused.
        """
        self._copy(self.volume, volume)

    def _copy(self, source: str, target: str) -> None:
        """Copy a volume with all that overlay file systems need: links, devices and trusted attributes."""
        docker.run(
            "container",
            "run",
            "--rm",
            f"--label={docker.LABEL}={self.settings.name}",
            "--network=none",
            "--cap-add=SYS_ADMIN",
            f"--mount=type=volume,source={source},target=/from,readonly",
            f"--mount=type=volume,source={target},target=/to,volume-nocopy",
            "--entrypoint=cp",
            self.image,
            "--archive",
            "--reflink=auto",
            "/from/.",
            "/to/",
            timeout=LIMIT,
        )

    def remove(self) -> None:
        """Remove both parts; instances that boot from them keep their own."""
        docker.attempt("image", "rm", "--force", self.image)
        docker.attempt("volume", "rm", "--force", self.volume)
