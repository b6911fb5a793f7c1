"""Fixtures: the ground that all tests share, servers and pools of one test."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ground import Ground
from pool import Pool
from servers import Redis

MADE = pytest.StashKey()


def pytest_sessionstart(session):
    # With -n, the tests run in other processes, which find what this one has made.
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        session.stash[MADE] = Ground.make()


def pytest_sessionfinish(session):
    if ground := session.stash.get(MADE, None):
        ground.end()


@pytest.fixture(scope="session")
def ground():
    return Ground.read()


@pytest.fixture
def name(request):
    """An installation's name, or a user's: that of the test."""
    return re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture
def redis(tmp_path):
    """A Redis that the test may harm."""
    server = Redis(tmp_path / "redis")
    yield server
    server.end()


@pytest.fixture
def new_pool(ground, name, tmp_path):
    """Makes pools, and ends them."""
    pools = []

    def new(redis=None, **options):
        pool = Pool(ground, name, tmp_path, redis=redis and redis.url, **options)
        pools.append(pool)
        return pool

    yield new
    for pool in pools:
        pool.end()
