"""Exports of miniature models as their libraries save them, and what is refused."""

import json
import sys
import types
import zipfile

import pytest
import timm
import torch
import transformers
from blake3 import blake3
from conftest import CLASS_NAMES, command, dinov2
from safetensors.torch import load_file, save_file

from mehl_soup.export import InputError, Options, export
from mehl_soup.export import graph as graphs


def efficientnet(folder):
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=3)
    # Statistics that are not those of a fresh model.
    for layer in graphs.norms(model).values():
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


def loaded(folder, weights):
    """The graph of an export, with the tensors of a weights file."""
    description = json.loads((folder / "export.json").read_text())
    tensors = load_file(weights)
    values = {own: tensors[disk] for own, disk in description["tensors"].items()}
    return graphs.loaded((folder / "graph.pt").read_bytes(), values), description


def test_a_model_of_transformers(tmp_path):
    zoo = dinov2(tmp_path / "zoo")
    done = command("export", zoo, "--out", "exported", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "exported\n"), done.stderr
    graph, description = loaded(tmp_path / "exported", zoo / "model.safetensors")
    assert description["class_names"] == CLASS_NAMES
    assert set(description["tensors"].values()) == load_file(zoo / "model.safetensors").keys()
    model = transformers.Dinov2ForImageClassification.from_pretrained(zoo).eval()
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(graph(images), model(images).logits, atol=1e-6)
    # A graph holds no weights.
    assert (tmp_path / "exported" / "graph.pt").stat().st_size < 1 << 20
    sums = dict(
        reversed(line.split("  "))
        for line in (tmp_path / "exported/BLAKE3SUMS").read_text().splitlines()
    )
    assert sums.keys() == {"export.json", "graph.pt"}
    for name, digest in sums.items():
        assert blake3((tmp_path / "exported" / name).read_bytes()).hexdigest() == digest
    assert sums["graph.pt"] in done.stderr
    # Nothing in it depends on where Python's files are, or on the lines of them.
    with zipfile.ZipFile(tmp_path / "exported" / "graph.pt") as archive:
        parts = archive.namelist()
    assert not [name for name in parts if name.endswith((".debug_pkl", "serialization_id"))]


def test_batch_normalisation(tmp_path):
    zoo = efficientnet(tmp_path / "zoo")
    done = export(zoo, tmp_path / "exported")
    assert done.largest_difference <= 1e-5
    graph, description = loaded(tmp_path / "exported", zoo / "model.safetensors")
    model = timm.create_model(f"local-dir:{zoo}", pretrained=True).train()
    # timm's dropout is 0 here, so that training mode changes normalisation alone.
    for layer in graphs.norms(model).values():
        layer.momentum = 1.0
    images = torch.randn(4, 3, 64, 64)
    before = {name: tensor.clone() for name, tensor in graph.named_parameters()}
    with torch.no_grad():
        expected = model(images)
        assert torch.allclose(graph.learn(images), expected, atol=1e-5)
        assert all(torch.equal(before[name], tensor) for name, tensor in graph.named_parameters())
        assert torch.allclose(graph.collect(images), expected, atol=1e-5)
    own, state = dict(graph.named_parameters()), model.state_dict()
    assert len(description["statistics"]) == 2 * len(graphs.norms(model))
    disk = {name: own_name for own_name, name in description["tensors"].items()}
    for name in description["statistics"]:
        assert torch.allclose(own[disk[name]], state[name], atol=1e-5), name


def test_a_function(tmp_path, monkeypatch):
    source = """
import torch
def make(width, p=0.0, training=False):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.GELU())
            self.head = torch.nn.Linear(width, 3)
        def forward(self, x):
            return self.head(torch.nn.functional.dropout(self.body(x), p, training=training))
    return Net()
"""
    (tmp_path / "nets.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import nets

    # As DistributedDataParallel names them.
    state = {f"module.{name}": tensor for name, tensor in nets.make(8).state_dict().items()}
    save_file(state, tmp_path / "one.safetensors")
    save_file({"inputs": torch.randn(6, 4)}, tmp_path / "data.safetensors")
    chosen = {"ingredient": tmp_path / "one.safetensors", "example": tmp_path / "data.safetensors"}
    done = export("nets:make", tmp_path / "exported", Options(arguments={"width": 8}, **chosen))
    assert set(done.description["tensors"].values()) == state.keys()
    with pytest.raises(InputError, match="other logits each time; dropout is on"):
        arguments = {"width": 8, "p": 0.5, "training": True}
        export("nets:make", tmp_path / "other", Options(arguments=arguments, **chosen))
    with pytest.raises(InputError, match="size mismatch"):
        export("nets:make", tmp_path / "other", Options(arguments={"width": 9}, **chosen))
    with pytest.raises(InputError, match="--arguments"):
        export("nets:make", tmp_path / "other", Options(**chosen))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_bf16(tmp_path, monkeypatch, dtype):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(4, 8)
            self.norm = torch.nn.BatchNorm1d(8)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, x):
            x = self.norm(self.first(x)).relu()
            # Made in one dtype, whatever the parameters have.
            return self.head(x @ torch.ones(8, 8, dtype=dtype or x.dtype))

    nets = types.ModuleType("nets_of_a_test")
    nets.make = Net
    monkeypatch.setitem(sys.modules, nets.__name__, nets)
    save_file(Net().state_dict(), tmp_path / "one.safetensors")
    save_file({"inputs": torch.randn(6, 4)}, tmp_path / "data.safetensors")
    options = Options(
        ingredient=tmp_path / "one.safetensors", example=tmp_path / "data.safetensors"
    )
    done = export("nets_of_a_test:make", tmp_path / "exported", options)
    notes = [note for note in done.notes if "bf16" in note]
    if dtype is None:
        in_f32 = [f"norm.{name}" for name in ("bias", "running_mean", "running_var", "weight")]
        assert (done.description["bf16"], notes) == ({"in_f32": in_f32}, [])
    else:
        assert done.description["bf16"] is None
        assert "same dtype" in notes[0]


def changed_config(**fields):
    def change(folder):
        dinov2(folder)
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return change


def without_a_tensor(folder):
    dinov2(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder):
    dinov2(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def sentence_transformer(folder):
    dinov2(folder)
    (folder / "modules.json").write_text("[]")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (changed_config(architectures=["Dinov2Model"]), "no logits"),
        (changed_config(architectures=["NoSuchModel"]), "has no class NoSuchModel"),
        (changed_config(architectures=[]), "expected `architectures`"),
        (changed_config(auto_map={"AutoModelForX": "code.X"}), "--trust-remote-code"),
        (without_a_tensor, "In memory: classifier.bias"),
        (pickled, "mehl_soup convert"),
        (sentence_transformer, "sentence-transformers cannot load it"),
        (lambda folder: folder.mkdir(), "has no config.json"),
    ],
)
def test_refused_folders(tmp_path, make, says):
    make(tmp_path / "zoo")
    done = command("export", "zoo", "--out", "exported", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "exported").exists()


def test_what_is_in_the_way(tmp_path):
    zoo = dinov2(tmp_path / "zoo")
    export(zoo, tmp_path / "exported")
    with pytest.raises(InputError, match="already exists"):
        export(zoo, tmp_path / "exported")
    export(zoo, tmp_path / "exported", Options(overwrite=True))
    with pytest.raises(InputError, match="no export"):
        export(zoo, zoo, Options(overwrite=True))
