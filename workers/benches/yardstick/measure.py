"""Time, memory and what the machine is."""

import importlib.metadata
import os
import platform
import statistics
import threading
import time
from pathlib import Path

import safetensors
import torch
import transformers

# Between two looks at the process's memory.
INTERVAL_SECONDS = 0.005


def status(field):
    """A field of this process's status, in bytes."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise KeyError(field)


def anonymous():
    """Anonymous resident memory in bytes: what is not a page of a file."""
    return status(b"RssAnon:")


class Peak:
    """Within a `with`, the largest anonymous memory, looked at by another thread; on CUDA what the allocator gave out at most."""

    def __init__(self, device):
        self.device = device
        self.before = self.most = anonymous()
        self.done = threading.Event()

    def watch(self):
        while not self.done.wait(INTERVAL_SECONDS):
            self.most = max(self.most, anonymous())

    def __enter__(self):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.most = max(self.most, anonymous())
        self.done.set()
        self.thread.join()
        self.high_water = status(b"VmHWM:")
        self.device_most = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def keys(self):
        """Bytes: the most, what was there before, the most resident with pages of files, the most on the device."""
        return dict(
            peak_anonymous_bytes=self.most,
            anonymous_before_bytes=self.before,
            peak_resident_bytes=self.high_water,
            peak_device_bytes=self.device_most,
        )


class Clock:
    """Seconds of calls; on CUDA by events, so that the host may run ahead as it does in real use."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"
        self.spans = []

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def time(self, call):
        began = self.mark()
        call()
        self.spans.append((began, self.mark()))

    def seconds(self):
        if not self.cuda:
            return [end - began for began, end in self.spans]
        torch.cuda.synchronize()
        return [began.elapsed_time(end) / 1e3 for began, end in self.spans]


def keys(seconds, batch):
    """What is said of the seconds of iterations of `batch` samples."""
    median = statistics.median(seconds)
    return dict(
        timed_iterations=len(seconds),
        seconds_per_iteration=median,
        seconds_per_iteration_min=min(seconds),
        samples_per_second=batch / median,
    )


def in_turns(calls, device, rounds, times):
    """Seconds of each call, `times` in a row in each of `rounds` turns, so that whatever else the machine does meets all."""
    clocks = [Clock(device) for _ in calls]
    for _ in range(rounds):
        for call, clock in zip(calls, clocks):
            # What the turn before left in caches is not this call's.
            call()
            for _ in range(times):
                clock.time(call)
    return [clock.seconds() for clock in clocks]


def machine(device):
    """Processor, what it is good at, memory, and the GPU if that is where it runs."""
    cpu = Path("/proc/cpuinfo").read_text()
    field = lambda name: next((line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith(name)), "")
    telling = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"}
    return dict(
        cpu=field("model name"),
        cpu_family=field("cpu family"),
        cpu_model=field("model\t"),
        cores=len(os.sched_getaffinity(0)),
        flags=sorted(telling & set(field("flags").split())),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    )


def process_seconds():
    """Seconds since this process was started, imports among them."""
    # The 20th field after the name, which may hold spaces: the start, in ticks since boot.
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def versions(*others):
    """Of all that the numbers depend on, and of other packages."""
    return {name: importlib.metadata.version(name) for name in others} | dict(
        torch=torch.__version__,
        transformers=transformers.__version__,
        safetensors=safetensors.__version__,
        python=platform.python_version(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
    )
