"""docker/compose.yaml and compose.gpu.yaml: the services are started as they say, and the commands
of docs/kubernetes.md are run."""

import re
import shlex

import brokers
import compose
import helm
import pytest
from pool import Pool

GUIDE = (helm.ROOT / "docs" / "kubernetes.md").read_text()


def client_commands():
    """Arguments of `docker compose run --rm client` in the guide."""
    return [
        shlex.split(line)
        for line in re.findall(
            r"^docker compose -f docker/compose.yaml run --rm client (.*)$", GUIDE, re.M
        )
    ]


@pytest.mark.parametrize(
    "files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")], ids=["cpu", "gpu"]
)
def test_what_the_compose_file_says_works(files, machine, folder, images, zoos, broker, authority):
    project = compose.Project(compose.merged(*files), machine, folder, images, data=zoos[2])
    user, password = project.user_of_rabbitmq()
    assert brokers.HAS_EVERYTHING[user] == password, "the broker of the tests has no such user"
    commands = client_commands()
    assert [one[0] for one in commands] == ["submit", "status"]
    with brokers.redis(machine, folder / "redis", project.redis()), Pool(machine, folder) as pool:
        scheduler = pool.start(project.container("scheduler"))
        worker = pool.start(project.container("worker"))
        for port, name in ((7070, "scheduler"), (9464, "worker")):
            pool.answers(port, "/readyz", [scheduler, worker])
            image = images[name]
            pool.run(
                project.container(name, command=[image.entrypoint[0], "--", *image.health]),
                beside=[scheduler, worker],
            )
        for arguments in commands:
            said = pool.run(project.container("client", arguments), beside=[scheduler, worker])
            assert "demo" in said
        token = (compose.DOCKER / "token.example").read_text().strip()
        pool.all_succeed(["demo"], [scheduler, worker], token)
        for one in (worker, scheduler):
            one.is_asked_to_end(60)
