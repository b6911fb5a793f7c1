"""What is taken off the names of tensors, and when they are left."""

import pytest
import torch
from conftest import assert_same, state, under

from mehl_soup.convert import convert

STATE = state()


def converted(tmp_path, tensors, **options):
    torch.save(tensors, tmp_path / "file.pt")
    return convert(tmp_path / "file.pt", overwrite=True, **options)[0]


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "net.", "state_dict."),
        *("module._orig_mod.", "_orig_mod.module.", "module.module.", "model._orig_mod.net."),
    ],
)
def test_prefixes_of_wrappers(tmp_path, prefix):
    done = converted(tmp_path, under(prefix, STATE))
    assert done.prefix == prefix and not done.common
    assert_same(done.output, STATE)
    done = converted(tmp_path, under(prefix, STATE), keep_prefix=True)
    assert done.prefix == ""
    assert_same(done.output, under(prefix, STATE))


@pytest.mark.parametrize("other", ["lm_head.weight", "modules.weight", "model", "module"])
def test_a_prefix_that_one_tensor_lacks_is_left(tmp_path, other):
    tensors = {**under("model.", STATE), other: torch.ones(2)}
    done = converted(tmp_path, tensors)
    assert (done.prefix, done.common, done.without_common) == ("", "model.", (other,))
    assert_same(done.output, tensors)


def test_what_is_common_but_no_wrapper_is_left(tmp_path):
    done = converted(tmp_path, under("vit.", STATE))
    assert (done.prefix, done.common) == ("", "")
    assert_same(done.output, under("vit.", STATE))


def test_a_tensor_that_is_named_as_a_wrapper_keeps_its_name(tmp_path):
    assert_same(converted(tmp_path, {"model.": torch.ones(2)}).output, {"model.": torch.ones(2)})


def test_the_counter_of_an_average(tmp_path):
    averaged = {"n_averaged": torch.tensor(3), **under("module.", STATE)}
    done = converted(tmp_path, under("_orig_mod.", averaged))
    assert done.prefix == "_orig_mod.module." and done.dropped == ("_orig_mod.n_averaged",)
    assert_same(done.output, STATE)
    # Of another model it may be a part.
    for tensors in ({"n_averaged": torch.tensor(3), **STATE}, {"n_averaged": torch.tensor(3)}):
        done = converted(tmp_path, tensors)
        assert not done.prefix and not done.dropped
        assert_same(done.output, tensors)
    assert_same(converted(tmp_path, averaged, keep_prefix=True).output, averaged)
