"""checkov over all rendered objects, in one run; each finding that is let be has its reason, and none is listed that is not found."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

import helm

# Check, whose findings, and why they are let be.
LET_BE = [
    ("CKV_K8S_8", r"^Pod\.", "a pod of `helm test` runs once: there is nothing to keep alive"),
    ("CKV_K8S_9", r"^Pod\.", "nobody waits for it to be ready"),
    ("CKV_K8S_11", r"^(Deployment|Job)\..*-worker$", "a worker computes with the cores that are free; a limit would throttle it beside an idle node"),
    ("CKV_K8S_15", r"", "tags are versions and do not move; image.pullPolicy can be Always (restricted)"),
    ("CKV_K8S_40", r"^StatefulSet\.", "999 is the user of the official images"),
    ("CKV_K8S_43", r"", "which digest is right is known where images are built; it can be given (restricted)"),
]


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """Failed checks as (values, check, object)."""
    folder = tmp_path_factory.mktemp("rendered")
    for name, values in helm.ci_values().items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(helm.plain(helm.render(values))))
    command = [sys.executable, "-m", "checkov.main", "-d", str(folder), "--framework", "kubernetes", "--compact", "--quiet", "-o", "json"]
    # Neither policies nor a newer version are asked for: it runs without a network.
    environment = {**os.environ, "BC_SKIP_MAPPING": "TRUE", "CHECKOV_RUN_SCA_PACKAGE_SCAN_V2": "false"}
    done = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, env=environment)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert result["summary"]["passed"] > 500 and result["summary"]["parsing_errors"] == 0, result["summary"]
    return [
        (one["file_path"].strip("/").removesuffix(".yaml"), one["check_id"], one["resource"].replace(".soups.", "."))
        for one in result["results"]["failed_checks"]
    ]


def reasons(check, where):
    return [row for row in LET_BE if row[0] == check and re.search(row[1], where)]


def test_nothing_is_found_without_a_reason(findings):
    assert [one for one in findings if not reasons(one[1], one[2])] == []


def test_every_reason_is_still_needed(findings):
    assert [row for row in LET_BE if not any(row in reasons(check, where) for _, check, where in findings)] == []


def test_restricted_values_pass_by_digest_and_policy(findings):
    assert {check for name, check, _ in findings if name == "restricted"} <= {"CKV_K8S_11"}
