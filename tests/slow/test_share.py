"""What one clone has computed others fetch: through a folder, an S3 server and an SSH server."""

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import IDENTITY, command, contents, without_override
from tests.servers import CREDENTIALS, SSHD, s3_server, ssh_server

OUTPUTS = ("data/prepared", "models", "metrics")
needs_ssh = pytest.mark.skipif(
    not SSHD and "CI" not in os.environ,
    reason="there is no SSH server (Debian: openssh-server)",
)
# What a stage runs as `python` notes its module, then is the real one.
TRACE = """#!/bin/sh
echo "$2" >> "$TRACE"
exec "$PYTHON" "$@"
"""


def dvc(folder, *words, **options):
    """Run DVC, which has access to the S3 server, to a successful end."""
    end = command(folder, "dvc", *words, environment=CREDENTIALS, **options)
    assert end.returncode == 0, end.stderr
    return end.stdout


def git(folder, *words):
    end = command(folder, "git", *IDENTITY, *words)
    assert end.returncode == 0, end.stderr


def push(folder):
    """The data first, so that no record of a run tells of what is not there yet."""
    dvc(folder, "push")
    dvc(folder, "push", "--run-cache")


def set_lr(folder, value):
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("lr: 0.1 ", f"lr: {value} "))


def run_and_trace(folder, *words):
    """What DVC prints, and the stages that it really runs."""
    tools = folder.parent / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "python").write_text(TRACE)
    (tools / "python").chmod(0o755)
    trace = folder.parent / "trace"
    trace.write_text("")
    python = shutil.which("python")
    path = f"{tools}:{Path(python).parent}:{os.environ['PATH']}"
    variables = {"PATH": path, "TRACE": str(trace), "PYTHON": python} | CREDENTIALS
    end = command(folder, shutil.which("dvc"), *words, environment=variables)
    assert end.returncode == 0, end.stderr
    return end.stdout + end.stderr, {
        name.removeprefix("stages.") for name in trace.read_text().split() if name[:7] == "stages."
    }


@pytest.fixture(scope="module")
def s3():
    with s3_server() as client:
        yield client


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(
    params=[
        "folder",
        "s3",
        pytest.param("ssh", marks=needs_ssh),
    ]
)
def remote(request, tmp_path):
    """The commands after `dvc remote` that name an empty storage of each kind."""
    storage = tmp_path / "storage"
    if request.param == "folder":
        return [["add", "--default", "shared", str(storage)]]
    if request.param == "s3":
        endpoint = request.getfixturevalue("s3").meta.endpoint_url
        return [
            ["add", "--default", "shared", f"s3://bucket/{tmp_path.name}"],
            ["modify", "shared", "endpointurl", endpoint],
        ]
    port, _, key = request.getfixturevalue("ssh")
    return [
        ["add", "--default", "shared", f"ssh://{getpass.getuser()}@127.0.0.1:{port}{storage}"],
        ["modify", "shared", "keyfile", str(key)],
    ]


def share(quick, folder, remote):
    """The first clone: run twice, with an earlier learning rate and the present one, and push."""
    first = shutil.copytree(quick, folder / "first")
    for words in remote:
        dvc(first, "remote", *words)
    dvc(first, "remote", "modify", "shared", "verify", "true")
    set_lr(first, 0.05)
    dvc(first, "repro")
    push(first)
    git(first, "checkout", "params.yaml")
    dvc(first, "repro")
    push(first)
    git(first, "commit", "-qam", "Share")
    return first


def clone(first, folder):
    """Another clone, whose DVC has neither the first one's cache nor its other memory."""
    git(first, "clone", "-q", str(first), str(folder))
    return folder


def test_what_one_clone_has_pushed_another_fetches_and_runs_nothing(quick, tmp_path, remote):
    first = share(quick, tmp_path, remote)
    second = clone(first, tmp_path / "elsewhere" / "second")
    _, ran = run_and_trace(second, "repro", "--pull")
    assert ran == set()
    for name in OUTPUTS:
        assert contents(second / name) == contents(first / name)

    third = clone(first, tmp_path / "third")
    set_lr(third, 0.05)
    _, ran = run_and_trace(third, "repro", "--pull")
    assert ran <= {"evaluate", "save"}, "a training that was pushed earlier is fetched, not run"


