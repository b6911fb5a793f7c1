"""Linear layers in f32 by oneDNN.

PyTorch gives f32 products to MKL and those of other dtypes to oneDNN. MKL is the slower one on
some processors, so this program is compared with both. CPU and f32 only.

The second operand of a product is a transposed view where it can be: oneDNN reads it as it lies,
which takes less time than a contiguous copy of it. The first operand must be contiguous.
"""

import torch

# Relative, of sums of some thousand products in f32.
TOLERANCE = 1e-5


def product(a, b, bias=None):
    """`a b^T + bias` of a contiguous `a` [.., n] and any `b` [m, n]."""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


class Linear(torch.autograd.Function):
    """`inputs weight^T + bias`, and its three gradients."""

    @staticmethod
    def forward(context, inputs, weight, bias):
        context.save_for_backward(inputs, weight)
        return product(inputs.contiguous(), weight, bias)

    @staticmethod
    def backward(context, gradient):
        inputs, weight = context.saved_tensors
        rows = gradient.flatten(0, -2)
        of_inputs = of_weight = of_bias = None
        if context.needs_input_grad[0]:
            of_inputs = product(gradient.contiguous(), weight.t())
        if context.needs_input_grad[1]:
            of_weight = product(rows.t().contiguous(), inputs.flatten(0, -2).t())
        if context.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_inputs, of_weight, of_bias


def linear(inputs, weight, bias):
    """A linear layer; without its autograd function where nothing asks for gradients."""
    if torch.is_grad_enabled():
        return Linear.apply(inputs, weight, bias)
    return product(inputs.contiguous(), weight, bias)


def install():
    """From here on, every linear layer computes so."""
    torch.nn.Linear.forward = lambda layer, inputs: linear(inputs, layer.weight, layer.bias)


def distances():
    """Relative distances in f32 from PyTorch's own layer: of outputs and gradients, by name."""
    generator = torch.Generator().manual_seed(0)
    random = lambda *shape: torch.randn(shape, generator=generator)
    # A layer of ViT-B/32, and inputs of two dimensions, as a head's are.
    cases = {"rows": (random(24, 96), 40), "tokens": (random(4, 50, 768), 3072)}
    found = {}
    for name, (inputs, width) in cases.items():
        leaves = [inputs, random(width, inputs.shape[-1]), random(width)]
        gradient = random(*inputs.shape[:-1], width)
        results = []
        for layer in (torch.nn.functional.linear, linear):
            own = [leaf.clone().requires_grad_() for leaf in leaves]
            output = layer(*own)
            output.backward(gradient)
            results.append([output.detach(), *(leaf.grad for leaf in own)])
        with torch.no_grad():
            results[1].append(linear(*leaves))
        results[0].append(results[0][0])
        parts = ("output", "gradient of inputs", "of weight", "of bias", "output without gradients")
        for part, expected, ours in zip(parts, *results):
            gap = torch.linalg.vector_norm(ours - expected) / torch.linalg.vector_norm(expected)
            found[f"onednn {name}: {part}"] = gap.item()
    return found
