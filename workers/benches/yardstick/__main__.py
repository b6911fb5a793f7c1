"""The yardstick of `make bench`: what PyTorch takes for the same work, by honest and lean scripts of our own.

    python workers/benches/yardstick make-zoo --out DIR --k 8       a zoo and learn data that mehl-soup reads too
    python workers/benches/yardstick bare --zoo DIR                 forward and backward alone
    python workers/benches/yardstick mehl+ --zoo DIR --b 4          MEHL-Soup+
    python workers/benches/yardstick learned+ --zoo DIR             Learned-Soup+
    python workers/benches/yardstick score --zoo DIR                samples scored a second
    python workers/benches/yardstick greedy --zoo DIR               a greedy soup
    python workers/benches/yardstick mean --zoo DIR --out MODEL     the mean of model files
    python workers/benches/yardstick copy                           memory bandwidth
    python workers/benches/yardstick check                          do both soups follow the golden trajectories?
                                                                    Are oneDNN's layers PyTorch's?

Each prints one line of JSON on stdout, with the keys that `../tables.py` explains, and talks on stderr. One process each, so that peak memory is its own.
Needs the packages of `../../tests/fixtures/requirements.txt`. On CUDA, device memory is what PyTorch's allocator gave out.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
import transformers

import linear
import measure
import merges
import zoo

DTYPES = dict(f32=torch.float32, f64=torch.float64, bf16=torch.bfloat16)
GOLDEN = Path(__file__).resolve().parents[2] / "tests/fixtures/trajectories"


def say(message):
    print(message, file=sys.stderr, flush=True)


def place(arguments):
    """The device and what every line says of the run."""
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    products = getattr(arguments, "linear", "pytorch")
    if products == "onednn":
        if device.type != "cpu" or arguments.dtype != "f32":
            sys.exit(f"--linear onednn: expected f32 on the cpu, found {arguments.dtype} on {device}")
        linear.install()
    return device, dict(
        who="pytorch",
        what=arguments.command,
        dtype=arguments.dtype,
        linear=products,
        device=str(device),
        threads=torch.get_num_threads(),
        seed=arguments.seed,
        versions=measure.versions(),
        machine=measure.machine(device),
    )


def bare(arguments):
    """Forward, loss and backward on batches of the zoo's learn data."""
    from soups import forward_backward

    device, line = place(arguments)
    dtype = DTYPES[arguments.dtype]
    with measure.Peak(device) as peak:
        config = zoo.configuration(zoo.Zoo(arguments.zoo, 1, device).folders[0])
        model = transformers.ViTForImageClassification(config).eval().to(device, dtype)
        data = zoo.Data(arguments.zoo, arguments.batch, arguments.seed, device, dtype)

        def iteration():
            forward_backward(model, *data.next())
            model.zero_grad(set_to_none=True)

        for _ in range(arguments.warm_up):
            iteration()
    (seconds,) = measure.in_turns([iteration], device, arguments.rounds, arguments.timed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return line | dict(
        k=None, b=None, batch=data.batch, parameters=parameters, **measure.keys(seconds, data.batch), **peak.keys()
    )


def soup_line(line, soup, data, arguments, device, peak, began, losses):
    """Times the soup's iterations in turns with bare ones, and says how it went."""
    total = time.perf_counter() - began
    say(f"learned in {total:.1f} s; now in turns with the bare loop")
    if hasattr(soup, "prepare_bare"):
        soup.prepare_bare()
    bare_seconds, seconds = measure.in_turns([soup.bare, soup.iteration], device, arguments.rounds, arguments.timed)
    keys, bare_keys = measure.keys(seconds, data.batch), measure.keys(bare_seconds, data.batch)
    ratio = keys["seconds_per_iteration"] / bare_keys["seconds_per_iteration"]
    say(f"{arguments.command}: {ratio:.3f} times its bare loop")
    return line | dict(
        k=len(soup.zoo),
        batch=data.batch,
        samples=len(data.labels),
        parameters=sum(shape.numel() for shape in soup.zoo.shapes.values()),
        **keys,
        bare_seconds_per_iteration=bare_keys["seconds_per_iteration"],
        bare_seconds_per_iteration_min=bare_keys["seconds_per_iteration_min"],
        ratio_to_bare=ratio,
        ratio_to_bare_min=keys["seconds_per_iteration_min"] / bare_keys["seconds_per_iteration_min"],
        stored_bytes=soup.stored_bytes,
        **peak.keys(),
        total_seconds=total,
        iterations=len(losses),
        loss_first=losses[0],
        loss_last=losses[-1],
    )


def seconds_now(device):
    """The clock, when the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def mehl(arguments):
    """One outer epoch over model batches of shuffled ingredients."""
    from soups import Mehl

    device, line = place(arguments)
    dtype = DTYPES[arguments.dtype]
    losses, loads, whole = [], [], []
    with measure.Peak(device) as peak:
        began = time.perf_counter()
        models = zoo.Zoo(arguments.zoo, arguments.k, device)
        data = zoo.Data(arguments.zoo, arguments.batch, arguments.seed, device, dtype)
        order = torch.randperm(len(models), generator=torch.Generator().manual_seed(arguments.seed))
        batches = [sorted(members.tolist()) for members in order.split(arguments.b)]
        soup = Mehl(models, data, min(arguments.b, len(models)), dtype, arguments.learning_rate or 0.01)
        steps = arguments.iterations or arguments.inner_epochs * len(data)
        for members in batches:
            start = seconds_now(device)
            soup.load(members)
            loads.append(seconds_now(device) - start)
            say(f"model batch {members}: loaded in {loads[-1]:.2f} s")
            soup.begin(steps)
            losses += [soup.iteration() for _ in range(steps)]
            # After the last one it stays unfolded: its iterations are timed below.
            if members is not batches[-1]:
                soup.fold()
            whole.append(seconds_now(device) - start)
        losses = [loss.item() for loss in losses]
    write(arguments, soup)
    line = soup_line(line, soup, data, arguments, device, peak, began, losses)
    return line | dict(b=arguments.b, load_seconds=loads, model_batch_seconds=whole)


def learned(arguments):
    """All ingredients at once."""
    from soups import Learned

    device, line = place(arguments)
    dtype = DTYPES[arguments.dtype]
    with measure.Peak(device) as peak:
        began = time.perf_counter()
        models = zoo.Zoo(arguments.zoo, arguments.k, device)
        data = zoo.Data(arguments.zoo, arguments.batch, arguments.seed, device, dtype)
        start = seconds_now(device)
        soup = Learned(models, data, dtype, arguments.learning_rate or 0.05)
        loaded = seconds_now(device) - start
        steps = arguments.iterations or arguments.inner_epochs * len(data)
        losses = [loss.item() for loss in [soup.iteration() for _ in range(steps)]]
    write(arguments, soup)
    line = soup_line(line, soup, data, arguments, device, peak, began, losses)
    return line | dict(b=len(models), load_seconds=[loaded])


def write(arguments, soup):
    """Coefficients [K][L] to a file, if one is asked for; columns in the order of names on disk."""
    if arguments.coefficients:
        names = [soup.zoo.disk[name] for name in soup.zoo.mixed]
        arguments.coefficients.write_text(json.dumps(dict(groups=names, A=soup.coefficients().tolist())) + "\n")


def placed_model(models, dtype):
    """A model for inference, with what all ingredients share; its other weights are not set."""
    model = zoo.empty_model(models.config).to(dtype).to_empty(device=models.device)
    parameters = dict(model.named_parameters())
    for name, tensor in models.fixed(dtype).items():
        parameters[name].data.copy_(tensor)
    return model.requires_grad_(False)


def made_up_samples(config, samples, seed, device, dtype):
    """Inputs of random values, and labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, config.num_channels, config.image_size, config.image_size)
    inputs = torch.rand(shape, generator=generator, dtype=dtype).mul_(2).sub_(1)
    return inputs.to(device), (torch.arange(samples) % config.num_labels).to(device)


