"""Zoos and data that change while workers keep them open. A task never mixes two versions; the same
specification submitted again is computed with what is there by then, on the same workers."""

import json
import os
import shutil
import struct
import zlib

import pytest

from specs import long, short

TASK = "0001-mehl+"


@pytest.fixture
def own(ground, tmp_path):
    """A copy of the demo's zoo and data that the test may change."""
    shutil.copytree(ground.demo, tmp_path / "own")
    return tmp_path / "own"


def done(pool, sweep):
    """How a sweep ended, with the causes of tasks that failed."""
    ended = pool.end_of(sweep)
    tasks = pool.tasks(sweep).values()
    return ended["outcome"], [task["cause"] for task in tasks if task["cause"]]


def replace(file, change):
    """Writes a changed copy beside a file, and puts it in the file's place."""
    content = bytearray(file.read_bytes())
    change(content)
    beside = file.with_suffix(".new")
    beside.write_bytes(content)
    os.replace(beside, file)


def flip(content):
    content[-5] ^= 1


def ingredients(pool, sweep):
    return pool.get(f"/v1/sweeps/{sweep}/results")["ingredients"]


def test_an_ingredient_is_replaced_in_a_task(new_pool, own):
    pool = new_pool()
    pool.scheduler()
    worker = pool.worker(roots=own)
    text = long(own)
    running = pool.submit(text)
    pool.until_computing(running, TASK, worker)
    replace(own / "zoo/run-01/model.safetensors", flip)
    outcome, causes = done(pool, running)
    assert outcome == "failed" and causes
    assert all("zoo changed" in cause for cause in causes), causes
    # As its owner submits it again, on the same worker.
    assert done(pool, pool.submit(text)) == ("done", [])
    pool.assert_alive()


def test_an_ingredient_is_replaced_between_two_sweeps(new_pool, own):
    pool = new_pool()
    pool.scheduler()
    pool.worker(roots=own)
    first = pool.submit(short(own))
    assert done(pool, first) == ("done", [])
    replace(own / "zoo/run-01/model.safetensors", flip)
    second = pool.submit(short(own))
    assert done(pool, second) == ("done", [])
    hashes = [[one["hash"] for one in ingredients(pool, sweep)] for sweep in (first, second)]
    changed = [old != new for old, new in zip(*hashes)]
    assert changed == [False, True, False, False]


def test_an_ingredient_is_touched(new_pool, own):
    pool = new_pool()
    pool.scheduler()
    pool.worker(roots=own)
    first = pool.submit(short(own))
    assert done(pool, first) == ("done", [])
    os.utime(own / "zoo/run-02/model.safetensors")
    second = pool.submit(short(own))
    assert done(pool, second) == ("done", [])
    assert ingredients(pool, first) == ingredients(pool, second)


def test_an_ingredient_is_added(new_pool, own):
    pool = new_pool()
    pool.scheduler()
    pool.worker(roots=own)
    first = pool.submit(short(own))
    assert done(pool, first) == ("done", [])
    shutil.copytree(own / "zoo/run-03", own / "zoo/run-04")
    replace(own / "zoo/run-04/model.safetensors", flip)
    second = pool.submit(short(own))
    assert done(pool, second) == ("done", [])
    names = [one["name"] for one in ingredients(pool, second)]
    assert names == [f"run-0{number}" for number in range(5)]


def test_a_data_file_is_replaced(new_pool, own):
    pool = new_pool()
    pool.scheduler()
    pool.worker(roots=own)
    first = pool.submit(short(own))
    assert done(pool, first) == ("done", [])
    replace(own / "data/select.safetensors", last_input)
    second = pool.submit(short(own))
    assert done(pool, second) == ("done", [])
    # A specification that no worker has seen is computed with what is there.
    fresh = pool.submit(short(own).replace("digits", "others"))
    assert done(pool, fresh) == ("done", [])
    assert scores(pool, second) == scores(pool, fresh) != scores(pool, first)


def test_a_folder_of_images_changes(new_pool, own, tmp_path):
    pool = new_pool()
    pool.scheduler()
    pool.worker(roots=tmp_path)
    images = tmp_path / "images"
    for label in range(10):
        (images / str(label)).mkdir(parents=True)
        for number in range(8):
            digit(images / str(label) / f"{number}.png", label, number)
    text = short(own, learn=images, select=images)
    first = pool.submit(text)
    assert done(pool, first) == ("done", [])
    for label in range(10):
        digit(images / str(label) / "more.png", label, 9)
    second = pool.submit(text)
    assert done(pool, second) == ("done", [])
    samples = [baseline_samples(pool, sweep) for sweep in (first, second)]
    assert samples == [80, 90]


def last_input(content):
    """Makes the last input of a tensor file a little larger."""
    (length,) = struct.unpack_from("<Q", content)
    end = 8 + length + json.loads(content[8 : 8 + length])["inputs"]["data_offsets"][1]
    (value,) = struct.unpack_from("<f", content, end - 4)
    struct.pack_into("<f", content, end - 4, value + 1)


def scores(pool, sweep):
    return [one["select"] for one in ingredients(pool, sweep)]


def baseline_samples(pool, sweep):
    return pool.get(f"/v1/sweeps/{sweep}/results")["baselines"]["best"]["learn"]["samples"]


def digit(file, label, number):
    """Writes an 8 x 8 grey PNG."""
    rows = b"".join(
        b"\0" + bytes((label * 25 + row * column * number) % 256 for column in range(8))
        for row in range(8)
    )

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
