"""An account without a network."""

from collections.abc import Iterator

import pytest
from moto import mock_aws


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1")
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "false")  # nobody asks for them, and they take half a second
    with mock_aws(config={"core": {"reset_boto3_session": False}}):  # which would read its models again each time
        yield
