"""Specifications of sweeps over the digits zoo."""


def spec(
    demo,
    methods=("mehl+",),
    *,
    epochs=2,
    batch=64,
    zoo=None,
    learn=None,
    select=None,
    memory="4GiB",
    search="",
    learning_rate=0.02,
):
    """A sweep with a task for each method, beside best and uniform."""
    words = ", ".join(f'"{method}"' for method in methods)
    return f"""name = "digits"
seed = 5
[zoo]
ingredients = ["{zoo or demo / "zoo"}/*"]
[data]
learn = "{learn or demo / "data/learn.safetensors"}"
select = "{select or demo / "data/select.safetensors"}"
[soup]
model_batch = 2
batch = {batch}
inner_epochs = {epochs}
early_stopping = false
learning_rate = {learning_rate}
[compute]
threads = 1
memory = "{memory}"
[search]
strategy = "grid"
{search}
[search.space]
method = [{words}]
"""


def short(demo, **changes):
    """Some tasks of less than a second each."""
    return spec(demo, ("mehl+", "hl"), epochs=1, **changes)


def long(demo, **changes):
    """One task of some seconds: a fault for longer than a lease finds it at work."""
    return spec(demo, ("mehl+",), epochs=6, **changes)


# Those that `Ground.reference` runs.
NAMED = {"short": short, "long": long}
