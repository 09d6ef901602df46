"""Where moto's EC2 is changed: its instances get containers, and a few of its answers become those of AWS.

moto has no plug-in point; its maintainers' advice is to patch the backend in a launcher of one's own.
"""

from __future__ import annotations

import functools
import ipaddress
import platform
import threading
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2 import utils as ec2_utils
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociationBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES, InstanceTypeBackend
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.monitoring import Monitoring
from moto.iam.models import IAMBackend
from moto.servicequotas.models import ServiceQuotasBackend

from rehearsal import network
from rehearsal.account import ADDRESSES, FREE_TIER, VPCS
from rehearsal.adapter import MotoImage, MotoInstance, is_own
from rehearsal.fleet import Fleet
from rehearsal.images import Disk
from rehearsal.instance import machine_for
from rehearsal.offerings import check_offered, describe_types
from rehearsal.pins import check_pins
from rehearsal.quotas import AccountHooks
from rehearsal.stale import StaleHooks

Original = Callable[..., Any]

NOT_IDEMPOTENT = "ABCDE"
"""What moto passes as the client token when the caller sent none."""

ONLY_STOPPED = {"instance_type", "user_data", "kernel", "ebs_optimized"}
"""Attributes that AWS changes on a stopped instance only."""

ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
"""EC2's name of each machine architecture."""


def install(fleet: Fleet) -> None:
    """Patch moto so that its instances are the fleet's.

    Raises:
        RehearsalError: This moto is not the one that the patches were written for.
    """
    check_pins()
    account = AccountHooks(fleet.settings)
    life, addresses, groups, images = (
        LifeHooks(fleet, account),
        AddressHooks(fleet, account),
        GroupHooks(),
        ImageHooks(fleet),
    )
    _replace(InstanceBackend, "run_instances", life.run_instances)
    _replace(InstanceBackend, "modify_instance_attribute", life.modify_attribute)
    _replace(InstanceBackend, "modify_instance_metadata_options", life.modify_metadata)
    _replace(InstanceBackend, "get_reservations_by_instance_ids", life.when_settled)
    _replace(InstanceBackend, "describe_instance_status", life.when_settled)
    _replace(Instance, "start", life.start)
    _replace(Instance, "stop", life.stop)
    _replace(Instance, "reboot", life.reboot)
    _replace(Instance, "terminate", life.terminate)
    _replace(General, "get_console_output", life.console_output)
    _replace(Subnet, "get_available_subnet_ip", addresses.private_address)
    _replace(VPCBackend, "create_vpc", addresses.create_vpc)
    _replace(NetworkInterface, "check_auto_public_ip", addresses.assign_public)
    _replace(NetworkInterface, "stop", addresses.drop_public)
    _replace(ElasticAddressBackend, "allocate_address", addresses.allocate)
    _replace(ElasticAddressBackend, "associate_address", addresses.associate)
    _replace(ElasticAddressBackend, "disassociate_address", addresses.disassociate)
    stale = StaleHooks(fleet.faults)
    _replace(InstanceResponse, "run_instances", stale.run_instances)
    _replace(InstanceBackend, "all_reservations", stale.reservations)
    _replace(ElasticAddressBackend, "associate_address", stale.associate_address)
    _replace(IAMBackend, "add_role_to_instance_profile", stale.add_role)
    _replace(IamInstanceProfileAssociationBackend, "associate_iam_instance_profile", stale.associate_profile)
    _replace(InstanceBackend, "modify_instance_security_groups", groups.of_instance)
    _replace(NetworkInterfaceBackend, "modify_network_interface_attribute", groups.of_interface)
    _replace(InstanceResponse, "describe_instance_credit_specifications", SettingHooks.credits)
    InstanceResponse.modify_instance_credit_specification = SettingHooks.change_credits  # type: ignore[attr-defined]
    _replace(Monitoring, "monitor_instances", SettingHooks.monitor)
    _replace(Monitoring, "unmonitor_instances", SettingHooks.unmonitor)
    _replace(AmisResponse, "create_image", images.create)
    _replace(AmiBackend, "create_image", images.with_tags)
    _replace(AmiBackend, "describe_images", images.when_settled)
    _replace(AmiBackend, "deregister_image", images.deregister)
    _replace(SecurityGroupBackend, "create_security_group", account.create_group)
    _replace(ServiceQuotasBackend, "get_service_quota", account.get_quota)
    _replace(InstanceTypeBackend, "describe_instance_types", describe_types)
    for one in InstanceTypeBackend.instance_types:  # moto's list is that of accounts made before July 2025
        one["FreeTierEligible"] = one["InstanceType"] in FREE_TIER
    # moto says vpc-elastic-ip; DescribeTags then finds no tag of an address and amazon.aws adds them for ever.
    ec2_utils.EC2_PREFIX_TO_RESOURCE["eipalloc"] = "elastic-ip"


