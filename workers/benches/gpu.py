"""The benchmark of a GPU: 72 ViT-B/32, 26,000 images of 224 px, five epochs, beside PyTorch on the same card.

    python workers/benches/gpu.py --program target/release/mehl-soup --out DIR [--lines FILE]

Makes a zoo and images below DIR (18 GB), then runs each step in a process of its own, one after the other. Prints what was found as JSON, and appends it to FILE.
Needs torch with CUDA, transformers, pillow; a program that was built without CUDA finds libtorch's CUDA part by LD_LIBRARY_PATH. --k, --samples and --steps make it smaller.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

YARDSTICK = Path(__file__).resolve().parent / "yardstick"
SELECT = 256
CLASSES = 100


def say(message):
    print(message, file=sys.stderr, flush=True)


def make_zoo(out, k, device):
    """ViT-B/32 with random weights in bf16, as transformers writes them."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    sys.path.insert(0, str(YARDSTICK))
    import zoo

    torch.manual_seed(0)
    config = zoo.configuration("vit-b-32")
    config.id2label = {i: f"{i:03}" for i in range(CLASSES)}
    config.label2id = {name: i for i, name in config.id2label.items()}
    base = transformers.ViTForImageClassification(config)
    base.save_pretrained(out / "base")
    original = {name: tensor.to(device) for name, tensor in load_file(out / "base/model.safetensors").items()}

    def write(folder, tensors):
        folder.mkdir(parents=True)
        shutil.copy(out / "base/config.json", folder)
        preprocessor = dict(do_resize=True, do_rescale=True, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3)
        preprocessor |= dict(image_processor_type="ViTImageProcessor", rescale_factor=1 / 255, size=dict(height=224, width=224))
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        save_file(tensors, folder / "model.safetensors", metadata=dict(format="pt"))

    with ThreadPoolExecutor(8) as pool:
        writing = []
        for i in range(k):
            noisy = lambda tensor: tensor.add(torch.randn_like(tensor), alpha=zoo.NOISE).bfloat16().cpu()
            tensors = {name: noisy(tensor) for name, tensor in original.items()}
            writing.append(pool.submit(write, out / f"zoo/k{i:03}", tensors))
            if len(writing) > 8:
                writing.pop(0).result()
        for job in writing:
            job.result()


def make_images(folder, begin, end):
    """JPEG files of coarse random patterns, a folder a class."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(begin)
    for i in range(begin, end):
        to = folder / f"{i % CLASSES:03}"
        to.mkdir(parents=True, exist_ok=True)
        pattern = random.integers(0, 256, (14, 14, 3), dtype=numpy.uint8)
        Image.fromarray(pattern).resize((224, 224), Image.BILINEAR).save(to / f"{i:05}.jpg", quality=90)


def make(arguments):
    """Whatever is there already stays."""
    import torch
    from safetensors.torch import save_file

    out = arguments.out
    if (out / "made").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    n = arguments.samples
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(make_images, out / "images/learn", i, min(n, i + 500)) for i in range(0, n, 500)]
        jobs.append(pool.submit(make_images, out / "images/select", n, n + SELECT))
        # Before CUDA is touched, which does not survive a fork.
        for job in jobs:
            job.result()
    make_zoo(out, arguments.k, arguments.device)
    inputs = torch.randint(0, 256, (n, 3, 224, 224), dtype=torch.uint8)
    save_file(dict(inputs=inputs, labels=torch.arange(n) % CLASSES), out / "learn.safetensors")
    (out / "made").touch()


def ours(arguments, name, soup, memory=None):
    """One task of this program; what it wrote of it."""
    out = arguments.out
    specification = out / f"{name}.toml"
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in soup.items())
    specification.write_text(
        f'name = "{name}"\n[zoo]\ningredients = ["zoo/*"]\n'
        f'[data]\nlearn = "images/learn"\nselect = "images/select"\n'
        f"[soup]\nbatch = {arguments.batch}\nearly_stopping = false\n{lines}\n"
        f'[compute]\ndevices = ["{arguments.device}"]\n'
        + (f'memory = "{memory}"\n' if memory else "")
    )
    environment = dict(os.environ, XDG_CACHE_HOME=str(out / "cache"))
    plan = subprocess.run(
        [arguments.program, "plan", specification, "--format", "json"], env=environment, stdout=subprocess.PIPE, text=True
    ).stdout
    run = out / f"run-{name}"
    shutil.rmtree(run, ignore_errors=True)
    began = time.perf_counter()
    subprocess.run([arguments.program, "run", specification, "--out", run], env=environment, check=True, stdout=sys.stderr)
    wall = time.perf_counter() - began
    rows = json.loads((run / "results.json").read_text())["tasks"]
    row = next(row for row in rows if row["method"] == soup["method"])
    learning = row["iterations"] * arguments.batch / row["samples_per_second"]
    keys = ["iterations", "samples_per_second", "seconds", "peak_device_bytes", "peak_host_bytes", "model_batch", "dtype"]
    plan = json.loads(plan) if plan.strip() else None
    return {key: row[key] for key in keys} | dict(learning_seconds=learning, wall_seconds=wall, plan=plan)


def yardstick(arguments, *command):
    command = [sys.executable, YARDSTICK, *command, "--zoo", arguments.out, "--device", arguments.device]
    command += ["--batch", str(arguments.batch), "--timed", str(arguments.timed)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lines", type=Path)
    parser.add_argument("--k", type=int, default=72)
    parser.add_argument("--samples", type=int, default=26_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cuda", help="cpu is for trying this out")
    parser.add_argument("--timed", type=int, default=50, help="iterations of each of three turns of a script")
    parser.add_argument("--epochs", type=int, default=5)
    steps = ["bare-bf16", "bare-f32", "int4", "bf16", "script"]
    parser.add_argument("--steps", nargs="*", default=steps, choices=steps)
    arguments = parser.parse_args()
    began = time.perf_counter()
    make(arguments)
    say(f"made in {time.perf_counter() - began:.0f} s")
    b = max(1, arguments.k // 4)
    what = {
        "bare-bf16": lambda: yardstick(arguments, "bare", "--dtype", "bf16"),
        "bare-f32": lambda: yardstick(arguments, "bare", "--dtype", "f32"),
        "int4": lambda: ours(
            arguments, "int4", dict(method="hl+", direction_dtype="int4", inner_epochs=arguments.epochs)
        ),
        "bf16": lambda: ours(
            arguments,
            "bf16",
            dict(method="mehl+", direction_dtype="bf16", model_batch=b, inner_epochs=1, outer_epochs=1),
            "8GB",
        ),
        "script": lambda: yardstick(
            arguments, "mehl+", "--k", str(arguments.k), "--b", str(b), "--iterations", "20", "--dtype", "f32"
        ),
    }
    for step in arguments.steps:
        began = time.perf_counter()
        try:
            found = what[step]()
        except (subprocess.CalledProcessError, OSError, KeyError, ValueError, StopIteration) as error:
            found = dict(failed=repr(error))
        line = dict(step=step, k=arguments.k, batch=arguments.batch, samples=arguments.samples, found=found)
        say(f"{step}: {time.perf_counter() - began:.0f} s")
        print(json.dumps(line), flush=True)
        if arguments.lines:
            with arguments.lines.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
