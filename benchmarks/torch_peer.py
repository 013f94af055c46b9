"""The peers of `benchmarks.step`, in PyTorch: straightforward SOAR and PGD-7, ART's Madry trainer.

A worker for `common.Peer`; it needs torch, and ART for its trainer. Weights are PyTorch's own.
"""

import contextlib
import sys

import numpy as np

from benchmarks import common

EPSILON, STEP = 8 / 255, 2 / 255


def main():
    """Builds the steps and serves them."""
    import torch

    count = int(sys.argv[1])
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    x = torch.tensor(generator.uniform(0, 1, (count, 3, 32, 32)).astype("float32"))
    y = torch.tensor(generator.integers(0, 10, count))
    functions = {}
    for name, loss in (("standard", plain), ("pgd7", adversarial), ("soar", soar)):
        step = train_step(torch, loss, x, y)
        functions[f"torch eager {name}"] = lambda step=step: common.timed(step)
    for name, loss in (("standard", plain), ("pgd7", adversarial)):
        # SOAR's double backward is not there: AOTAutograd refuses to compile one.
        with contextlib.suppress(Exception):
            step = train_step(torch, loss, x, y, compiled=True)
            step()
            functions[f"torch.compile {name}"] = lambda step=step: common.timed(step)
    with contextlib.suppress(ImportError):
        step = art_step(torch, x, y)
        functions["ART Madry trainer pgd7"] = lambda: common.timed(step)
    common.serve(functions, common.versions("torch", "adversarial-robustness-toolbox"))


def cnn4(torch):
    """The four-layer network of `soar_tf.networks.cnn4`."""
    nn = torch.nn

    class Normalize(nn.Module):
        def forward(self, x):
            return 4 * x - 2

    return nn.Sequential(
        Normalize(),
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1600, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def train_step(torch, loss, x, y, compiled=False):
    """A step of SGD on `loss(torch, network, x, y)`."""
    network = cnn4(torch)
    called = torch.compile(network) if compiled else network
    optimizer = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9)

    def step():
        optimizer.zero_grad()
        loss(torch, called, x, y)
        optimizer.step()

    return step


def input_gradient(torch, network, x, y, create_graph=False):
    """Per-example loss and its input gradient."""
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    values = torch.nn.functional.cross_entropy(network(x), y, reduction="none")
    (gradient,) = torch.autograd.grad(values.sum(), x, create_graph=create_graph)
    return values, gradient


def perturb(torch, network, x, y, steps):
    """PGD from a uniform start."""
    point = (x + EPSILON * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
    for _ in range(steps):
        _, gradient = input_gradient(torch, network, point, y)
        point = point + STEP * gradient.sign()
        point = torch.min(torch.max(point, x - EPSILON), x + EPSILON).clamp(0, 1).detach()
    return point


def plain(torch, network, x, y):
    """Standard training."""
    torch.nn.functional.cross_entropy(network(x), y).backward()


def adversarial(torch, network, x, y):
    """PGD-7 training."""
    point = perturb(torch, network, x, y, 7)
    torch.nn.functional.cross_entropy(network(point), y).backward()


def soar(torch, network, x, y):
    """SOAR by double backward, the penalty's parameter gradient clipped by itself."""
    point = perturb(torch, network, x, y, 1)
    values, gradient = input_gradient(torch, network, point, y, create_graph=True)
    z = torch.randn_like(x)
    length = z.flatten(1).norm(dim=1)[:, None, None, None]
    h = (0.03 * torch.rand(len(x), 1, 1, 1)).clamp(min=1e-3)
    moved_point = (point + h * z / length).detach()
    _, moved = input_gradient(torch, network, moved_point, y, create_graph=True)
    product = length * (moved - gradient) / h + torch.randn(len(x), 1, 1, 1) * gradient
    size = product.flatten(1).norm(dim=1).clamp(max=10)
    penalty = 0.5 * ((x[0].numel() * EPSILON**2 + 1) / 2 * size).mean()
    parameters = list(network.parameters())
    of_penalty = torch.autograd.grad(penalty, parameters, retain_graph=True, allow_unused=True)
    norm = torch.sqrt(sum((g**2).sum() for g in of_penalty if g is not None))
    scale = (30 / (norm + 1e-12)).clamp(max=1)
    values.mean().backward()
    for parameter, g in zip(parameters, of_penalty, strict=True):
        if g is not None:
            parameter.grad += scale * g


def art_step(torch, x, y):
    """ART's Madry trainer on one batch."""
    from art.defences.trainer import AdversarialTrainerMadryPGD
    from art.estimators.classification import PyTorchClassifier

    network = cnn4(torch)
    classifier = PyTorchClassifier(
        network,
        loss=torch.nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9),
        input_shape=(3, 32, 32),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier, nb_epochs=1, batch_size=len(x), eps=EPSILON, eps_step=STEP, max_iter=7
    )
    images, labels = x.numpy(), np.eye(10, dtype="float32")[y.numpy()]
    return lambda: trainer.fit(images, labels, batch_size=len(images), nb_epochs=1)


if __name__ == "__main__":
    main()