def _replace(owner: type[Any], name: str, hook: Callable[..., Any]) -> None:
    """Replace a method by a hook that gets the original method first, then the method's own arguments."""
    original = vars(owner)[name]

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return hook(original, *args, **kwargs)

    setattr(owner, name, method)


def check_type(instance_type: str, image_architecture: str) -> None:
    """Refuse a type that AWS refuses for an image's architecture, or that this machine cannot run.

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


def _require(instance: Instance, state: str) -> None:
    if instance.state != state:
        message = f"The instance '{instance.id}' is not in the '{state}' state."
        raise EC2ClientError("IncorrectInstanceState", message)


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


def _zone(backend: EC2Backend, request: dict[str, Any]) -> str:
    subnets = [request.get("subnet_id"), *(one.get("SubnetId") for one in request.get("nics") or [])]
    known = [backend.get_subnet(one).availability_zone for one in subnets if one]
    return str(known[0] if known else request.get("placement"))


class LifeHooks:
    """Hooks from RunInstances to TerminateInstances."""

    def __init__(self, fleet: Fleet, account: AccountHooks) -> None:
        """Start with nothing launched."""
        self.fleet = fleet
        self._account = account
        self._launching = threading.Lock()

    def run_instances(
        self, original: Original, backend: EC2Backend, image_id: str, count: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Launch instances and boot their containers; the same client token launches only once."""
        token = kwargs.get("client_token", NOT_IDEMPOTENT)
        with self._launching:
            if token != NOT_IDEMPOTENT and token in self.fleet.launched:
                return self.fleet.launched[token]  # boto3 repeats a request whose answer got lost
            images = backend.describe_images(ami_ids=[image_id]) if image_id else []
            if image_id and [one.state for one in images] != ["available"]:
                message = f"The image id '[{image_id}]' is no longer available, or not yet"
                raise EC2ClientError("InvalidAMIID.Unavailable", message)
            if images and kwargs["instance_type"] in INSTANCE_TYPES:
                self._account.check_eligible(kwargs["instance_type"])
                check_type(kwargs["instance_type"], str(images[0].architecture))
                self._account.check_vcpus(backend.region_name, kwargs["instance_type"], count)
            _choose_subnet(backend, kwargs)
            if kwargs["instance_type"] in INSTANCE_TYPES:
                check_offered(backend, kwargs["instance_type"], _zone(backend, kwargs))
            reservation = original(backend, image_id, count, *args, **kwargs)
            if token != NOT_IDEMPOTENT:
                self.fleet.launched[token] = reservation
        for instance in reservation.instances:
            if not instance.security_groups:  # moto lists those of the interface, such as the default, only there
                instance.security_groups = [group for nic in instance.nics.values() for group in nic._group_set]
            self._boot(backend, instance)
        return reservation

    def _boot(self, backend: EC2Backend, instance: Instance) -> None:
        pairs = backend.describe_key_pairs(key_names=[instance.key_name]) if instance.key_name else []
        keys = [pair.public_key.strip() for pair in pairs]
        user_data = instance.user_data.decode() if instance.user_data else None
        machine = machine_for(self.fleet.settings, instance.id, str(instance.private_ip), keys, user_data)
        image = backend.amis.get(instance.image_id)
        machine.ami_id = image.id if image is not None and is_own(image) else None
        self.fleet.launch(MotoInstance(instance), machine)

    def start(self, original: Original, instance: Instance) -> Any:
        """Start a stopped instance; one that runs already is left alone, as on AWS."""
        if instance.state in {"running", "pending"}:
            return instance.instance_state
        _require(instance, "stopped")
        self._account.check_vcpus(instance.region_name, instance.instance_type, 1)
        previous = original(instance)
        instance.launch_time = utcnow()
        self.fleet.start(MotoInstance(instance))
        return previous

    def stop(self, original: Original, instance: Instance) -> Any:
        """Stop a running instance; one that is stopped already is left alone, as on AWS."""
        if instance.state in {"stopped", "stopping"}:
            return instance.instance_state
        _require(instance, "running")
        previous = original(instance)
        self.fleet.stop(MotoInstance(instance))
        return previous

    def reboot(self, _original: Original, instance: Instance) -> None:
        """Restart a running instance."""
        _require(instance, "running")
        self.fleet.reboot(MotoInstance(instance))

    def terminate(self, _original: Original, instance: Instance) -> Any:
        """Remove an instance."""
        if instance.state in {"terminated", "shutting-down"}:
            return instance.instance_state
        ours = MotoInstance(instance)
        previous = ours.give_back()
        if instance.id in self.fleet.machines:
            self.fleet.terminate(ours)
        return previous

    def modify_attribute(self, original: Original, backend: EC2Backend, instance_id: str, key: str, value: Any) -> Any:
        """Change an attribute; the type and a few others only while the instance is stopped."""
        instance = backend.get_instance(instance_id)
        if key in ONLY_STOPPED:
            _require(instance, "stopped")
        if key == "instance_type":
            if value not in INSTANCE_TYPES:
                raise EC2ClientError("InvalidInstanceAttributeValue", f"Invalid value '{value}' for InstanceType.")
            self._account.check_eligible(value)
            check_type(value, str(instance.architecture))
        return original(backend, instance_id, key, value)

    def modify_metadata(self, original: Original, backend: EC2Backend, instance_id: str, **wanted: Any) -> Any:
        """Change some of the metadata options; moto would forget the others."""
        now = backend.get_instance(instance_id).metadata_options
        kept = {
            "http_tokens": now.http_tokens,
            "hop_limit": now.http_put_response_hop_limit,
            "http_endpoint": now.http_endpoint,
            "http_protocol": now.http_protocol_ipv6,
            "metadata_tags": now.instance_metadata_tags,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return original(backend, instance_id, **(kept | given))

    def when_settled(
        self, original: Original, backend: EC2Backend, instance_ids: list[str], *args: Any, **kwargs: Any
    ) -> Any:
        """Answer a question about certain instances when nothing happens to them any more, or after ``HOLD``."""
        self.fleet.settle(instance_ids or ())
        return original(backend, instance_ids, *args, **kwargs)

    def console_output(self, original: Original, response: General) -> Any:
        """Answer with the container's console."""
        answer = original(response)
        machine = self.fleet.machines.get(answer.result["InstanceId"])
        if machine:
            answer.result["Output"] = Base64EncodedString.from_raw_string(machine.console())
        return answer


class AddressHooks:
    """Hooks that give addresses which really answer: what the API advertises is what the container has."""

    def __init__(self, fleet: Fleet, account: AccountHooks) -> None:
        """Derive the address ranges."""
        self.fleet = fleet
        self._account = account
        self._pool = network.elastic_pool(network.parse_network(fleet.settings.network))

    def create_vpc(self, original: Original, backend: EC2Backend, cidr_block: str, *args: Any, **kwargs: Any) -> Any:
        """Make the default VPC the Docker network, and the others parts of it: addresses are the containers' own."""
        block = self.fleet.settings.network if kwargs.get("is_default") else cidr_block
        self._require_inside(block)
        self._account.check(VPCS, len(backend.vpcs) + 1)
        vpc = original(backend, block, *args, **kwargs)
        default = backend.get_default_security_group(vpc.id)
        if default is not None:  # its members reach each other, which moto leaves out
            pair = [{"GroupId": default.id, "OwnerId": default.owner_id}]
            backend.authorize_security_group_ingress(
                default.id, "-1", "-1", "-1", [], source_groups=pair, vpc_id=vpc.id
            )
        return vpc

    def _require_inside(self, block: str) -> None:
        whole = network.parse_network(self.fleet.settings.network)
        try:
            inside = ipaddress.IPv4Network(block, strict=False).subnet_of(whole)
        except ValueError:
            return  # moto has its own words for what is no block
        if not inside:
            example = list(whole.subnets(new_prefix=20))[8]
            message = (
                f"The CIDR block '{block}' is outside the rehearsal's network {whole}, from which its instances have "
                f"their addresses; a block inside it is needed, such as {example}. AWS has no such limit."
            )
            raise EC2ClientError("InvalidVpcRange", message)

    def private_address(self, _original: Original, subnet: Subnet, instance: Instance) -> str:
        """Hand out the lowest address that nobody ever had, in any VPC: all share one network.

        moto counts in a cache, which a restart empties.
        """
        used = {str(one) for one in subnet.aws_reserved_ips | subnet._reserved_ips} | set(self._pool)
        for zone in subnet.ec2_backend.subnets.values():
            used.update(address for other in zone.values() for address in other._subnet_ips)
        free = next((str(one) for one in subnet.cidr.hosts() if str(one) not in used), None)
        if free is None:
            message = f"There are not enough free addresses in subnet '{subnet.id}' to satisfy the requested instances."
            raise EC2ClientError("InsufficientFreeAddressesInSubnet", message)
        subnet._subnet_ips[free] = instance
        return free

    def assign_public(self, _original: Original, interface: NetworkInterface) -> None:
        """Advertise the private address as the public one, unless there is an Elastic IP."""
        if str(interface.public_ip_auto_assign).lower() == "true" and not _has_elastic_ip(interface):
            interface.public_ip = interface.private_ip_address

    def drop_public(self, original: Original, interface: NetworkInterface) -> None:
        """Drop the public address at stop, but keep an Elastic IP, as AWS does."""
        if not _has_elastic_ip(interface):
            original(interface)

    def allocate(
        self,
        original: Original,
        backend: EC2Backend,
        _domain: str,
        address: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> Any:
        """Allocate an Elastic IP inside the Docker network, for a VPC: moto's other kind has no id to tag."""
        self._account.check(ADDRESSES, len(backend.addresses) + 1)
        backends = [ec2 for account in list(ec2_backends.values()) for ec2 in list(account.values())]
        taken = {one.public_ip for ec2 in backends for one in ec2.addresses}
        free = next((one for one in self._pool if one not in taken), None)
        if address is None and free is None:
            raise EC2ClientError("AddressLimitExceeded", "The maximum number of addresses has been reached.")
        return original(backend, "vpc", address or free, tags)

    def associate(
        self, original: Original, backend: EC2Backend, instance: Instance | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Point an Elastic IP to an instance, if it is not on its way up or gone."""
        if instance is not None and instance.state in {"pending", "shutting-down", "terminated"}:
            message = f"The {instance.state} instance '{instance.id}' is not in a valid state for this operation."
            raise EC2ClientError("InvalidInstanceID", message)
        before = _holders(backend)
        address = original(backend, instance, *args, **kwargs)
        self._follow(before, address)
        return address

    def disassociate(self, original: Original, backend: EC2Backend, *args: Any, **kwargs: Any) -> None:
        """Take an Elastic IP from its instance."""
        before = _holders(backend)
        original(backend, *args, **kwargs)
        for address in list(backend.addresses):
            self._follow(before, address)

    def _follow(self, before: dict[str, NetworkInterface | None], address: ElasticAddress) -> None:
        """Take a moved Elastic IP from its old container, which gets its own back, and give it to the new one."""
        old, new = before.get(address.public_ip), address.eni
        if old is new:
            return
        if old is not None:
            old.public_ip = None
            if old.instance is not None and old.instance.state == "running":
                old.check_auto_public_ip()
        machines = self.fleet.machines
        source, target = (machines.get(one.instance.id) if one and one.instance else None for one in (old, new))
        if source:
            source.extra_addresses.discard(address.public_ip)
            source.drop_address(address.public_ip)
        if target:
            target.extra_addresses.add(address.public_ip)
            target.add_address(address.public_ip)


class ImageHooks:
    """Hooks for AMIs made from instances."""

    def __init__(self, fleet: Fleet) -> None:
        """Start with the fleet, which has the containers to make images of."""
        self.fleet = fleet

    def create(self, original: Original, response: AmisResponse) -> Any:
        """Make an image of an instance that runs or is stopped; it is pending until its disk is kept."""
        backend, name = response.ec2_backend, response._get_param("Name")
        instance = backend.get_instance(response._get_param("InstanceId"))
        if instance.state not in {"running", "stopped"}:
            _require(instance, "running")
        namesakes = [one.id for one in backend.amis.values() if is_own(one) and one.name == name]
        if namesakes:
            message = f"AMI name {name} is already in use by AMI {namesakes[0]}"
            raise EC2ClientError("InvalidAMIName.Duplicate", message)
        answer = original(response)
        image = backend.amis[answer.result["ImageId"]]
        image.root_device_name = instance.root_device_name
        image.root_device_type = "ebs"
        reboot = str(response._get_param("NoReboot")).lower() != "true"
        self.fleet.bake(MotoInstance(instance), MotoImage(image), reboot)
        return answer

    def with_tags(self, original: Original, backend: EC2Backend, *about: Any, **kwargs: Any) -> Any:
        """Tag the snapshot too, as amazon.aws asks; moto refuses."""
        specified: dict[str, list[dict[str, Any]]] = {"image": [], "snapshot": []}
        for one in kwargs["tag_specifications"]:
            specified.setdefault(one["ResourceType"], []).append(one)
        snapshot = specified.pop("snapshot")
        others = [one for specifications in specified.values() for one in specifications]
        image = original(backend, *about, tag_specifications=others)
        for one in snapshot:
            image.ebs_snapshot.add_tags({tag["Key"]: tag["Value"] for tag in one["Tags"]})
        return image

    def when_settled(
        self, original: Original, backend: EC2Backend, ami_ids: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Answer a question about certain images when they are made, or after ``HOLD``."""
        self.fleet.settle(ami_ids or ())
        return original(backend, ami_ids, *args, **kwargs)

    def deregister(self, original: Original, backend: EC2Backend, ami_id: str) -> None:
        """Remove an image; what was launched from it stays."""
        image = backend.amis.get(ami_id)
        original(backend, ami_id)
        if image is not None and is_own(image):
            self.fleet.settle([ami_id])
            Disk(self.fleet.settings, ami_id).remove()


class SettingHooks:
    """Hooks for settings that moto does not know."""

    @staticmethod
    def credits(_original: Original, response: InstanceResponse) -> ActionResult:
        """Tell the credit mode: what was set, or what AWS launches the family with."""
        instances = response.ec2_backend.get_multi_instances_by_id(response._get_param("InstanceIds", []))
        modes = [{"InstanceId": one.id, "CpuCredits": _credits(one)} for one in instances]
        return ActionResult({"InstanceCreditSpecifications": modes})

    @staticmethod
    def change_credits(response: InstanceResponse) -> ActionResult:
        """Set the credit mode."""
        wishes = response._get_param("InstanceCreditSpecifications", [])
        for wish in wishes:
            response.ec2_backend.get_instance(wish["InstanceId"]).cpu_credits = wish["CpuCredits"]
        done = [{"InstanceId": wish["InstanceId"]} for wish in wishes]
        return ActionResult({"SuccessfulInstanceCreditSpecifications": done})

    @staticmethod
    def monitor(_original: Original, response: Monitoring) -> ActionResult:
        """Switch detailed monitoring on."""
        return _set_monitoring(response, "enabled")

    @staticmethod
    def unmonitor(_original: Original, response: Monitoring) -> ActionResult:
        """Switch detailed monitoring off."""
        return _set_monitoring(response, "disabled")


class GroupHooks:
    """Hooks that change both copies of an instance's groups: moto keeps two, changes one of them and shows both."""

    def of_instance(self, original: Original, backend: EC2Backend, instance_id: str, group_ids: list[str]) -> Any:
        """Change an instance's groups, and those of its interface with them."""
        instance = original(backend, instance_id, group_ids)
        for interface in list(instance.nics.values())[:1]:
            interface._group_set = list(instance.security_groups)
        return instance

    def of_interface(
        self, original: Original, backend: EC2Backend, eni_id: str, group_ids: list[str], *args: Any, **kwargs: Any
    ) -> None:
        """Change an interface's groups, and those of its instance with them."""
        original(backend, eni_id, group_ids, *args, **kwargs)
        interface = backend.get_network_interface(eni_id)
        if group_ids and interface.instance is not None:
            interface.instance.security_groups = list(interface._group_set)


def _credits(instance: Instance) -> str:
    default = "standard" if instance.instance_type.startswith("t2.") else "unlimited"
    return str(getattr(instance, "cpu_credits", default))


def _set_monitoring(response: Monitoring, state: str) -> ActionResult:
    instances = response.ec2_backend.get_multi_instances_by_id(response._get_param("InstanceIds", []))
    for instance in instances:
        instance.monitoring_state = state
    done = [{"InstanceId": one.id, "Monitoring": {"State": state}} for one in instances]
    return ActionResult({"InstanceMonitorings": done})


def _holders(backend: EC2Backend) -> dict[str, NetworkInterface | None]:
    return {address.public_ip: address.eni for address in backend.addresses}


def _has_elastic_ip(interface: NetworkInterface) -> bool:
    return any(address.eni is interface for address in interface.ec2_backend.addresses)