@torch.inference_mode()
def score(arguments):
    """Forward passes alone."""
    device, line = place(arguments)
    dtype = DTYPES[arguments.dtype]
    with measure.Peak(device) as peak:
        config = zoo.configuration(zoo.model_files(arguments.zoo, 1)[0].parent)
        model = transformers.ViTForImageClassification(config).eval().to(device, dtype)
        inputs, labels = made_up_samples(config, arguments.batch, arguments.seed, device, dtype)

        def iteration():
            (model(inputs).logits.argmax(-1) == labels).sum().item()

        for _ in range(arguments.warm_up):
            iteration()
    (seconds,) = measure.in_turns([iteration], device, arguments.rounds, arguments.timed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    batch = arguments.batch
    return line | dict(
        batch=batch, parameters=parameters, **measure.keys(seconds, batch), **peak.keys()
    )


@torch.inference_mode()
def greedy(arguments):
    """Ranks the models by accuracy, then keeps each with which the mean is no worse."""
    device, line = place(arguments)
    dtype = DTYPES[arguments.dtype]
    with measure.Peak(device) as peak:
        models = zoo.Zoo(arguments.zoo, arguments.k, device)
        samples = made_up_samples(
            models.config, arguments.samples, arguments.seed, device, dtype
        )
        soup = merges.Greedy(placed_model(models, dtype), models, *samples, arguments.batch)
        merges.prepare_cache([folder / merges.WEIGHTS for folder in models.folders], warm=True)
        # The first pass is slower than others.
        soup.score()
        (scores, order), ranking = merges.timed(soup.rank)
        (members, best), choosing = merges.timed(soup.choose, scores, order)
    _, one_score = merges.timed(soup.score)
    ratio = choosing / (len(models) * one_score)
    say(f"greedy: kept {len(members)} of {len(models)}, {best} of {len(samples[1])} are right")
    say(f"greedy: ranked in {ranking:.2f} s, chose in {choosing:.2f} s, {ratio:.3f} of K scores")
    return line | dict(
        k=len(models),
        batch=arguments.batch,
        samples=arguments.samples,
        parameters=sum(shape.numel() for shape in models.shapes.values()),
        seconds=choosing,
        ranking_seconds=ranking,
        total_seconds=ranking + choosing,
        ratio_to_scores=ratio,
        **peak.keys(),
    )


def mean(arguments):
    """The mean of model files, written as a model."""
    device, line = place(arguments)
    files = zoo.model_files(arguments.zoo, arguments.k)
    merges.clear(arguments.out)
    if arguments.by == "mergekit":
        line["who"] = "mergekit"
        line["versions"] = measure.versions("mergekit")
        merge = merges.mean_by_mergekit(files, arguments.out)
    else:
        merge = lambda: merges.mean_by_loop(files, arguments.out)
    imports = measure.process_seconds()
    merges.prepare_cache(files, warm=arguments.cache == "warm")
    with measure.Peak(device) as peak:
        _, seconds = merges.timed(merge)
    merges.settle(arguments.out)
    error = merges.mean_error(files, arguments.out) if arguments.check else None
    say(f"mean by {arguments.by}, {arguments.cache}: {seconds:.2f} s")
    if error is not None:
        say(f"mean by {arguments.by}: off by {error:.1e}")
    return line | dict(
        k=len(files),
        cache=arguments.cache,
        read_bytes=sum(file.stat().st_size for file in files),
        seconds=seconds,
        process_seconds=imports + seconds,
        error=error,
        **peak.keys(),
    )


def copy(arguments):
    """A straight copy of as many numbers as the model has."""
    device, line = place(arguments)
    dtype = DTYPES[arguments.dtype]
    source = torch.ones(arguments.elements, dtype=dtype, device=device)
    target = torch.zeros_like(source)
    (seconds,) = measure.in_turns([lambda: target.copy_(source)], device, arguments.rounds, 10 * arguments.timed)
    keys = measure.keys(seconds, 1)
    del keys["samples_per_second"]
    rate = source.nbytes / keys["seconds_per_iteration"] / 1e9
    say(f"copy: {rate:.2f} GB/s copied, so twice that read and written")
    return line | dict(
        parameters=arguments.elements, stored_bytes=source.nbytes, copied_gigabytes_per_second=rate, **keys
    )


def make_zoo(arguments):
    """Ingredients and data; says where they are."""
    zoo.make(
        arguments.out, arguments.model, arguments.k, arguments.samples, arguments.whole_numbers, arguments.seed, say
    )
    return dict(
        who="pytorch",
        what="make-zoo",
        out=str(arguments.out),
        model=arguments.model,
        k=arguments.k,
        seed=arguments.seed,
    )


def check(arguments):
    """Largest distances from the golden trajectories, in f64, and of oneDNN's layers from PyTorch's, in f32.

    Exits with 1 where they are more than rounding.
    """
    import golden

    _, line = place(arguments)
    limits = {}
    for found, most in (
        (golden.distances(GOLDEN), golden.TOLERANCE),
        (linear.distances(), linear.TOLERANCE),
    ):
        limits |= {what: (distance, most) for what, distance in found.items()}
    for what, (distance, _) in limits.items():
        say(f"{what}: {distance:.1e}")
    found = {what: distance for what, (distance, _) in limits.items()}
    print(json.dumps(line | dict(distances=found)), flush=True)
    wrong = [what for what, (distance, most) in limits.items() if not distance <= most]
    sys.exit(f"the yardstick is off by more than rounding: {', '.join(wrong)}" if wrong else 0)


def parser():
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)

    def command(name, run, dtypes=("f32",)):
        one = commands.add_parser(name, help=run.__doc__.splitlines()[0])
        one.set_defaults(run=run)
        one.add_argument("--device", default="cpu", help="cpu or cuda")
        one.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("--dtype", choices=dtypes, default=dtypes[0])
        one.add_argument("--rounds", type=int, default=3, help="turns of each side of a comparison")
        one.add_argument("--timed", type=int, default=4, help="timed iterations of a turn")
        return one

    def of_zoo(one, batch=16):
        one.add_argument("--zoo", type=Path, required=True, help="what make-zoo has made")
        one.add_argument("--batch", type=int, default=batch, help="samples of a pass")
        one.add_argument("--linear", choices=("pytorch", "onednn"), default="pytorch", help="who multiplies in f32")
        return one

    def learns(one):
        one.add_argument("--k", type=int, help="ingredients; all by default")
        one.add_argument("--iterations", type=int, help="of a model batch; by default inner epochs times batches")
        one.add_argument("--inner-epochs", type=int, default=5)
        one.add_argument("--learning-rate", type=float, help="0.01, and 0.05 for learned+, by default")
        one.add_argument("--coefficients", type=Path, help="where to write them, as JSON")

    of_zoo(command("bare", bare, ("f32", "bf16", "f64"))).add_argument("--warm-up", type=int, default=2)
    one = of_zoo(command("mehl+", mehl, ("f32", "f64")))
    learns(one)
    one.add_argument("--b", type=int, default=4, help="ingredients of a model batch")
    learns(of_zoo(command("learned+", learned, ("f32", "f64"))))
    one = of_zoo(command("score", score))
    one.add_argument("--warm-up", type=int, default=2)
    one = of_zoo(command("greedy", greedy), batch=64)
    one.add_argument("--k", type=int, help="models; all by default")
    one.add_argument("--samples", type=int, default=64)
    one = command("mean", mean)
    one.add_argument("--zoo", type=Path, required=True, help="what make-zoo has made")
    one.add_argument("--k", type=int, help="models; all by default")
    one.add_argument("--out", type=Path, required=True, help="folder of the mean, written anew")
    one.add_argument("--cache", choices=("warm", "cold"), default="warm", help="of model files")
    one.add_argument("--by", choices=("loop", "mergekit"), default="loop")
    one.add_argument("--check", action="store_true", help="compare the result with a mean in f64")
    command("copy", copy).add_argument("--elements", type=int, default=88_224_232, help="by default those of ViT-B/32")
    command("check", check, ("f64",))

    one = commands.add_parser("make-zoo", help=make_zoo.__doc__.splitlines()[0])
    one.set_defaults(run=make_zoo)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--k", type=int, default=8)
    one.add_argument("--model", choices=zoo.CONFIGURATIONS, default="vit-b-32")
    one.add_argument("--samples", type=int, default=64)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--whole-numbers", action="store_true", help="inputs as u8 pixels instead of the same as f32")
    return top


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    arguments = parser().parse_args()
    print(json.dumps(arguments.run(arguments)), flush=True)


if __name__ == "__main__":
    main()
