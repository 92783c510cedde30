"""Which network is fitted, and how: what a user names, in the terms of a fit."""

from __future__ import annotations

from dataclasses import dataclass

from inrstore.options import EncodeOptions, Network

OMEGA_0 = 20.0
"""First-layer frequencies, radians per unit of coordinate (half the longest extent)."""
LAYERS = 4
"""Hidden layers of a network, if nothing else is asked for."""
RATE = 3e-2
"""Peak rate of networks up to 64 wide; wider ones take less, in proportion."""
FLAT_RATE = 1e-2
"""The same of networks whose first layer is no sine."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which network is fitted, and how.

    Parameters
    ----------
    activations : tuple of str
        Of each hidden layer.
    width : int
        Units in each; 0 is the fewest that keep the target.
    steps : int
        Of a fit; 0 is as the preset says.
    omega_0 : float
        Frequencies of sines, radians per unit of coordinate.
    rate : float
        Peak learning rate.
    limited : bool
        Outputs below the smallest value of the chunk are raised to it while they are fitted, as they are when they are
        read: a ReLU behind the read-out.
    published : bool
        Data, start and optimiser of Mancini et al., arXiv:2208.01602, after Sitzmann et al., arXiv:2006.09661.
    found : bool
        What is reached is kept.
    """

    activations: tuple[str, ...] = ("sine",) * LAYERS
    width: int = 0
    steps: int = 0
    omega_0: float = OMEGA_0
    rate: float = RATE
    limited: bool = False
    published: bool = False
    found: bool = False


PUBLISHED = Network(layers=3, units=256, steps=2000, omega_0=30.0, rate=3e-4)
"""What `Network` leaves open in preset paper."""


def recipe_of(options: EncodeOptions) -> Recipe:
    """Return what the options ask for."""
    asked = options.network or Network()
    published = options.preset == "paper"
    usual = PUBLISHED if published else Network(layers=LAYERS, omega_0=OMEGA_0)
    layers = asked.layers or usual.layers
    activations = _activations(asked, layers)
    return Recipe(
        activations=activations, width=asked.units or usual.units, steps=asked.steps or usual.steps,
        omega_0=asked.omega_0 or usual.omega_0,
        rate=asked.rate or usual.rate or (RATE if activations[0] == "sine" else FLAT_RATE),
        limited=asked.name == "siren2d-relu", published=published, found=options.found,
    )  # fmt: skip


def _activations(asked: Network, layers: int) -> tuple[str, ...]:
    if asked.name == "mlp-siren":
        flat = ("relu",) * (layers - 1)
        return ("sine", *flat) if asked.sine == "first" else (*flat, "sine")
    return ({"mlp-relu": "relu", "mlp-tanh": "tanh"}.get(asked.name, "sine"),) * layers
