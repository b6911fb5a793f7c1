"""What the tests share: where containers run, the programs, the zoo, a broker, an authority."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "chart")]

import brokers
import helm
import machine as machines
from container import Image

import zoo

# Before anything else: it changes the network of this process.
MACHINE = machines.machine()
# Asked to end, the tests end what they have started.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def machine():
    return MACHINE


@pytest.fixture(scope="session")
def programs():
    """The folder of both programs: MEHL_SOUP_TEST_PROGRAMS, else where `make build` leaves them."""
    target = (
        os.environ.get("CARGO_TARGET_DIR")
        or os.environ.get("CARGO_BUILD_TARGET_DIR")
        or helm.ROOT / "target"
    )
    folder = Path(
        os.environ.get("MEHL_SOUP_TEST_PROGRAMS") or helm.ROOT / target / "release"
    ).resolve()
    for name in ("mehl-soup", "mehl-soup-worker"):
        assert (folder / name).exists(), (
            f"{folder / name}: not found; run make build, or set MEHL_SOUP_TEST_PROGRAMS"
        )
    return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that every user can enter; pytest's own are for its user alone."""
    folder = tmp_path_factory.mktemp("deployment")
    for one in (folder, *folder.parents[:2]):
        one.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def zoos(programs, shared):
    """Folders of the demo, of a zoo on images, and of the volume `zoo`."""
    return zoo.make(programs, shared)


@pytest.fixture(scope="session")
def images(programs, zoos):
    return {name: Image(name, programs, zoos[0]) for name in ("scheduler", "worker")}


@pytest.fixture(scope="session")
def authority(shared):
    return brokers.Authority(shared / "authority", ["localhost", "servers.example.com"])


@pytest.fixture(scope="session")
def broker(machine, shared, authority):
    """RabbitMQ. Gives names of empty virtual hosts."""
    with brokers.rabbitmq(machine, shared / "rabbitmq", authority):
        yield iter(brokers.VHOSTS)


@pytest.fixture
def folder(shared, request):
    """A folder of the test's own."""
    name = "".join(one if one.isalnum() else "-" for one in request.node.name)
    made = shared / name[:60]
    made.mkdir()
    return made
