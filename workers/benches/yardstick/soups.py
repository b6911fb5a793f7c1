"""MEHL-Soup+ (arXiv 2407.03641, section 3 and algorithm 1) and Learned-Soup+ (arXiv 2203.05482), one coefficient a tensor and ingredient.

Written from the papers, to take as little time and memory as plain PyTorch allows.
"""

import torch
from torch.nn.functional import cross_entropy

# First: it says where the other is.
import zoo as zoo_module
from make_trajectories import folded, learning_rate


def forward_backward(model, inputs, labels):
    """What no learner of coefficients gets around; returns the loss."""
    loss = cross_entropy(model(inputs).logits, labels)
    loss.backward()
    return loss.detach()


class Mehl:
    """Learns coefficients over model batches of `b` ingredients.

    Memory: directions [b, D], centre, soup; gradients live only until the hook of their parameter has projected them.
    """

    def __init__(self, zoo, data, b, dtype, peak_rate=0.01, warmup=0.2, clip=1.0):
        self.zoo, self.data, self.peak_rate, self.warmup, self.clip = zoo, data, peak_rate, warmup, clip
        device = zoo.device
        self.model = zoo_module.empty_model(zoo.config).to(dtype).to_empty(device=device)
        fixed = zoo.fixed(dtype)
        parameters = dict(self.model.named_parameters())
        for name, tensor in fixed.items():
            parameters[name].requires_grad_(False).copy_(tensor)
        mixed = [parameters[name] for name in zoo.mixed]
        self.soup = [parameter.detach().view(-1) for parameter in mixed]
        self.centre = [torch.zeros(n, dtype=dtype, device=device) for n in zoo.sizes]
        self.directions = [torch.zeros(b, n, dtype=dtype, device=device) for n in zoo.sizes]
        groups = len(zoo.mixed)
        self.dots = torch.zeros(groups, b, dtype=dtype, device=device)
        self.squares = torch.zeros(groups, dtype=dtype, device=device)
        self.mask = 1 - torch.tensor(zoo.masked, dtype=dtype, device=device).view(-1, 1)
        self.A = torch.zeros(len(zoo), groups, dtype=torch.float64)
        self.stored_bytes = sum(d.nbytes for d in self.directions)
        self.b, self.begun, self.projecting = b, False, True
        for l, parameter in enumerate(mixed):
            parameter.register_post_accumulate_grad_hook(lambda parameter, l=l: self.project(l, parameter))

    @torch.no_grad()
    def load(self, members):
        """Directions from the centre, which for the first model batch is its mean."""
        if len(members) != self.b:
            self.b = len(members)
            self.directions = [d[: self.b] for d in self.directions]
            self.dots = self.dots[:, : self.b].contiguous()
        for i, k in enumerate(members):
            for direction, theta in zip(self.directions, self.zoo.tensors(k)):
                direction[i].copy_(theta.view(-1))
        if not self.begun:
            self.begun = True
            for centre, direction in zip(self.centre, self.directions):
                torch.mean(direction, dim=0, out=centre)
            self.A[members] = 1 / self.b
        n = torch.zeros(self.b, len(self.directions), dtype=self.mask.dtype, device=self.mask.device)
        for l, (centre, direction) in enumerate(zip(self.centre, self.directions)):
            scale = torch.linalg.vector_norm(direction, dim=1).clamp_(min=torch.linalg.vector_norm(centre))
            # Row by row: a row more than D is not needed.
            for row in direction:
                row.sub_(centre)
            length = torch.linalg.vector_norm(direction, dim=1)
            apart = length > 1e-6 * scale
            direction.mul_(torch.where(apart, 1 / length, 0.0).view(-1, 1))
            n[:, l] = torch.where(apart, length, 0.0)
        self.members, self.n = members, n.double().cpu()

    def begin(self, steps):
        """Coordinates at the centre, optimizer and schedule anew."""
        self.x = torch.zeros_like(self.dots, requires_grad=True)
        self.x.grad = torch.zeros_like(self.dots)
        self.optimizer = torch.optim.AdamW([self.x], lr=self.peak_rate, weight_decay=0.0)
        self.step, self.steps = 0, steps

    @torch.no_grad()
    def place(self):
        """soup = centre + sum_k x d, in place."""
        if self.x.is_cuda:
            for l, soup in enumerate(self.soup):
                torch.addmv(self.centre[l], self.directions[l].t(), self.x[l], out=soup)
            return
        for soup, centre, direction, x in zip(self.soup, self.centre, self.directions, self.x.tolist()):
            torch.add(centre, direction[0], alpha=x[0], out=soup)
            for row, value in zip(direction[1:], x[1:]):
                soup.add_(row, alpha=value)

    def project(self, l, parameter):
        """<d, g> of one tensor and |g|^2, as soon as the backward pass has its gradient, which is dropped then."""
        if not self.projecting:
            return
        gradient, parameter.grad = parameter.grad.view(-1), None
        if gradient.is_cuda:
            torch.mv(self.directions[l], gradient, out=self.dots[l])
        else:
            for i, row in enumerate(self.directions[l]):
                torch.dot(row, gradient, out=self.dots[l, i])
        torch.dot(gradient, gradient, out=self.squares[l])

    def iteration(self):
        """One step on one batch; returns the loss before it."""
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.step, self.steps, self.peak_rate, self.warmup)
        self.step = min(self.step + 1, self.steps - 1)
        self.place()
        loss = forward_backward(self.model, *self.data.next())
        clip = (self.clip / (self.squares.sum().sqrt() + 1e-6)).clamp_(max=1)
        torch.mul(self.dots, self.mask, out=self.x.grad).mul_(clip)
        self.optimizer.step()
        return loss

    def bare(self):
        """An iteration of the same model on the same data with nothing learned."""
        self.projecting = False
        forward_backward(self.model, *self.data.next())
        self.model.zero_grad(set_to_none=True)
        self.projecting = True

    def coefficients(self):
        """A [K, L] in f64 if the model batch ended here."""
        x = self.x.detach().double().cpu().t()
        return folded(self.A.clone(), self.members, torch.where(self.n > 0, x / self.n, 0.0))

    def fold(self):
        """Moves the centre to where learning has led."""
        self.A = self.coefficients()
        self.place()
        for centre, soup in zip(self.centre, self.soup):
            centre.copy_(soup)


