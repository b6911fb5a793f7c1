"""The published JSON Schema of a specification takes what the program takes."""

import json
import re
import tomllib

import helm
import jsonschema
import pytest

SCHEMA = json.loads((helm.ROOT / "docs/sweep.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FILES = [*(helm.ROOT / "experiments").glob("*.toml"), helm.ROOT / "tests/fixtures/formats/v1/sweep.toml"]
README = re.search(r"```toml\n(.*?)```", (helm.ROOT / "README.md").read_text(), re.S)[1]
LEAST = {"zoo": {"ingredients": "zoo/*"}, "data": {"learn": "learn"}}


def test_it_is_a_schema():
    VALIDATOR.check_schema(SCHEMA)


@pytest.mark.parametrize("text", [README, *(file.read_text() for file in FILES)])
def test_specifications_that_run_fit(text):
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {"learn": "learn"}},
        LEAST | {"serach": {}},
        LEAST | {"soup": {"method": "mehl++"}},
        LEAST | {"soup": {"shrink": -1}},
        LEAST | {"soup": {"average": 1}},
        LEAST | {"search": {"tasks": 0}},
    ],
)
def test_what_the_program_refuses_does_not(wrong):
    assert list(VALIDATOR.iter_errors(LEAST)) == []
    assert list(VALIDATOR.iter_errors(wrong)) != []
