"""What the tests share: every `ci/*-values.yaml`, rendered once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import helm

CI = helm.ci_values()


@pytest.fixture(scope="session")
def rendered():
    """Objects of each of the chart's ci values, by name."""
    return {name: helm.render(values) for name, values in CI.items()}


@pytest.fixture
def minimal():
    """Values that a test may change: those of ci/minimal-values.yaml."""
    return helm.ci_values()["minimal"]
