"""Where moto's EC2 is changed: its instances get containers, and a few of its answers those of AWS.

moto has no plug-in point; its maintainers' advice is to patch the backend in a launcher of one's own. ``PINNED`` lists
each name that is relied on, with its parameters: moto moving one must be an error, not a rehearsal that boots nothing.
"""

from __future__ import annotations

import functools
import inspect
import ipaddress
import platform
import threading
from collections.abc import Callable, Iterator
from typing import Any

from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2 import utils as ec2_utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState, StateReason
from moto.ec2.models.key_pairs import KeyPairBackend
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.general import General

from rehearsal import network
from rehearsal.errors import RehearsalError
from rehearsal.fleet import Fleet
from rehearsal.instance import machine_for
from rehearsal.sizing import Size, size_of

PINNED: tuple[tuple[type[Any], str, tuple[str, ...]], ...] = (
    (InstanceBackend, "run_instances", ("image_id", "count", "user_data", "security_group_names", "kwargs")),
    (InstanceBackend, "modify_instance_attribute", ("instance_id", "key", "value")),
    (InstanceBackend, "get_reservations_by_instance_ids", ("instance_ids", "filters")),
    (InstanceBackend, "describe_instance_status", ("instance_ids", "include_all_instances", "filters")),
    (InstanceBackend, "get_instance", ("instance_id",)),
    (Instance, "start", ()),
    (Instance, "stop", ()),
    (Instance, "reboot", ()),
    (Instance, "terminate", ()),
    (NetworkInterface, "check_auto_public_ip", ()),
    (NetworkInterface, "stop", ()),
    (ElasticAddressBackend, "allocate_address", ("domain", "address", "tags")),
    (
        ElasticAddressBackend,
        "associate_address",
        ("instance", "eni", "address", "allocation_id", "reassociate"),
    ),
    (ElasticAddressBackend, "disassociate_address", ("address", "association_id")),
    (KeyPairBackend, "describe_key_pairs", ("key_names", "filters")),
    (
        VPCBackend,
        "create_vpc",
        (
            "cidr_block",
            "instance_tenancy",
            "amazon_provided_ipv6_cidr_block",
            "ipv6_cidr_block_network_border_group",
            "tags",
            "is_default",
        ),
    ),
    (General, "get_console_output", ()),
)
"""Class, method and its parameters after ``self``, of everything in moto that is replaced or called."""

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}

MOTO_NO_TOKEN = "ABCDE"
"""What moto passes as client token when the caller sent none."""

ONLY_STOPPED = {"instance_type", "user_data", "kernel", "ebs_optimized"}
"""Attributes that AWS changes on a stopped instance only."""

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def check_pins() -> None:
    """Make sure that moto still has what is patched.

    Raises:
        RehearsalError: A name moved or has other parameters.
    """
    moved = []
    for owner, name, expected in PINNED:
        method = vars(owner).get(name)
        if method is None:
            moved.append(f"{owner.__name__}.{name} is gone")
        elif tuple(inspect.signature(method).parameters)[1:] != expected:
            moved.append(f"{owner.__name__}.{name} has other parameters")
    if "vpc-elastic-ip" not in ec2_utils.EC2_RESOURCE_TO_PREFIX:
        moved.append("EC2_RESOURCE_TO_PREFIX has no vpc-elastic-ip")
    if moved:
        raise RehearsalError(f"this version of moto does not fit the rehearsal: {'; '.join(moved)}")


