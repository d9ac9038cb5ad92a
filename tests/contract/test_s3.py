"""An S3 server, through its adapter, keeps the contract of an object store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlless.channels.opening import open_objects
from mlless.channels.ports import ObjectStore
from mlless.locations import place_of
from mlless.testing.contracts import ObjectStoreContract


class TestS3(ObjectStoreContract):
    replaces_in_parts = True  # rclone does so now and then; S3 itself does not

    @pytest.fixture
    def open_store(self, bucket: str) -> Callable[[], ObjectStore]:
        return lambda: open_objects(place_of(f"s3://{bucket}/some/place"))


class TestS3AtTheTopOfABucket(ObjectStoreContract):
    replaces_in_parts = True

    @pytest.fixture
    def open_store(self, bucket: str) -> Callable[[], ObjectStore]:
        return lambda: open_objects(place_of(f"s3://{bucket}"))


def test_a_large_object_goes_in_parts(bucket: str) -> None:
    data = bytes(range(256)) * (20 << 12)
    store = open_objects(place_of(f"s3://{bucket}/x"))
    store.put("large", memoryview(data))
    assert store.get("large") == data


@pytest.mark.parametrize("prefix", ["my data/x", "a%20b", "h#x~y?z", "ü/é", "x+y=z"])
def test_a_prefix_is_taken_as_it_is_written(bucket: str, s3, prefix: str) -> None:
    store = open_objects(place_of(f"s3://{bucket}/{prefix}/"))
    store.put("a/b", b"1")
    assert s3.objects(bucket) == {f"{prefix}/a/b": b"1"}
    assert store.names() == {"a"}
    store.delete(["a/b"])
    assert s3.objects(bucket) == {}
