"""Reads a checkpoint with torch's restricted unpickler, and in no other way."""

import pickle
import re
import warnings
from pathlib import Path

import torch

from mehl_soup.convert.allowed import STAND_INS
from mehl_soup.convert.kinds import Kind, kind_of
from mehl_soup.errors import InputError, shown


def load(file: Path) -> object:
    """What is in a checkpoint, on the CPU. Other objects than tensors may be stand-ins."""
    kind = kind_of(file)
    with warnings.catch_warnings(), torch.serialization.safe_globals(list(STAND_INS)):
        # They address authors of training scripts (old storages, pickle protocols).
        warnings.simplefilter("ignore")
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=kind is Kind.ZIP)
        except (MemoryError, OSError):
            raise
        except pickle.UnpicklingError as error:
            raise InputError(f"{shown(file)}: {_reason(str(error))}") from error
        # A damaged file can end the reader with any error.
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise InputError(
                f"{shown(file)}: the checkpoint is damaged or incomplete ({shown(lines[0])})"
            ) from error


def _reason(message: str) -> str:
    """Why the unpickler refuses, without torch's advice to switch the restriction off."""
    # "Unsupported global: GLOBAL a.b was not", "unsupported GLOBAL os.system whose module"
    if named := re.search(r"GLOBAL (\S+) (?:was|whose)", message):
        return (
            f"the checkpoint contains {shown(named[1])} besides tensors. Pickles can run code, so "
            "such objects are not created. If you trust the file, load it in Python, save "
            "`model.state_dict()` with torch.save, and convert that"
        )
    if protocol := re.search(r"Unsupported operand \d+", message):
        return (
            f"its pickle has another protocol than torch.save writes ({protocol[0]}). If you trust "
            "the file, load it in Python, and save it again with torch.save"
        )
    detail = re.search(r"WeightsUnpickler error: (.*)", message)
    return (
        "torch refuses to unpickle the checkpoint without running code "
        f"({shown(detail[1] if detail else message.splitlines()[0])}). If you trust the file, "
        "load it in Python, save `model.state_dict()` with torch.save, and convert that"
    )