class MotoInstance:
    """An instance in moto's memory, as the fleet wants to see it."""

    def __init__(self, instance: Instance) -> None:
        """Wrap an instance.

        Args:
            instance: moto's instance.
        """
        self.raw = instance

    @property
    def id(self) -> str:
        """The EC2 instance id."""
        return str(self.raw.id)

    @property
    def size(self) -> Size:
        """Size of its present type."""
        return size_of(INSTANCE_TYPES[self.raw.instance_type])

    @property
    def state(self) -> str:
        """Name of its EC2 state."""
        return str(self.raw.state)

    @property
    def terminates_on_shutdown(self) -> bool:
        """Whether ``poweroff`` inside terminates it."""
        return bool(self.raw.instance_initiated_shutdown_behavior == "terminate")

    def become(self, state: str, code: str = "", reason: str = "") -> None:
        """Change the EC2 state.

        Args:
            state: Name of the new state.
            code: Code of the state reason.
            reason: Message of the state reason.
        """
        self.raw._state = InstanceState(state, CODES[state])
        self.raw.state_reason = StateReason(f"{code}: {reason}" if code else "", code)
        self.raw._reason = f"{reason} ({utcnow():%Y-%m-%d %H:%M:%S UTC})" if reason else ""


def all_instances() -> Iterator[Instance]:
    """Go through the instances of all regions.

    Yields:
        moto's instances, oldest first in each region.
    """
    for account in list(ec2_backends.values()):
        for backend in list(account.values()):
            for reservation in list(backend.reservations.values()):
                yield from list(reservation.instances)


def install(fleet: Fleet) -> None:
    """Patch moto so that its instances are the fleet's.

    Args:
        fleet: Where the containers are.

    Raises:
        RehearsalError: This moto is not the one that the patches were written for.
    """
    check_pins()
    _patch_launch(fleet)
    _patch_life(fleet)
    _patch_changes()
    _patch_waiting(fleet)
    _patch_addresses(fleet)
    _patch_console(fleet)
    # moto says vpc-elastic-ip; DescribeTags then finds no tag of an address and amazon.aws adds them for ever.
    ec2_utils.EC2_PREFIX_TO_RESOURCE["eipalloc"] = "elastic-ip"


def _wrap(owner: type[Any], name: str) -> Callable[[Callable[..., Any]], None]:
    """Replace a method by one that gets the original as its first argument."""
    original = vars(owner)[name]

    def install_wrapper(wrapper: Callable[..., Any]) -> None:
        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return wrapper(original, *args, **kwargs)

        setattr(owner, name, method)

    return install_wrapper


def check_type(instance_type: str, image_architecture: str) -> None:
    """Refuse what AWS refuses, and what this machine cannot run.

    Args:
        instance_type: For example ``t2.micro``.
        image_architecture: Architecture of the AMI.

    Raises:
        EC2ClientError: The type cannot boot the image, here or anywhere.
    """
    offered = INSTANCE_TYPES[instance_type]["ProcessorInfo"]["SupportedArchitectures"]
    if image_architecture not in offered:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"The architecture '{','.join(offered)}' of the specified instance type does not match the architecture "
            f"'{image_architecture}' of the specified AMI.",
        )
    machine = platform.machine()
    if ARCHITECTURES.get(machine) != image_architecture:
        raise EC2ClientError(
            "Unsupported", f"The rehearsal boots containers, and this {machine} machine cannot run {image_architecture}"
        )


def _patch_launch(fleet: Fleet) -> None:
    launched: dict[str, Any] = {}
    launching = threading.Lock()

    @_wrap(InstanceBackend, "run_instances")
    def run_instances(
        original: Callable[..., Any], backend: EC2Backend, image_id: str, count: int, *args: Any, **kwargs: Any
    ) -> Any:
        token = kwargs.get("client_token", MOTO_NO_TOKEN)
        with launching:
            if token != MOTO_NO_TOKEN and token in launched:
                return launched[token]  # boto3 repeats a request whose answer got lost
            images = backend.describe_images(ami_ids=[image_id]) if image_id else []
            if images and kwargs["instance_type"] in INSTANCE_TYPES:
                check_type(kwargs["instance_type"], str(images[0].architecture))
            _choose_subnet(backend, kwargs)
            reservation = original(backend, image_id, count, *args, **kwargs)
            launched[token] = reservation
        for instance in reservation.instances:
            _launch(fleet, backend, instance)
        return reservation


