"""The quickstart's servers with the chart's own files: volumes outlive the password that they were made with."""

import helm
import servers

FIRST, SECOND = "firstPassword1", "secondPassword2"


def rendered(password):
    values = helm.ci_values()["quickstart"]
    values["quickstart"]["password"] = password
    return helm.render(values)


def test_rabbitmq_takes_the_password_of_the_values_whatever_its_volume_was_made_with(tmp_path):
    with servers.rabbitmq(rendered(FIRST), tmp_path) as takes:
        assert takes("mehl-soup", FIRST) and not takes("mehl-soup", SECOND)
        assert not takes("guest", "guest")
    with servers.rabbitmq(rendered(SECOND), tmp_path) as takes:
        assert takes("mehl-soup", SECOND) and not takes("mehl-soup", FIRST)


def test_valkey_takes_the_password_of_the_values_and_keeps_its_data(tmp_path):
    with servers.valkey(rendered(FIRST), tmp_path) as ask:
        assert ask(FIRST, "SET a b") == ["+OK", "+OK", "+OK"]
        assert ask(SECOND, "GET a")[0].startswith("-WRONGPASS")
    with servers.valkey(rendered(SECOND), tmp_path) as ask:
        assert ask(SECOND, "GET a") == ["+OK", "$1", "b", "+OK"]
        assert ask(FIRST, "GET a")[0].startswith("-WRONGPASS")


def test_another_image_of_rabbitmq_begins_with_another_folder_and_valkey_keeps_its_own():
    def folders(image):
        values = helm.ci_values()["quickstart"]
        values["quickstart"].update({server: {"image": f"{server}:{image}"} for server in ("rabbitmq", "valkey")})
        objects = helm.render(values)
        found = []
        for server in ("rabbitmq", "valkey"):
            one = helm.container(helm.find(objects, "StatefulSet", f"-{server}")["spec"]["template"]["spec"])
            found += [mount.get("subPath") for mount in one["volumeMounts"] if mount["name"] == "data"]
        return found

    (first, keeps), (second, keeps_too) = folders("1"), folders("2")
    assert first != second and keeps is keeps_too is None
    assert folders("1") == [first, None]
