"""torchvision's loader, for `mehl-soup-worker bench`, which starts this and tells it by lines on stdin when to do an epoch.

    torchvision_loader.py FOLDER IMAGES WORKERS BATCH

Makes FOLDER with IMAGES JPEGs (500 x 375, 4:2:0, quality 90, as smooth and as sharp as photographs) in ten class folders if it is not there, says
`ready`, and answers each line `epoch` with the seconds of one pass: ImageFolder, Resize(256), CenterCrop(224), ToTensor, Normalize, DataLoader with
WORKERS persistent workers. Needs the packages of `../tests/fixtures/requirements.txt`.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import datasets, transforms

HEIGHT, WIDTH, CLASSES = 375, 500, 10


def photograph(seed):
    """Smooth fields, edges and grain; some 60 kB as a JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH
    image = np.zeros((HEIGHT, WIDTH, 3))
    for channel in range(3):
        field = 0.45 + 0.2 * x - 0.1 * y
        for scale in (2, 5, 15, 40):
            fx, fy = rng.normal(0, scale, 2)
            field += 0.25 / scale**0.5 * np.sin(2 * np.pi * (fx * x + fy * y) + rng.uniform(0, 6.3))
        image[..., channel] = field
    for _ in range(25):
        cy, cx, radius = rng.uniform(0, 0.75), rng.uniform(0, 1), rng.uniform(0.01, 0.15)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        image[inside] = 0.5 * image[inside] + 0.5 * rng.uniform(0, 1, 3)
    image += rng.normal(0, 0.02, (HEIGHT, WIDTH, 1)) + rng.normal(0, 0.01, image.shape)
    return Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))


def make(folder, count):
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for i in range(count):
        path = partial / f"class{i % CLASSES}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(i).save(path, quality=90, subsampling=2)
    partial.rename(folder)


def main():
    folder, (count, workers, batch) = Path(sys.argv[1]), map(int, sys.argv[2:5])
    if not folder.exists():
        make(folder, count)
    # As DataLoader's workers do; the process that collects has little else to do.
    torch.set_num_threads(workers)
    transform = transforms.Compose([
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])
    data = datasets.ImageFolder(str(folder), transform)
    loader = torch.utils.data.DataLoader(data, batch_size=batch, num_workers=workers, persistent_workers=True)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        seen = sum(len(labels) for _, labels in loader)
        seconds = time.perf_counter() - began
        assert seen == count, f"expected {count} images, found {seen}"
        print(seconds, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
