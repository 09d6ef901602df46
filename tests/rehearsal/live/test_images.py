"""CreateImage makes an image once, from which instances boot fast."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

from tests.rehearsal.live.conftest import NAME, Lab

pytestmark = pytest.mark.docker

HOST_KEY = "cat /etc/ssh/ssh_host_ed25519_key.pub"

LAYER = """set -e
mkdir -p /var/lib/docker/overlay2/layer/diff/dir
cd /var/lib/docker/overlay2/layer/diff
setfattr() { python3 -c 'import os,sys; os.setxattr(sys.argv[1], "trusted.overlay.opaque", b"y")' "$1"; }
setfattr dir
mknod whiteout c 0 0
echo content > dir/file
ln dir/file dir/link
"""
"""Files like those of a layer of the inner Docker engine."""

CHECK = """set -e
cd /var/lib/docker/overlay2/layer/diff
test -c whiteout
test "$(stat -c %h dir/file)" = 2
python3 -c 'import os; assert os.getxattr("dir", "trusted.overlay.opaque") == b"y"'
cat dir/link /opt/baked
"""


def test_image_of_an_instance_boots_with_all_that_was_in_it(lab: Lab) -> None:
    """It has the system and the inner engine's layers, but keys and an identity of its own."""
    source = lab.run()
    lab.inside(source, LAYER + "echo baked > /opt/baked")
    made = lab.ec2.create_image(
        InstanceId=source,
        Name="baked",
        TagSpecifications=[
            {"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "baked"}]} for kind in ("image", "snapshot")
        ],
    )["ImageId"]
    (image,) = lab.ec2.describe_images(ImageIds=[made])["Images"]
    assert (image["State"], image["Name"], image["OwnerId"]) == ("available", "baked", "000000000000")
    assert lab.ec2.describe_images(Owners=["self"])["Images"] == [image]
    assert lab.describe(source)["State"]["Name"] == "running"
    with pytest.raises(ClientError, match=r"InvalidAMIName\.Duplicate"):
        lab.ec2.create_image(InstanceId=source, Name="baked")

    begin = time.monotonic()
    copy = lab.run(ImageId=made)
    assert time.monotonic() - begin < 15
    assert lab.inside(copy, CHECK) == "content\nbaked"
    assert lab.inside(copy, HOST_KEY) != lab.inside(source, HOST_KEY)
    assert lab.inside(copy, "hostname") != lab.inside(source, "hostname")
    assert lab.describe(copy)["ImageId"] == made

    labelled = f"label=flask-fleet.rehearsal={NAME}"
    assert lab.host("docker", "image", "ls", "--quiet", "--filter", labelled)
    lab.ec2.deregister_image(ImageId=made)
    assert lab.ec2.describe_images(Owners=["self"])["Images"] == []
    assert lab.host("docker", "volume", "ls", "--quiet", "--filter", f"name={made}") == ""
    assert lab.inside(copy, "cat /opt/baked") == "baked"
    with pytest.raises(ClientError, match="InvalidAMIID"):
        lab.run(ImageId=made)


def test_image_without_a_reboot_and_of_a_stopped_instance(lab: Lab) -> None:
    """With NoReboot the instance goes on running."""
    source = lab.run()
    boot = lab.inside(source, "cat /proc/sys/kernel/random/boot_id")
    made = [lab.ec2.create_image(InstanceId=source, Name="live", NoReboot=True)["ImageId"]]
    assert lab.ec2.describe_images(ImageIds=made)["Images"][0]["State"] == "available"
    assert lab.inside(source, "cat /proc/sys/kernel/random/boot_id") == boot
    lab.ec2.stop_instances(InstanceIds=[source])
    lab.describe(source)
    made.append(lab.ec2.create_image(InstanceId=source, Name="stopped")["ImageId"])
    assert lab.ec2.describe_images(ImageIds=made)["Images"][1]["State"] == "available"
    assert lab.describe(source)["State"]["Name"] == "stopped"
    for image in made:
        lab.ec2.deregister_image(ImageId=image)
