"""pachyderm_sdk, unchanged, against the local server."""

import io
from datetime import UTC, datetime

import boto3
import botocore
import pytest
import requests
from botocore.config import Config
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps
from pachyderm_sdk.errors import AuthServiceNotActivated


@pytest.fixture
def client(up):
    return Client(host="127.0.0.1", port=up.installation.ports.pachyderm)


@pytest.fixture
def repo(client, name):
    made = pfs.Repo(name=name, type="user", project=pfs.Project(name="default"))
    client.pfs.create_repo(repo=made)
    return made


def test_a_commit_context_puts_and_finishes(client, repo):
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes(path="/a/b", data=b"hello")
        commit.put_file_from_bytes(path="/empty", data=b"")
    commit.wait()
    info = client.pfs.inspect_commit(commit=pfs.Commit(repo=repo, id=commit.id))
    assert info.finished
    assert info.details.size_bytes == 5
    with client.pfs.pfs_file(file=pfs.File(commit=commit, path="/a/b")) as file:
        assert file.read() == b"hello"
    with client.pfs.pfs_tar_file(file=pfs.File(commit=commit, path="/")) as archive:
        names = {member.name: member.size for member in archive if member.isfile()}
    assert names == {"a/b": 5, "empty": 0}


def test_walk_list_and_hashes_depend_on_content_alone(client, repo):
    for folder in ("x", "y"):
        with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
            commit.put_file_from_bytes(path=f"/{folder}/one", data=b"1")
            commit.put_file_from_bytes(path=f"/{folder}/two", data=b"2")
    walked = {info.file.path: info for info in client.pfs.walk_file(file=pfs.File(commit=commit, path="/"))}
    assert list(walked) == ["/", "/x/", "/x/one", "/x/two", "/y/", "/y/one", "/y/two"]
    assert walked["/x/"].hash == walked["/y/"].hash
    assert walked["/x/one"].hash == walked["/y/one"].hash != walked["/x/two"].hash
    assert walked["/"].size_bytes == 4


def test_copy_and_delete(client, repo):
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes(path="/a/b", data=b"hello")
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as second:
        second.copy_file(src=pfs.File(commit=pfs.Commit(repo=repo, id=commit.id), path="/a"), dst="/c")
        second.delete_file(path="/a/b")
    files = [info.file.path for info in client.pfs.walk_file(file=pfs.File(commit=second, path="/")) if info.file_type == pfs.FileType.FILE]
    assert files == ["/c/b"]


def test_existence_and_authentication(client, repo):
    assert client.pfs.repo_exists(repo)
    assert not client.pfs.repo_exists(pfs.Repo(name="nothing", type="user", project=pfs.Project(name="default")))
    with pytest.raises(AuthServiceNotActivated):
        client.auth.who_am_i()


def test_a_collision_of_file_and_folder_writes_nothing(client, repo):
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes(path="/a", data=b"1")
    with pytest.raises(Exception, match="collision"):
        client.pfs.modify_file(
            iter(
                [
                    pfs.ModifyFileRequest(set_commit=pfs.Commit(branch=pfs.Branch(repo=repo, name="master"))),
                    pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/new", raw=b"2")),
                    pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/a/b", raw=b"2")),
                ]
            )
        )
    listed = [
        info.file.path
        for info in client.pfs.list_file(file=pfs.File(commit=pfs.Commit(repo=repo, branch=pfs.Branch(repo=repo, name="master")), path="/"))
    ]
    assert listed == ["/a"]


def test_secrets_are_listed_without_their_values(client, name):
    client.pps.create_secret(name=name, data={"key": "the value"})
    listed = client.pps.list_secret().secret_info
    assert {"pipeline-secret", name} <= {info.secret.name for info in listed}
    assert "the value" not in str(listed)
    client.pps.delete_secret(secret=pps.Secret(name=name))


def test_a_call_that_is_not_offered_says_so(client):
    with pytest.raises(Exception, match="not offered by the local Pachyderm server"):
        client.pps.run_load_test(dag_spec="x")