def _choose_subnet(backend: EC2Backend, request: dict[str, Any]) -> None:
    """Use the default subnet when none is named, as AWS does; moto would invent an address of EC2-Classic."""
    subnets = backend.get_default_subnets()
    zone = request.get("placement") or min(subnets, default=None)
    if request.get("subnet_id") or request.get("launch_template") or zone not in subnets:
        return
    interfaces = request.get("nics") or []
    if not interfaces:
        request["subnet_id"] = subnets[zone].id
    for interface in interfaces:
        if not interface.get("NetworkInterfaceId"):
            interface.setdefault("SubnetId", subnets[zone].id)


def _launch(fleet: Fleet, backend: EC2Backend, instance: Instance) -> None:
    address = str(instance.private_ip)
    if ipaddress.ip_address(address) not in network.parse_network(fleet.settings.network):
        reason = f"subnet {instance.subnet_id} is outside the rehearsal's network {fleet.settings.network}"
        MotoInstance(instance).become("terminated", "Server.InternalError", reason)
        return
    pairs = backend.describe_key_pairs(key_names=[instance.key_name]) if instance.key_name else []
    keys = [pair.public_key.strip() for pair in pairs]
    user_data = instance.user_data.decode() if instance.user_data else None
    machine = machine_for(fleet.settings, instance.id, address, keys, user_data)
    fleet.launch(MotoInstance(instance), machine)


def _refuse(instance: Instance, needed: str) -> EC2ClientError:
    return EC2ClientError("IncorrectInstanceState", f"The instance '{instance.id}' is not in the '{needed}' state.")


def _patch_life(fleet: Fleet) -> None:
    @_wrap(Instance, "start")
    def start(original: Callable[..., Any], self: Instance) -> Any:
        if self.state in {"running", "pending"}:
            return self.instance_state
        if self.state != "stopped":
            raise _refuse(self, "stopped")
        previous = original(self)
        self.launch_time = utcnow()
        fleet.start(MotoInstance(self))
        return previous

    @_wrap(Instance, "stop")
    def stop(original: Callable[..., Any], self: Instance) -> Any:
        if self.state in {"stopped", "stopping"}:
            return self.instance_state
        if self.state != "running":
            raise _refuse(self, "running")
        previous = original(self)
        fleet.stop(MotoInstance(self))
        return previous

    @_wrap(Instance, "reboot")
    def reboot(original: Callable[..., Any], self: Instance) -> Any:
        if self.state != "running":
            raise _refuse(self, "running")
        fleet.reboot(MotoInstance(self))

    @_wrap(Instance, "terminate")
    def terminate(original: Callable[..., Any], self: Instance) -> Any:
        if self.state in {"terminated", "shutting-down"}:
            return self.instance_state
        for address in list(self.ec2_backend.addresses):
            if address.instance_id == self.id:
                self.ec2_backend.disassociate_address(address=address.public_ip)
        previous = original(self)
        if self.id in fleet.machines:
            fleet.terminate(MotoInstance(self))
        return previous


def _patch_changes() -> None:
    @_wrap(InstanceBackend, "modify_instance_attribute")
    def modify(original: Callable[..., Any], backend: EC2Backend, instance_id: str, key: str, value: Any) -> Any:
        instance = backend.get_instance(instance_id)
        if key in ONLY_STOPPED and instance.state != "stopped":
            raise _refuse(instance, "stopped")
        if key == "instance_type":
            if value not in INSTANCE_TYPES:
                raise EC2ClientError("InvalidInstanceAttributeValue", f"Invalid value '{value}' for InstanceType.")
            check_type(value, instance.architecture)
        return original(backend, instance_id, key, value)


def _patch_waiting(fleet: Fleet) -> None:
    @_wrap(InstanceBackend, "get_reservations_by_instance_ids")
    def by_ids(original: Callable[..., Any], backend: EC2Backend, instance_ids: list[str], **kwargs: Any) -> Any:
        fleet.settle(instance_ids)
        return original(backend, instance_ids, **kwargs)

    @_wrap(InstanceBackend, "describe_instance_status")
    def status(original: Callable[..., Any], backend: EC2Backend, instance_ids: list[str], *args: Any) -> Any:
        fleet.settle(instance_ids or ())
        return original(backend, instance_ids, *args)


