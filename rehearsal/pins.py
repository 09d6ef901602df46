"""What the rehearsal relies on inside moto, so that an update that moves it is an error and not an empty success."""

from __future__ import annotations

import inspect
from typing import Any

from moto.core.base_backend import BackendDict
from moto.ec2 import utils
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.elastic_ip_addresses import ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface, NetworkInterfaceBackend
from moto.ec2.models.iam_instance_profile import IamInstanceProfileAssociationBackend
from moto.ec2.models.instance_types import InstanceTypeBackend
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.key_pairs import KeyPairBackend
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.models.subnets import Subnet, SubnetBackend
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.general import General
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.monitoring import Monitoring
from moto.iam.models import IAMBackend
from moto.servicequotas.models import ServiceQuotasBackend

from rehearsal.errors import RehearsalError

Pin = tuple[type[Any], str, tuple[str, ...]]

PINNED: tuple[Pin, ...] = (
    (InstanceBackend, "run_instances", ("image_id", "count", "user_data", "security_group_names", "kwargs")),
    (InstanceBackend, "modify_instance_attribute", ("instance_id", "key", "value")),
    (InstanceBackend, "get_reservations_by_instance_ids", ("instance_ids", "filters")),
    (InstanceBackend, "describe_instance_status", ("instance_ids", "include_all_instances", "filters")),
    (InstanceBackend, "get_instance", ("instance_id",)),
    (InstanceBackend, "modify_instance_security_groups", ("instance_id", "new_group_id_list")),
    (
        NetworkInterfaceBackend,
        "modify_network_interface_attribute",
        ("eni_id", "group_ids", "source_dest_check", "description"),
    ),
    (
        InstanceBackend,
        "modify_instance_metadata_options",
        ("instance_id", "http_tokens", "hop_limit", "http_endpoint", "dry_run", "http_protocol", "metadata_tags"),
    ),
    (NetworkInterfaceBackend, "get_network_interface", ("eni_id",)),
    (SecurityGroupBackend, "get_default_security_group", ("vpc_id",)),
    (
        SecurityGroupBackend,
        "authorize_security_group_ingress",
        (
            "group_name_or_id",
            "ip_protocol",
            "from_port",
            "to_port",
            "ip_ranges",
            "sgrule_tags",
            "source_groups",
            "prefix_list_ids",
            "security_rule_ids",
            "vpc_id",
        ),
    ),
    (
        SecurityGroupBackend,
        "create_security_group",
        ("name", "description", "vpc_id", "tags", "force", "is_default"),
    ),
    (InstanceBackend, "all_reservations", ("filters",)),
    (InstanceResponse, "run_instances", ()),
    (IAMBackend, "add_role_to_instance_profile", ("profile_name", "role_name")),
    (
        IamInstanceProfileAssociationBackend,
        "associate_iam_instance_profile",
        ("instance_id", "iam_instance_profile_name", "iam_instance_profile_arn"),
    ),
    (InstanceTypeBackend, "describe_instance_types", ("instance_types", "filters")),
    (Instance, "start", ()),
    (Instance, "stop", ()),
    (Instance, "reboot", ()),
    (Instance, "terminate", ()),
    (NetworkInterface, "check_auto_public_ip", ()),
    (NetworkInterface, "stop", ()),
    (ElasticAddressBackend, "allocate_address", ("domain", "address", "tags")),
    (ElasticAddressBackend, "associate_address", ("instance", "eni", "address", "allocation_id", "reassociate")),
    (ElasticAddressBackend, "disassociate_address", ("address", "association_id")),
    (KeyPairBackend, "describe_key_pairs", ("key_names", "filters")),
    (Subnet, "get_available_subnet_ip", ("instance",)),
    (SubnetBackend, "get_default_subnets", ()),
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
    (AmisResponse, "create_image", ()),
    (AmiBackend, "create_image", ("instance_id", "name", "description", "tag_specifications")),
    (AmiBackend, "describe_images", ("ami_ids", "filters", "exec_users", "owners")),
    (AmiBackend, "deregister_image", ("ami_id",)),
    (General, "get_console_output", ()),
    (InstanceBackend, "get_multi_instances_by_id", ("instance_ids", "filters")),
    (InstanceResponse, "describe_instance_credit_specifications", ()),
    (Monitoring, "monitor_instances", ()),
    (Monitoring, "unmonitor_instances", ()),
    (ServiceQuotasBackend, "get_service_quota", ("service_code", "quota_code")),
)
"""Class, method and its parameters after ``self``, of everything in moto that is replaced or called."""


def check_pins(pinned: tuple[Pin, ...] = PINNED) -> None:
    """Make sure that moto still has what is patched.

    Raises:
        RehearsalError: A name moved or has other parameters.
    """
    moved = [f"{owner.__name__}.{name}" for owner, name, expected in pinned if _parameters(owner, name) != expected]
    if "vpc-elastic-ip" not in utils.EC2_RESOURCE_TO_PREFIX:
        moved.append("EC2_RESOURCE_TO_PREFIX")
    if "_instances" not in vars(BackendDict):
        moved.append("BackendDict._instances")
    if moved:
        raise RehearsalError(f"this version of moto does not fit the rehearsal, it changed {', '.join(moved)}")


def _parameters(owner: type[Any], name: str) -> tuple[str, ...] | None:
    method = vars(owner).get(name)
    return None if method is None else tuple(inspect.signature(method).parameters)[1:]
