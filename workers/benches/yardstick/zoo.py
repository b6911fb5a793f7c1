"""Models, zoos and data: made up, and read the way that a lean script reads them."""

import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/fixtures"))
import fixture

CONFIGURATIONS = {
    "vit-b-32": dict(image_size=224, patch_size=32, num_labels=1000),
    "tiny": dict(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_labels=10,
    ),
}
# Of a model's noise to its base's values, which are drawn with a standard deviation of 0.02.
NOISE = 0.002
# Pixels of whole numbers become (value / 255 - MEAN) / STD.
MEAN, STD = 0.5, 0.5


def configuration(source):
    """By name, or that of a folder's ingredients."""
    known = CONFIGURATIONS.get(str(source))
    config = transformers.ViTConfig(**known) if known else transformers.ViTConfig.from_pretrained(source)
    config._attn_implementation = "sdpa"
    return config


def empty_model(config):
    """The model without memory for its weights; there is no dropout."""
    with torch.device("meta"):
        model = transformers.ViTForImageClassification(config).eval()
    assert not list(model.buffers()), "a buffer would have no values"
    return model


def names_on_disk(config):
    """Names of parameters in memory, in the model's order, to those in the files. They are those of a twin as small as it will go."""
    sizes = dict(hidden_size=8, intermediate_size=8, num_attention_heads=1, image_size=8, patch_size=8, num_labels=2)
    twin = transformers.ViTForImageClassification(transformers.ViTConfig(**{**config.to_dict(), **sizes}))
    fixture.randomise(twin, torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        twin.save_pretrained(folder)
        return fixture.names_on_disk(twin, Path(folder) / "model.safetensors")


def model_files(folder, k):
    """The first `k` model files below `folder`/zoo, by name."""
    files = sorted((folder / "zoo").glob("*/model.safetensors"))[:k]
    if not files or k and len(files) < k:
        sys.exit(f"{folder}/zoo: expected {k or 'some'} ingredients, found {len(files)}")
    return files


class Zoo:
    """Model folders below `folder`/zoo, in the order of their names."""

    def __init__(self, folder, k, device):
        self.device = device
        self.folders = [file.parent for file in model_files(folder, k)]
        self.config = configuration(self.folders[0])
        disk = names_on_disk(self.config)
        shapes = {name: parameter.shape for name, parameter in empty_model(self.config).named_parameters()}
        self.frozen = [name for name in disk if self.is_frozen(disk[name])]
        # In the order of the names on disk, which is that of the coefficients' columns.
        self.mixed = sorted((name for name in disk if name not in self.frozen), key=disk.get)
        self.disk, self.shapes = disk, shapes
        self.sizes = [shapes[name].numel() for name in self.mixed]
        # Softmax ignores a key's bias: its gradient is rounding noise, which AdamW would blow up.
        self.masked = [disk[name].endswith(".key.bias") for name in self.mixed]

    def __len__(self):
        return len(self.folders)

    def is_frozen(self, name):
        """Whether a tensor is the same in all ingredients."""
        first, *others = (self.tensors(k, [name]) for k in range(len(self)))
        first = next(first)
        return all(torch.equal(first, next(other)) for other in others)

    def tensors(self, k, disk_names=None):
        """Yields an ingredient's tensors, those that are mixed if not told otherwise: pages of the file, no copies."""
        with safe_open(self.folders[k] / "model.safetensors", framework="pt") as file:
            for name in disk_names or [self.disk[name] for name in self.mixed]:
                yield file.get_tensor(name)

    def fixed(self, dtype):
        """The tensors that are not mixed, by name in memory."""
        read = self.tensors(0, [self.disk[name] for name in self.frozen]) if self.frozen else ()
        return {name: tensor.to(self.device, dtype) for name, tensor in zip(self.frozen, read)}


class Data:
    """Batches of learn data in seeded order. Whole numbers stay so until they are on the device."""

    def __init__(self, folder, batch, seed, device, dtype):
        file = load_file(folder / "learn.safetensors")
        self.inputs, self.labels = file["inputs"].to(device), file["labels"].to(device)
        self.batch, self.device, self.dtype = min(batch, len(self.labels)), device, dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.rows = iter(())

    def __len__(self):
        """Batches of an epoch."""
        return -(-len(self.labels) // self.batch)

    def next(self):
        """Inputs and labels of the next batch; after the last one an epoch begins anew."""
        rows = next(self.rows, None)
        if rows is None:
            order = torch.randperm(len(self.labels), generator=self.generator).to(self.device)
            self.rows = iter(order.split(self.batch))
            rows = next(self.rows)
        inputs = self.inputs[rows]
        if not inputs.is_floating_point():
            return inputs.to(self.dtype).div_(255 * STD).sub_(MEAN / STD), self.labels[rows]
        return inputs.to(self.dtype), self.labels[rows]


def make(out, model, k, samples, whole_numbers, seed, say):
    """Writes `zoo/kNNN/` as transformers does, and `learn.safetensors`: whatever is there already stays."""
    torch.manual_seed(seed)
    config = configuration(model)
    base = transformers.ViTForImageClassification(config)
    original = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    for i in range(k):
        folder = out / f"zoo/k{i:03}"
        if (folder / "model.safetensors").exists():
            continue
        say(f"making {folder}")
        generator = torch.Generator().manual_seed(seed * 1_000_003 + i)
        with torch.no_grad():
            for name, tensor in base.state_dict().items():
                noise = torch.randn(tensor.shape, generator=generator).mul_(NOISE)
                tensor.copy_(noise.add_(original[name]))
        partial = folder.with_name(folder.name + ".partial")
        base.save_pretrained(partial)
        partial.rename(folder)
    data = out / "learn.safetensors"
    if not data.exists():
        say(f"making {data}")
        generator = torch.Generator().manual_seed(seed)
        shape = (samples, config.num_channels, config.image_size, config.image_size)
        inputs = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        if not whole_numbers:
            inputs = inputs.float().div_(255 * STD).sub_(MEAN / STD)
        labels = torch.randint(0, config.num_labels, (samples,), generator=generator)
        save_file(dict(inputs=inputs, labels=labels), data)
