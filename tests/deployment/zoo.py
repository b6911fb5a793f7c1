"""Small zoos of digits, made by the program under test, once a session."""

import gzip
import json
import os
import random
import shutil
import struct
import subprocess
import zlib

import adapt
import helm

INGREDIENTS, SAMPLES, IMAGES = 4, 64, 12
EXPORTED = helm.ROOT / "workers" / "tests" / "fixtures" / "exported" / "renamed"
LIMIT = 300


def make(programs, folder):
    """`demo`: what the worker's image has in /usr/share/mehl-soup/demo. `images`: a zoo and image
    folders in the same shape.
    `volume`: what the claim `zoo` holds in the values of the chart's ci folder, with `any`, a zoo of
    an architecture that is not native, with its exported graph."""
    demo, images, volume = folder / "demo", folder / "images", folder / "volume"
    _made(programs, demo)
    for name in ("learn", "select", "test"):
        _cut(demo / "data" / f"{name}.safetensors", SAMPLES)
    sweep = demo / "sweep.toml"
    sweep.write_text(sweep.read_text().replace("inner_epochs = 15", "inner_epochs = 1"))
    _pictures(folder / "pictures")
    _made(programs, images, "--images", folder / "pictures", "--image-size", "8")
    shutil.copytree(demo, volume)
    shutil.copytree(images / "zoo", volume / "vit-b-32")
    exported(volume / "any")
    return demo, images, volume


def exported(folder, source=EXPORTED):
    """A zoo whose graph was exported, with random data."""
    for part in ("zoo", "exported"):
        # Not with the files' modes: the pools' user is another.
        shutil.copytree(source / part, folder / part, copy_function=shutil.copyfile)
    (folder / "data").mkdir()
    for seed, part in enumerate(("learn", "select", "test")):
        draw, n = random.Random(seed), 24
        values = [draw.gauss(0, 1) for _ in range(n * 3 * 16 * 16)]
        tensors = {
            "inputs": ("F32", [n, 3, 16, 16], struct.pack(f"<{len(values)}f", *values)),
            "labels": ("I64", [n], struct.pack(f"<{n}q", *(draw.randrange(3) for _ in range(n)))),
        }
        _save(folder / "data" / f"{part}.safetensors", tensors)


def graph_hash(folder):
    """The hash that the list of a worker needs."""
    lines = (folder / "exported" / "BLAKE3SUMS").read_text().splitlines()
    (found,) = [line.split()[0] for line in lines if line.endswith("  graph.pt")]
    return found


def _made(programs, target, *flags):
    command = [
        programs / "mehl-soup",
        "demo",
        "--make-zoo",
        target,
        "--ingredients",
        str(INGREDIENTS),
        "--epochs",
        "4..4",
        "--base-epochs",
        "40",
        *flags,
    ]
    done = subprocess.run(
        command,
        env={**os.environ, **adapt.SHARED_CORES},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(target / "base")


def _cut(file, samples):
    """Keeps the first samples of each tensor of a safetensors file."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, tensor in json.loads(data[8 : 8 + length]).items():
        begin, end = (8 + length + offset for offset in tensor["data_offsets"])
        rows, *shape = tensor["shape"]
        part = data[begin : begin + (end - begin) // rows * samples]
        tensors[name] = (tensor["dtype"], [samples, *shape], part)
    _save(file, tensors)


def _save(file, tensors):
    """A safetensors file of tensors by name: dtype, shape, bytes."""
    header, body = {}, b""
    for name, (dtype, shape, data) in tensors.items():
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _pictures(folder):
    """The first digits of each class as PNG files, in a folder for each class."""
    rows = (
        gzip.decompress((helm.ROOT / "workers" / "data" / "optdigits.csv.gz").read_bytes())
        .decode()
        .split()
    )
    counts = dict.fromkeys("0123456789", 0)
    for row in rows:
        *pixels, digit = row.split(",")
        if digit in counts and len(pixels) == 64 and counts[digit] < IMAGES:
            counts[digit] += 1
            file = folder / digit / f"{counts[digit]:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_png([min(255, int(one) * 16) for one in pixels], 8))
    assert set(counts.values()) == {IMAGES}


def _png(pixels, side):
    """A grey image."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    lines = b"".join(b"\0" + bytes(pixels[at : at + side]) for at in range(0, side * side, side))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