class Learned:
    """Softmax coefficients over all K at once, by autograd, with a learned inverse temperature.

    Memory: ingredients [K, D], soup and its gradient. The graph over the K models holds views of them only.
    """

    def __init__(self, zoo, data, dtype, rate=0.05):
        self.zoo, self.data, self.b = zoo, data, len(zoo)
        device = zoo.device
        self.model = zoo_module.empty_model(zoo.config).to(dtype)
        self.fixed = zoo.fixed(dtype)
        self.theta = [torch.empty(len(zoo), n, dtype=dtype, device=device) for n in zoo.sizes]
        for k in range(len(zoo)):
            for theta, tensor in zip(self.theta, zoo.tensors(k)):
                theta[k].copy_(tensor.view(-1))
        self.stored_bytes = sum(theta.nbytes for theta in self.theta)
        self.mask = 1 - torch.tensor(zoo.masked, dtype=dtype, device=device)
        self.alpha = torch.ones(len(zoo), len(self.theta), dtype=dtype, device=device, requires_grad=True)
        self.inverse_temperature = torch.ones((), dtype=dtype, device=device, requires_grad=True)
        self.optimizer = torch.optim.AdamW([self.alpha, self.inverse_temperature], lr=rate, weight_decay=0.0)

    def weights(self):
        """The soup, by name in memory."""
        a = torch.softmax(self.alpha, dim=0)
        mixed = {
            name: torch.mv(theta.t(), a[:, l]).view(self.zoo.shapes[name])
            for l, (name, theta) in enumerate(zip(self.zoo.mixed, self.theta))
        }
        return mixed | self.fixed

    def iteration(self):
        """One step on one batch; returns the loss before it."""
        inputs, labels = self.data.next()
        logits = torch.func.functional_call(self.model, self.weights(), (inputs,)).logits
        loss = cross_entropy(self.inverse_temperature * logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.alpha.grad *= self.mask
        self.optimizer.step()
        return loss.detach()

    def prepare_bare(self):
        """Gives the model weights of its own, for `bare` alone."""
        with torch.no_grad():
            weights = self.weights()
            self.model.to_empty(device=self.zoo.device).load_state_dict(weights)

    def bare(self):
        """An iteration of the same model on the same data with nothing learned."""
        forward_backward(self.model, *self.data.next())
        self.model.zero_grad(set_to_none=True)

    def coefficients(self):
        """A [K, L] in f64."""
        return torch.softmax(self.alpha.detach().double().cpu(), dim=0)
