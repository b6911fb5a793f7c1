"""Zoos and data that are written here: a ViT of random weights, and the first rows of a tensor file."""

import json

import numpy
from safetensors.numpy import load_file, save_file

WIDTH, BLOCKS, SIDE, PATCH, CLASSES = 256, 8, 64, 16, 10


def shapes():
    """Tensors of Hugging Face's ViTForImageClassification, by name."""
    hidden = {"weight": (WIDTH,), "bias": (WIDTH,)}
    found = {
        "vit.embeddings.cls_token": (1, 1, WIDTH),
        "vit.embeddings.position_embeddings": (1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        "vit.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
        "vit.embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "classifier.weight": (CLASSES, WIDTH),
        "classifier.bias": (CLASSES,),
    }
    linear = {f"attention.attention.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    linear |= {"attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (4 * WIDTH, WIDTH), "output.dense": (WIDTH, 4 * WIDTH)}
    for block in range(BLOCKS):
        prefix = f"vit.encoder.layer.{block}"
        for name, shape in linear.items():
            found[f"{prefix}.{name}.weight"], found[f"{prefix}.{name}.bias"] = shape, shape[:1]
        for norm in ("layernorm_before", "layernorm_after"):
            found |= {f"{prefix}.{norm}.{part}": shape for part, shape in hidden.items()}
    return found | {f"vit.layernorm.{part}": shape for part, shape in hidden.items()}


def elements():
    """D."""
    return sum(int(numpy.prod(shape)) for shape in shapes().values())


def vit_zoo(folder, ingredients):
    """`folder`/zoo/k000 and so on: a base, and noise of a tenth of its size. `folder`/data/{learn,select}.safetensors: 64 images of noise."""
    config = dict(
        architectures=["ViTForImageClassification"], model_type="vit", hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=4,
        intermediate_size=4 * WIDTH, image_size=SIDE, patch_size=PATCH, num_channels=3, hidden_act="gelu", qkv_bias=True, layer_norm_eps=1e-6,
        id2label={str(i): f"class {i}" for i in range(CLASSES)}, label2id={f"class {i}": i for i in range(CLASSES)},
    )  # fmt: skip
    random = numpy.random.default_rng(0)
    base = {name: random.normal(0, 0.02, shape).astype("f4") for name, shape in shapes().items()}
    base |= {name: tensor + 1 for name, tensor in base.items() if "layernorm" in name and name.endswith("weight")}
    for k in range(ingredients):
        path = folder / f"zoo/k{k:03}"
        if (path / "model.safetensors").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(config, indent=1))
        random = numpy.random.default_rng([1, k])
        noisy = {name: tensor + random.normal(0, 0.002, tensor.shape).astype("f4") for name, tensor in base.items()}
        write(path / "model.safetensors", noisy)
    (folder / "data").mkdir(exist_ok=True)
    for index, split in enumerate(("learn", "select")):
        random = numpy.random.default_rng([2, index])
        images = random.normal(0, 1, (64, 3, SIDE, SIDE)).astype("f4")
        write(folder / f"data/{split}.safetensors", dict(inputs=images, labels=numpy.arange(64) % CLASSES))
    return folder


def first_rows(source, rows):
    """`learn-50.safetensors` beside `learn.safetensors`, with its first rows; returns its path from the zoo's folder."""
    path = source.with_name(f"{source.stem}-{rows}.safetensors")
    if not path.exists():
        write(path, {name: tensor[:rows].copy() for name, tensor in load_file(source).items()})
    return f"{path.parent.name}/{path.name}"


def write(path, tensors):
    """Under a temporary name, then renamed."""
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.rename(path)