def test_the_s3_gateway_serves_commits(up, client, repo):
    with client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        for number in range(5):
            commit.put_file_from_bytes(path=f"/m/{number}", data=bytes([number]) * 10)
        commit.put_file_from_bytes(path="/top", data=b"top")
    endpoint = f"http://127.0.0.1:{up.installation.ports.s3}"
    config = Config(signature_version=botocore.UNSIGNED, s3={"addressing_style": "path"})
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
    for bucket in (f"{commit.id}.{repo.name}", f"master.{repo.name}.default", f"{commit.id}.master.{repo.name}.default"):
        listed = s3.list_objects_v2(Bucket=bucket, Prefix="m/", MaxKeys=3)
        assert [entry["Key"] for entry in listed["Contents"]] == ["m/0", "m/1", "m/2"]
        rest = s3.list_objects_v2(Bucket=bucket, Prefix="m/", ContinuationToken=listed["NextContinuationToken"])
        assert [entry["Key"] for entry in rest["Contents"]] == ["m/3", "m/4"]
    assert s3.list_objects(Bucket=bucket, Delimiter="/")["CommonPrefixes"] == [{"Prefix": "m/"}]
    assert s3.head_object(Bucket=bucket, Key="m/3")["ContentLength"] == 10
    assert s3.get_object(Bucket=bucket, Key="m/3", Range="bytes=2-4")["Body"].read() == b"\3\3\3"
    for call, code in (
        (lambda: s3.get_object(Bucket=bucket, Key="nothing"), "NoSuchKey"),
        (lambda: s3.list_objects(Bucket="master.nothing.default"), "NoSuchBucket"),
        (lambda: s3.put_object(Bucket=bucket, Key="x", Body=b""), "InternalError"),
    ):
        with pytest.raises(s3.exceptions.ClientError) as error:
            call()
        assert error.value.response["Error"]["Code"] == code


def test_the_s3_gateway_takes_objects(up, client, repo):
    config = Config(signature_version=botocore.UNSIGNED, s3={"addressing_style": "path"}, retries={"max_attempts": 0})
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{up.installation.ports.s3}", region_name="us-east-1", config=config)
    bucket = f"master.{repo.name}.default"
    s3.create_bucket(Bucket=bucket)
    with pytest.raises(s3.exceptions.ClientError) as error:
        s3.create_bucket(Bucket=bucket)
    assert error.value.response["Error"]["Code"] == "BucketAlreadyOwnedByYou"
    first = s3.put_object(Bucket=bucket, Key="a/b", Body=b"one")
    s3.put_object(Bucket=bucket, Key="a/b", Body=b"two")
    assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"two"
    older = f"{first['VersionId']}.master.{repo.name}.default"
    assert s3.get_object(Bucket=older, Key="a/b")["Body"].read() == b"one"
    s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "a/b"})
    assert s3.head_object(Bucket=bucket, Key="c")["ETag"] == s3.head_object(Bucket=bucket, Key="a/b")["ETag"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    parts = [bytes([number]) * (5 << 20) for number in (1, 2)] + [b"end"]
    tags = [
        s3.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=number, Body=body)["ETag"]
        for number, body in enumerate(parts, 1)
    ]
    assert [part["Size"] for part in s3.list_parts(Bucket=bucket, Key="big", UploadId=upload)["Parts"]] == [5 << 20, 5 << 20, 3]
    asked = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
    with pytest.raises(s3.exceptions.ClientError) as error:
        s3.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": asked[::-1]})
    assert error.value.response["Error"]["Code"] == "InvalidPartOrder"
    s3.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": asked})
    assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == b"".join(parts)
    s3.upload_fileobj(io.BytesIO(b"stream"), bucket, "stream")
    assert b"".join(client.pfs.pfs_file(file=pfs.File.from_uri(f"{repo.name}@master:/stream"))) == b"stream"
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "big"}, {"Key": "c"}]})
    s3.delete_object(Bucket=bucket, Key="stream")
    assert [entry["Key"] for entry in s3.list_objects(Bucket=bucket)["Contents"]] == ["a/b"]
    with pytest.raises(s3.exceptions.ClientError) as error:
        s3.delete_bucket(Bucket=bucket)
    assert error.value.response["Error"]["Code"] == "BucketNotEmpty"


