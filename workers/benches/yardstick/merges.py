"""Soups that are not learned, as a plain script makes them: the mean of files, and a greedy soup.

Seconds begin when all imports are done. `mean` also runs mergekit, in a Python that has it.
"""

import os
import shutil
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

# Of a model's folder.
WEIGHTS = "model.safetensors"


def prepare_cache(files, *, warm):
    """Reads files into the page cache, or drops them from it."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            if warm:
                while os.read(descriptor, 1 << 24):
                    pass
            else:
                # Only clean pages can be dropped.
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def clear(out):
    """An empty folder for the result; what an earlier run wrote goes."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def settle(out):
    """Waits until a result is on the disk, so that writing it back does not slow the next run."""
    for file in out.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def mean_by_loop(files, out):
    """Tensor by tensor: sums in f32, in place, and a file as the first one's."""
    opened = [safe_open(file, framework="pt") for file in files]
    mean = {}
    for name in opened[0].keys():
        first = opened[0].get_tensor(name)
        if not first.is_floating_point():
            mean[name] = first
            continue
        total = first.to(torch.float32, copy=True)
        for other in opened[1:]:
            total.add_(other.get_tensor(name))
        mean[name] = total.div_(len(opened)).to(first.dtype)
    shutil.copy(files[0].with_name("config.json"), out)
    save_file(mean, out / WEIGHTS, metadata=opened[0].metadata())


def mean_by_mergekit(files, out):
    """mergekit's linear merge with equal weights, as `mergekit-pytorch` does it; a call to time.

    `mergekit-yaml` leaves out the encoder of these models: its tensors have other names in
    transformers 5 than in the files.
    """
    from mergekit.graph import Executor
    from mergekit.options import MergeOptions
    from mergekit.scripts import merge_raw_pytorch as raw

    inputs = [dict(model=str(file.resolve()), parameters=dict(weight=1.0)) for file in files]
    config = raw.RawPyTorchMergeConfig(merge_method="linear", dtype="float32", models=inputs)
    options = MergeOptions(quiet=True)

    def merge():
        tasks = raw.plan_flat_merge(config, str(out), False, False, options)
        Executor(tasks, math_device=options.device, storage_device="cpu").execute()

    return merge


def mean_error(files, out):
    """The largest difference of the written tensors from the mean of `files` in f64."""
    opened = [safe_open(file, framework="pt") for file in files]
    worst, missing = 0.0, set(opened[0].keys())
    for written in sorted(out.glob("*.safetensors")):
        with safe_open(written, framework="pt") as result:
            for name in result.keys():
                missing.discard(name)
                tensors = [file.get_tensor(name).double() for file in opened]
                gap = result.get_tensor(name) - sum(tensors) / len(tensors)
                worst = max(worst, gap.abs().max().item())
    if missing:
        raise SystemExit(f"{out}: expected all tensors of {files[0]}, {len(missing)} are missing")
    return worst


class Greedy:
    """A greedy soup by accuracy, with the sum of its members in memory.

    Memory: sum [D], the model's weights [D], one pass. Models stay in their files.
    """

    def __init__(self, model, zoo, inputs, labels, batch):
        self.model, self.zoo, self.batch = model, zoo, batch
        self.inputs, self.labels = inputs, labels
        parameters = dict(model.named_parameters())
        self.weights = [parameters[name].data for name in zoo.mixed]

    def score(self):
        """Correct answers of the model as it is."""
        right = 0
        for inputs, labels in zip(self.inputs.split(self.batch), self.labels.split(self.batch)):
            right += (self.model(inputs).logits.argmax(-1) == labels).sum().item()
        return right

    def rank(self):
        """Scores each model alone; returns scores, and models from best to worst."""
        scores = []
        for k in range(len(self.zoo)):
            for weight, tensor in zip(self.weights, self.zoo.tensors(k), strict=True):
                weight.copy_(tensor)
            scores.append(self.score())
        return scores, sorted(range(len(scores)), key=lambda k: -scores[k])

    def choose(self, scores, order):
        """Keeps each model with which the mean is no worse; returns members and their score."""
        members, best = [order[0]], scores[order[0]]
        total = [tensor.clone() for tensor in self.zoo.tensors(order[0])]
        for k in order[1:]:
            share = 1 / (len(members) + 1)
            for weight, held, tensor in zip(self.weights, total, self.zoo.tensors(k), strict=True):
                torch.add(held, tensor, out=weight).mul_(share)
            score = self.score()
            if score >= best:
                members, best = [*members, k], score
                for held, tensor in zip(total, self.zoo.tensors(k), strict=True):
                    held.add_(tensor)
        for held in total:
            held.div_(len(members))
        self.soup = total
        return members, best


def timed(call, *arguments):
    """What a call returns, and its seconds."""
    began = time.perf_counter()
    result = call(*arguments)
    return result, time.perf_counter() - began