def test_a_damaged_list_of_files_is_said_and_cured(quick, tmp_path):
    storage = tmp_path / "storage"
    first = share(quick, tmp_path, [["add", "--default", "shared", str(storage)]])
    lock = yaml.safe_load((first / "dvc.lock").read_text())["stages"]["prepare"]["outs"]
    [md5] = [out["md5"] for out in lock]
    assert md5.endswith(".dir")
    listed = storage / "files/md5" / md5[:2] / md5[2:]
    second = clone(first, tmp_path / "second")
    for content in (b"[]", b"[{"):
        listed.chmod(0o644)
        listed.write_bytes(content)
        end = command(second, "dvc", "repro", "--pull")
        assert end.returncode != 0
        assert "ERROR" in end.stderr
    listed.unlink()
    dvc(first, "push")
    dvc(second, "repro", "--pull", "--force")
    for name in OUTPUTS:
        assert contents(second / name) == contents(first / name)


def test_a_corrupted_object_is_detected_and_computed_again(quick, tmp_path, remote, request):
    first = share(quick, tmp_path, remote)
    lock = yaml.safe_load((first / "dvc.lock").read_text())["stages"]["train"]["deps"]
    [md5] = [dep["md5"] for dep in lock if dep["path"] == "data/prepared/train.parquet"]
    name = f"files/md5/{md5[:2]}/{md5[2:]}"
    wrong = bytearray((first / "data/prepared/train.parquet").read_bytes())
    wrong[100] ^= 1
    if "s3" in remote[0][-1]:
        s3 = request.getfixturevalue("s3")
        assert s3.head_object(Bucket="bucket", Key=f"{tmp_path.name}/{name}")
        s3.put_object(Bucket="bucket", Key=f"{tmp_path.name}/{name}", Body=bytes(wrong))
    else:
        stored = tmp_path / "storage" / name
        stored.chmod(0o644)
        stored.write_bytes(wrong)

    second = clone(first, tmp_path / "second")
    end = command(second, "dvc", "pull", environment=CREDENTIALS)
    assert end.returncode != 0
    assert "data/prepared" in end.stderr
    assert not (second / "data/prepared/train.parquet").exists()
    printed, ran = run_and_trace(second, "repro", "--pull")
    assert "Unable to pull data for stage: 'prepare'" in printed
    assert ran == {"prepare"}
    for name in OUTPUTS:
        assert contents(second / name) == contents(first / name)


@pytest.fixture
def refused(quick, tmp_path):
    """Push to a remote that cannot take it, for a reason that DVC says; nothing here changes."""
    folder = shutil.copytree(quick, tmp_path / "copy")
    before = {name: contents(folder / name) for name in OUTPUTS}, (folder / "dvc.lock").read_text()

    def push(reason, *settings, program=(), **options):
        for words in settings:
            dvc(folder, "remote", *words)
        words = [*program, "sh", "-c", "dvc push && dvc push --run-cache"]
        environment = CREDENTIALS | {"AWS_MAX_ATTEMPTS": "1"}
        end = command(folder, *words, environment=environment, **options)
        assert end.returncode != 0, end.stdout
        assert "Traceback" not in end.stderr
        after = {name: contents(folder / name) for name in OUTPUTS}
        assert (after, (folder / "dvc.lock").read_text()) == before
        assert "up to date" in dvc(folder, "status")
        errors = re.findall(r"^ERROR: (.*)", end.stderr, re.MULTILINE)
        summary = re.compile(r"failed to push data to the cloud - \d+ files failed to upload")
        assert all(reason in error or summary.fullmatch(error) for error in errors), errors
        assert any(reason in error for error in errors), errors

    return push


def test_a_remote_that_is_unreachable_is_said(refused):
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        reason = f'Could not connect to the endpoint URL: "http://{address}/'
        endpoint = ["modify", "s3", "endpointurl", f"http://{address}"]
        refused(reason, ["add", "-d", "s3", "s3://bucket"], endpoint)
        refused("Connect call failed", ["add", "-d", "ssh", f"ssh://{address}/storage"])