def test_the_s3_gateway_does_as_it_is_asked_or_says_that_it_does_not(up, repo):
    """Versions and conditions of reads; what is not offered is refused, and nothing is stored in its place."""
    config = Config(signature_version=botocore.UNSIGNED, s3={"addressing_style": "path"}, retries={"max_attempts": 0})
    s3 = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{up.installation.ports.s3}", region_name="us-east-1", config=config)
    bucket = f"master.{repo.name}.default"
    s3.create_bucket(Bucket=bucket)
    at = {"Bucket": bucket, "Key": "t.csv"}
    first = s3.put_object(**at, Body=b"old")["VersionId"]
    s3.put_object(**at, Body=b"new, and longer")

    def code(call, *words, **more):
        with pytest.raises(s3.exceptions.ClientError) as refused:
            call(*words, **more)
        return refused.value.response["Error"]["Code"]

    assert s3.get_object(**at, VersionId=first)["Body"].read() == b"old"
    assert s3.head_object(**at, VersionId=first)["ContentLength"] == 3
    s3.copy_object(Bucket=bucket, Key="back.csv", CopySource={**at, "VersionId": first})
    assert s3.get_object(Bucket=bucket, Key="back.csv")["Body"].read() == b"old"
    assert code(s3.get_object, **at, VersionId="0" * 32) == code(s3.get_object, **at, VersionId="none") == "NoSuchVersion"
    head = s3.head_object(**at)
    tag, when = head["ETag"], head["LastModified"]
    for known in ({"IfNoneMatch": tag}, {"IfModifiedSince": when}, {"IfNoneMatch": f'"x", {tag}'}):
        assert code(s3.get_object, **at, **known) == code(s3.head_object, **at, **known) == "304"
    assert code(s3.get_object, **at, IfMatch='"other"') == "PreconditionFailed"
    assert code(s3.get_object, **at, IfUnmodifiedSince=datetime(2001, 1, 1, tzinfo=UTC)) == "PreconditionFailed"
    for holds in ({"IfNoneMatch": '"other"'}, {"IfMatch": tag}, {"IfUnmodifiedSince": when}):
        assert s3.get_object(**at, **holds)["Body"].read() == b"new, and longer"
    url = f"http://127.0.0.1:{up.installation.ports.s3}/{bucket}/t.csv"
    for stale, wanted in ((tag, (206, b"ne")), ('"other"', (200, b"new, and longer"))):
        answer = requests.get(url, headers={"Range": "bytes=0-1", "If-Range": stale}, timeout=20)
        assert (answer.status_code, answer.content) == wanted
    assert code(s3.copy_object, Bucket=bucket, Key="x", CopySource=at, CopySourceIfNoneMatch=tag) == "PreconditionFailed"
    assert code(s3.put_object, **at, Body=b"third", IfNoneMatch="*") == "NotImplemented"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    part = {"Bucket": bucket, "Key": "parts", "UploadId": upload, "PartNumber": 1}
    assert code(s3.upload_part_copy, **part, CopySource=at) == "NotImplemented"
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="parts", UploadId=upload)
    for listed in (s3.list_objects_v2(Bucket=bucket, MaxKeys=0), s3.list_objects(Bucket=bucket, MaxKeys=0)):
        assert (listed["IsTruncated"], listed.get("Contents"), listed.get("NextContinuationToken")) == (False, None, None)
    wrong = requests.put(url, data=b"bytes", headers={"x-amz-content-sha256": "0" * 64}, timeout=20)
    assert (wrong.status_code, "XAmzContentSHA256Mismatch" in wrong.text) == (400, True)
    assert s3.get_object(**at)["Body"].read() == b"new, and longer"