def _patch_addresses(fleet: Fleet) -> None:
    block = fleet.settings.network
    pool = network.elastic_pool(network.parse_network(block))

    @_wrap(VPCBackend, "create_vpc")
    def create_vpc(
        original: Callable[..., Any], backend: EC2Backend, cidr_block: str, *args: Any, **kwargs: Any
    ) -> Any:
        # Private addresses are the containers' real ones, so the default VPC is the Docker network.
        return original(backend, block if kwargs.get("is_default") else cidr_block, *args, **kwargs)

    @_wrap(NetworkInterface, "check_auto_public_ip")
    def check_auto_public_ip(original: Callable[..., Any], self: NetworkInterface) -> None:
        if str(self.public_ip_auto_assign).lower() == "true" and not _has_elastic_ip(self):
            self.public_ip = self.private_ip_address

    @_wrap(NetworkInterface, "stop")
    def stop(original: Callable[..., Any], self: NetworkInterface) -> None:
        if not _has_elastic_ip(self):  # AWS keeps an Elastic IP over stop and start
            original(self)

    @_wrap(ElasticAddressBackend, "allocate_address")
    def allocate(
        original: Callable[..., Any],
        backend: EC2Backend,
        domain: str,
        address: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> Any:
        taken = {
            one.public_ip for account in ec2_backends.values() for ec2 in account.values() for one in ec2.addresses
        }
        free = next((one for one in pool if one not in taken), None)
        if address is None and free is None:
            raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
        # EC2-Classic is gone: AWS gives a VPC address whatever is asked. moto's "standard" ones have no id to tag.
        return original(backend, "vpc", address or free, tags)

    @_wrap(ElasticAddressBackend, "associate_address")
    def associate(original: Callable[..., Any], backend: EC2Backend, *args: Any, **kwargs: Any) -> Any:
        before = _holders(backend)
        address = original(backend, *args, **kwargs)
        _follow(fleet, before, address)
        return address

    @_wrap(ElasticAddressBackend, "disassociate_address")
    def disassociate(original: Callable[..., Any], backend: EC2Backend, *args: Any, **kwargs: Any) -> None:
        before = _holders(backend)
        original(backend, *args, **kwargs)
        for address in list(backend.addresses):
            _follow(fleet, before, address)


def _holders(backend: EC2Backend) -> dict[str, NetworkInterface | None]:
    return {address.public_ip: address.eni for address in backend.addresses}


def _has_elastic_ip(interface: NetworkInterface) -> bool:
    return any(address.eni is interface for address in interface.ec2_backend.addresses)


def _follow(fleet: Fleet, before: dict[str, NetworkInterface | None], address: ElasticAddress) -> None:
    """Take a moved Elastic IP from its old container, which gets its own address back, and give it to the new one."""
    old, new = before.get(address.public_ip), address.eni
    if old is new:
        return
    if old is not None:
        old.public_ip = None
        if old.instance is not None and old.instance.state == "running":
            old.check_auto_public_ip()
    source, target = (fleet.machines.get(one.instance.id) if one and one.instance else None for one in (old, new))
    if source:
        source.extra_addresses.discard(address.public_ip)
        source.drop_address(address.public_ip)
    if target:
        target.extra_addresses.add(address.public_ip)
        target.add_address(address.public_ip)


def _patch_console(fleet: Fleet) -> None:
    @_wrap(General, "get_console_output")
    def get_console_output(original: Callable[..., Any], self: General) -> Any:
        answer = original(self)
        machine = fleet.machines.get(answer._result["InstanceId"])
        if machine:
            answer._result["Output"] = Base64EncodedString.from_raw_string(machine.console())
        return answer