@needs_ssh
def test_a_remote_that_is_read_only_is_said(refused, tmp_path, s3, ssh):
    storage = tmp_path / "storage"
    storage.mkdir(mode=0o555)
    folder = ["add", "-d", "shared", str(storage)]
    refused("Permission denied", folder, preexec_fn=without_override)

    forbidding = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "*"}
    s3.create_bucket(Bucket="read-only")
    s3.put_bucket_policy(Bucket="read-only", Policy=json.dumps({"Statement": [forbidding]}))
    endpoint = ["modify", "s3", "endpointurl", s3.meta.endpoint_url]
    refused("Forbidden", ["add", "-d", "s3", "s3://read-only"], endpoint)

    _, port, key = ssh
    address = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/other"
    refused(
        "Permission denied", ["add", "-d", "ssh", address], ["modify", "ssh", "keyfile", str(key)]
    )


@pytest.mark.skipif(
    bool(subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode),
    reason="this user may not mount a small file system",
)
def test_a_remote_that_is_full_is_said(refused, tmp_path):
    storage = tmp_path / "storage"
    storage.mkdir()
    mount = f'mount -t tmpfs -o size=8k none {storage} && exec "$0" "$@"'
    program = ("unshare", "-rm", "sh", "-c", mount)
    refused("No space left on device", ["add", "-d", "shared", str(storage)], program=program)


def test_a_server_that_does_not_answer_stops_a_pull_but_not_a_run(quick, tmp_path):
    folder = shutil.copytree(quick, tmp_path / "copy")
    set_lr(folder, 0.05)
    dvc(folder, "remote", "add", "-d", "s3", "s3://bucket")
    dvc(folder, "remote", "modify", "s3", "endpointurl", "http://127.0.0.1:9")
    environment = CREDENTIALS | {"AWS_MAX_ATTEMPTS": "1"}
    end = command(folder, "dvc", "repro", "--pull", environment=environment)
    assert end.returncode != 0
    assert "Could not connect to the endpoint URL" in end.stderr
    dvc(folder, "repro")


def test_without_its_remote_a_clone_computes(quick, tmp_path):
    folder = clone(quick, tmp_path / "clone")
    dvc(folder, "remote", "add", "-d", "shared", str(tmp_path / "nowhere"))
    _, ran = run_and_trace(folder, "repro", "--pull")
    assert ran == {"prepare", "train", "evaluate", "save"}
    for name in OUTPUTS:
        assert contents(folder / name) == contents(quick / name)


@pytest.mark.parametrize(
    "words",
    [
        ["artifacts", "get", "--rev", "v1.0.0", "REPOSITORY", "model"],
        ["get", "--rev", "model@v1.0.0", "REPOSITORY", "models/release"],
    ],
    ids=["artifacts-get", "get"],
)
def test_a_tagged_release_is_fetched_into_an_empty_folder_and_predicts_there(
    quick, tmp_path, words
):
    first = shutil.copytree(quick, tmp_path / "first")
    dvc(first, "remote", "add", "--default", "shared", str(tmp_path / "storage"))
    dvc(first, "push")
    git(first, "commit", "-qam", "Release")
    git(first, "tag", "-am", "Release", "model@v1.0.0")
    set_lr(first, 0.001)  # what comes later is not fetched
    dvc(first, "repro")
    git(first, "commit", "-qam", "Go on")

    repository, folder = tmp_path / "repository", tmp_path / "empty"
    git(tmp_path, "clone", "-q", "--bare", str(first), str(repository))
    shutil.rmtree(first)
    folder.mkdir()
    dvc(folder, *(str(repository) if word == "REPOSITORY" else word for word in words))
    assert [path.name for path in folder.iterdir()] == ["release"]
    release = folder / "release"
    assert contents(release) == contents(quick / "models/release")
    [program] = re.findall(
        r"### NumPy\n\n```python\n(.*?)```", (release / "README.md").read_text(), re.DOTALL
    )
    end = command(release, "python", "-c", program)
    assert end.returncode == 0, end.stderr
    assert json.loads(end.stdout)[0][0] == pytest.approx(0.6517, abs=1e-4)
