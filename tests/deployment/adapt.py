"""The one place that says where a test departs from what is rendered or written.

- There is no GPU: `cuda:0` becomes `cpu`, in variables, commands and files (`device`). Nothing else
  of a GPU reaches a process: requests, runtime class and tolerations are read by the scheduler of
  Kubernetes.
- One pod of each part: pods share one network here, so a second one would find its port taken.
  `replicas` is not read.
- Servers are Redis and RabbitMQ of this machine, in place of the images (tests/chart/servers.py for
  the quickstart's). Those of TLS values speak TLS, with an authority of the tests' own.
- The zoo is small: four ingredients of four epochs (zoo.py), in place of the demo's 28. Its images
  are so few that their specifications state `zoo.allow_chance` (`by_chance`).
- Each chart gets one sweep more, over the volume that its values mount, unless the values have
  sweeps (`mounted_sweep`). `helm test` takes the zoo of the image.
- Threads that wait do not spin (`SHARED_CORES`): workers, servers and other tests share the cores.
- tini, and without root much more: machine.py.
"""

SHARED_CORES = {"OMP_WAIT_POLICY": "passive"}


def device(text):
    """A text without GPUs."""
    return text.replace("cuda:0", "cpu")


def by_chance(spec):
    """A specification for the images of these tests: they are too few to be better than guessing."""
    toml = spec.replace("[zoo]\n", "[zoo]\nallow_chance = true\n", 1)
    return toml.replace("zoo: {", "zoo: {allow_chance: true, ", 1)


def mounted_sweep(values):
    """Values with a sweep over the first input. Its volume has the folders `zoo` and `data` of the
    demo."""
    if sweeps := values.get("sweeps"):
        adapted = [{**one, "spec": by_chance(one["spec"])} for one in sweeps]
        return {**values, "sweeps": adapted}
    place = values["worker"]["inputs"][0]["mountPath"]
    spec = f"""
[zoo]
allow_chance = true
ingredients = ["{place}/zoo/*"]
[data]
learn = "{place}/data/learn.safetensors"
select = "{place}/data/select.safetensors"
[soup]
method = "mehl"
inner_epochs = 1
batch = 32
"""
    return {**values, "sweeps": [{"name": "mounted", "spec": spec}]}
