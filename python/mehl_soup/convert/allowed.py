"""The globals that checkpoints may name besides those that torch.load allows by itself.

None of them is used. A stand-in takes the place of each: it takes whatever arguments and state the
file gives, and keeps nothing. Only tensors go into the result, so nothing is lost; the classes need
not be installed; and a file can call no more code than torch's own restricted unpickler has.
"""

from typing import Any


class StandIn:
    """In place of an object of a file. `stands_for` is what users are told that it is."""

    stands_for = ""

    def __new__(cls, *_arguments: object) -> "StandIn":
        return super().__new__(cls)

    def __init__(self, *_arguments: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


class PlainDict:
    """In place of a subclass of dict: a dict, as the unpickler puts items into nothing else."""

    def __new__(cls, *_arguments: object) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


_OBJECTS = {
    # Options of a training script: timm's train.py, DeiT, MAE and DINO save their `args`.
    "argparse.Namespace": "argparse.Namespace",
    # `args` with a folder for output, as MAE has. Python 3.13 names the module otherwise.
    "pathlib.PosixPath": "path",
    "pathlib.WindowsPath": "path",
    "pathlib.PurePosixPath": "path",
    "pathlib.PureWindowsPath": "path",
    "pathlib._local.PosixPath": "path",
    "pathlib._local.WindowsPath": "path",
    "pathlib._local.PurePosixPath": "path",
    "pathlib._local.PureWindowsPath": "path",
    # Metrics of an evaluation: a scalar names `scalar` and `dtype`. NumPy 2 has `_core`, 1 `core`.
    "numpy._core.multiarray.scalar": "NumPy number",
    "numpy.core.multiarray.scalar": "NumPy number",
    "numpy.dtype": "NumPy type",
    # Arrays beside the model, such as the state of a random generator or a loss for each class.
    "numpy._core.multiarray._reconstruct": "NumPy array",
    "numpy.core.multiarray._reconstruct": "NumPy array",
    "numpy.ndarray": "NumPy array",
    # Lightning before 1.5 has the classes of callbacks as the keys of their states.
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": "Lightning callback",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": "Lightning callback",
}
_MAPPINGS = (
    # Hyperparameters that hold some of another module, and states that were saved as they are.
    # The class has moved: up to 1.9 it was Lightning's own, since 2.0 it is Fabric's.
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)


def _stand_in(meaning: str) -> type[StandIn]:
    return type("StandIn", (StandIn,), {"stands_for": meaning})


# As torch.serialization.safe_globals takes them: what to use, and for which name.
STAND_INS: list[tuple[type, str]] = [
    *((_stand_in(meaning), path) for path, meaning in _OBJECTS.items()),
    *((PlainDict, path) for path in _MAPPINGS),
]
