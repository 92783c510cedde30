"""A refining network on a volume, exactly (specification sections 17.3 to 17.5).

Maps are integers in -1023..1023, held in float32; products of them are summed below 2^24, so in any order. Positions
are flat: with zeros around a volume a neighbour is a distance in memory, and a convolution a matrix product for each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inrstore.chunk.inr.layers import AMPLITUDE, Activation, Ints, Layer
from inrstore.chunk.superres.network import Dense, Lengths, Operator, Refiner

Singles: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Slices: TypeAlias = tuple[slice, slice, slice]

_COLUMNS = 4096
"""Positions of one product: maps of so many stay in the cache, and OpenBLAS mostly on one thread."""
_TILE = 1 << 14
"""Positions of the fine grid that are worked on together."""
_TOGETHER = 1 << 22
"""Values of maps held for several slices."""
_NORM_BITS, _ROOT_BITS, _MEAN_BITS, _ATTENTION_BITS, _PLACE_BITS = 14, 12, 4, 10, 10


class Inputs:
    """Numbers of an image -> inputs of a network, -1023..1023.

    Parameters
    ----------
    centre : int
        What becomes 0.
    gain, shift : int
        A difference of 2^shift / gain is one.
    """

    def __init__(self, centre: int, gain: int, shift: int) -> None:
        self._centre, self._gain, self._shift = centre, gain, shift

    def __call__(self, image: npt.NDArray[Any]) -> Singles:
        """Return inputs of the same shape."""
        number = image.astype(np.int64)
        number -= self._centre
        number *= self._gain
        number += 1 << (self._shift - 1)
        number >>= self._shift
        inputs: Singles = np.clip(number, -AMPLITUDE, AMPLITUDE).astype(np.float32)
        return inputs


class Evaluator:
    """A network ready for volumes of one shape.

    Parameters
    ----------
    refiner : Refiner
        Checked, its cost too.
    lengths : tuple of int
        Slices, rows, columns.
    """

    def __init__(self, refiner: Refiner, lengths: Lengths) -> None:
        self._refiner, self._lengths = refiner, lengths
        self._layers = [_Sums(layer, refiner.bias_multiplier) for layer in refiner.layers]
        self._readout = refiner.readout.astype(np.float32)
        self._ups = [Doubling(n, e) for n, e in zip(lengths, refiner.scales, strict=True)]

    def __call__(self, coarse: Ints, inputs: Inputs) -> Iterator[tuple[Slices, Ints, Ints]]:
        """Yield parts of the fine grid, the image there, and the product-sums of the read-out.

        Parameters
        ----------
        coarse : ndarray of int64, shape (slices, rows, columns)
            The image on the coarse grid, magnitudes up to 2^31.
        inputs : Inputs
        """
        held = coarse.astype(np.float64)
        if isinstance(self._refiner.plan, Dense):
            yield from self._dense(self._refiner.plan, held, inputs)
        else:
            yield from self._operator(self._refiner.plan, held, inputs)

    def _image(self, coarse: Doubles, part: Slices) -> Ints:
        """Return a part of the coarse image on the fine grid."""
        image: Ints = doubled(coarse[None], self._ups, part)[0].astype(np.int64)
        return image

    # ---- SRDenseNet ----------------------------------------------------------------------------------------

    def _dense(self, plan: Dense, coarse: Doubles, inputs: Inputs) -> Iterator[tuple[Slices, Ints, Ints]]:
        scale, plane = 1 << self._refiner.scales[0], plan.maps * math.prod(coarse.shape[1:])
        at_once = len(coarse) if self._refiner.reach[0] else max(1, _TOGETHER // plane)
        for begin in range(0, len(coarse), at_once):
            slab = coarse[begin : begin + at_once]
            sums = self._dense_sums(plan, inputs(slab))
            part = (slice(begin * scale, min((begin + len(slab)) * scale, self._lengths[0])),
                    slice(0, self._lengths[1]), slice(0, self._lengths[2]))  # fmt: skip
            cut = sums[tuple(slice(s.stop - s.start) for s in part)]
            for tile in tiles([s.stop - s.start for s in part], _TILE):
                here = _moved(tile, part)
                yield here, self._image(coarse, here), cut[tile].astype(np.int64)

    def _dense_sums(self, plan: Dense, x: Singles) -> Singles:
        """Return the product-sums of the read-out on the doubled grid of some slices."""
        reach, (depth, height, width) = self._refiner.reach, x.shape
        grid = Grid((depth, height, width), reach)
        maps, layers = grid.room(plan.maps), iter(self._layers)
        maps[: plan.first] = next(layers)(grid.padded(x[None]), grid, wide=True)
        known = plan.first
        for _ in range(plan.blocks):
            first = known
            for number in range(plan.layers):
                seen = maps[first:known] if number else maps[:first]
                maps[known : known + plan.growth] = next(layers)(seen, grid, wide=True)
                known += plan.growth
        out = next(layers)(maps, grid, wide=False)
        del maps
        for number in range(max(self._refiner.scales)):
            grid, out = grid.stretched(out, [number < e for e in self._refiner.scales])
            out = next(layers)(out, grid, wide=True)
        sums: Singles = grid.inside(convolved(self._readout, out, grid.neighbours(wide=True)))[0]
        return sums

    # ---- SRNO ----------------------------------------------------------------------------------------------

    def _operator(self, plan: Operator, coarse: Doubles, inputs: Inputs) -> Iterator[tuple[Slices, Ints, Ints]]:
        z, y, x = coarse.shape
        grid = Grid((z, y, x), self._refiner.reach)
        features = grid.padded(inputs(coarse)[None])
        for layer in self._layers[: plan.layers]:
            features = layer(features, grid, wide=True)
        features = np.ascontiguousarray(grid.inside(features))
        parts = list(tiles(self._lengths, _TILE))
        kernels: list[Singles] = []
        while len(kernels) < plan.attentions:
            total = np.zeros((plan.heads, plan.width // plan.heads, plan.width // plan.heads), np.int64)
            for part in parts:
                lifted = self._lifted(plan, features, self._image(coarse, part), part, inputs)
                hidden = self._attended(plan, lifted, kernels)
                _, keys, values = self._projected(plan, hidden, len(kernels))
                total += (keys @ values.transpose(0, 2, 1)).astype(np.int64)
            kernels.append(_kernel(total, math.prod(self._lengths)))
        for part in parts:
            image = self._image(coarse, part)
            hidden = self._attended(plan, self._lifted(plan, features, image, part, inputs), kernels)
            sums = self._readout @ self._layers[-1].at(hidden)
            yield part, image, sums.reshape(image.shape).astype(np.int64)

    def _lifted(self, plan: Operator, features: Singles, image: Ints, part: Slices, inputs: Inputs) -> Singles:
        """Return the outputs of the first layer at a position, (width, positions)."""
        rows = [doubled(features, self._ups, part).reshape(plan.channels, -1), inputs(image).reshape(1, -1)]
        for axis, (up, s) in enumerate(zip(self._ups, part, strict=True)):
            along = up.places[s].reshape([-1 if a == axis else 1 for a in range(3)])
            rows.append(np.broadcast_to(along, image.shape).reshape(1, -1))
        return self._layers[plan.layers].at(np.concatenate(rows))

    def _attended(self, plan: Operator, hidden: Singles, kernels: Sequence[Singles]) -> Singles:
        """Return what attention, with the kernels known so far, makes of the units at some positions."""
        for number, kernel in enumerate(kernels):
            one, other = self._layers[plan.layers + 2 + 3 * number : plan.layers + 4 + 3 * number]
            queries, _, _ = self._projected(plan, hidden, number, queries_alone=True)
            seen = (kernel.transpose(0, 2, 1) @ queries).reshape(hidden.shape)
            _scale_down(seen, _ATTENTION_BITS)
            seen += hidden
            np.clip(seen, -AMPLITUDE, AMPLITUDE, out=seen)
            hidden = other.at(one.at(seen)) + hidden
            np.clip(hidden, -AMPLITUDE, AMPLITUDE, out=hidden)
        return hidden

    def _projected(self, plan: Operator, hidden: Singles, number: int,
                   queries_alone: bool = False) -> tuple[Singles, Doubles, Doubles]:  # fmt: skip
        """Return queries, keys and values, (heads, units, positions)."""
        projected = self._layers[plan.layers + 1 + 3 * number].at(hidden)
        shape = (plan.heads, plan.width // plan.heads, hidden.shape[1])
        queries, keys, values = (part.reshape(shape) for part in np.split(projected, 3))
        if queries_alone:
            return queries, np.empty(0), np.empty(0)
        return queries, normalised(keys), normalised(values)


# ---- a layer -----------------------------------------------------------------------------------------------


class _Sums:
    """A layer, ready: product-sums -> outputs."""

    def __init__(self, layer: Layer, bias_multiplier: int) -> None:
        self._weights = layer.weights.astype(np.float32)
        self._multiplier = np.float64(layer.multiplier)
        self._added = (layer.biases.astype(np.int64) * bias_multiplier).astype(np.float64)[:, None]
        self._activation: Activation = layer.activation

    def __call__(self, maps: Singles, grid: Grid, *, wide: bool) -> Singles:
        """Return the outputs on a grid, zeros around, of maps with zeros around."""
        out = convolved(self._weights, maps, grid.neighbours(wide=wide))
        for begin in range(0, out.shape[1], _COLUMNS):
            self._activate(out[:, begin : begin + _COLUMNS])
        return grid.cleared(out)

    def at(self, inputs: Singles) -> Singles:
        """Return the outputs (outputs, positions) for inputs (inputs, positions)."""
        out = np.empty((len(self._weights), inputs.shape[1]), np.float32)
        for begin in range(0, inputs.shape[1], _COLUMNS):
            part = out[:, begin : begin + _COLUMNS]
            np.matmul(self._weights, inputs[:, begin : begin + _COLUMNS], out=part)
            self._activate(part)
        return out

    def _activate(self, sums: Singles) -> None:
        z = sums * self._multiplier
        z += self._added
        self._activation.apply(z, np.empty(0, np.intp), sums)


def convolved(weights: Singles, maps: Singles, neighbours: Sequence[int]) -> Singles:
    """Return product-sums of maps and their neighbours, at distances in memory; those at the ends mean nothing."""
    outputs, inputs = len(weights), len(maps)
    count, far = maps.shape[1], max(neighbours)
    out = np.zeros((outputs, count), np.float32)
    matrices = np.split(weights, len(neighbours), axis=1)
    for begin in range(far, count - far, _COLUMNS):
        stop = min(begin + _COLUMNS, count - far)
        sums = out[:, begin:stop]
        for matrix, shift in zip(matrices, neighbours, strict=True):
            if inputs == 1:
                sums += matrix * maps[:, begin + shift : stop + shift]
            else:
                sums += matrix @ maps[:, begin + shift : stop + shift]
    return out


class Grid:
    """A volume with zeros around, as one dimension.

    Parameters
    ----------
    lengths : tuple of int
    reach : tuple of {0, 1}
        Along which axes there are zeros.
    """

    def __init__(self, lengths: Lengths, reach: Lengths) -> None:
        self._lengths, self._reach = lengths, reach
        self._shape = tuple(n + 2 * r for n, r in zip(lengths, reach, strict=True))

    def neighbours(self, *, wide: bool) -> list[int]:
        """Return distances in memory of what a layer sees, in C order."""
        if not wide:
            return [0]
        _, rows, columns = self._shape
        steps = [range(-r, r + 1) for r in self._reach]
        return [(dz * rows + dy) * columns + dx for dz, dy, dx in itertools.product(*steps)]

    def room(self, maps: int) -> Singles:
        """Return zeros for so many maps."""
        return np.zeros((maps, math.prod(self._shape)), np.float32)

    def inside(self, maps: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the view of the volume, (maps, slices, rows, columns)."""
        cut = tuple(slice(r, r + n) for n, r in zip(self._lengths, self._reach, strict=True))
        return maps.reshape(len(maps), *self._shape)[(slice(None), *cut)]

    def padded(self, volume: Singles) -> Singles:
        """Return a volume (maps, slices, rows, columns) with zeros around."""
        out = self.room(len(volume))
        self.inside(out)[...] = volume
        return out

    def cleared(self, maps: Singles) -> Singles:
        """Make what lies around 0 again, in place."""
        whole = maps.reshape(len(maps), *self._shape)
        for axis, r in enumerate(self._reach):
            if r:
                ends = np.moveaxis(whole, axis + 1, 0)
                ends[0] = ends[-1] = 0
        return maps

    def stretched(self, maps: Singles, along: Sequence[bool]) -> tuple[Grid, Singles]:
        """Return the grid doubled along some axes, and maps on it: 0 at every odd position of these."""
        z, y, x = (n << d for n, d in zip(self._lengths, along, strict=True))
        grid = Grid((z, y, x), self._reach)
        out = grid.room(len(maps))
        grid.inside(out)[(slice(None), *(slice(None, None, 1 + d) for d in along))] = self.inside(maps)
        return grid, out


# ---- attention ---------------------------------------------------------------------------------------------


def normalised(units: Singles) -> Doubles:
    """Return units (heads, units, positions) less their mean, 256 for one standard deviation, rounded."""
    count = units.shape[1]
    apart = units.astype(np.float64)
    apart *= count
    apart -= units.sum(1, dtype=np.float64, keepdims=True)
    root = np.square(apart).sum(1, keepdims=True)
    root *= float(count << _ROOT_BITS)
    np.floor(np.sqrt(root, out=root), out=root)  # below 2^50: the root is rounded once, and so far from a tie
    np.maximum(root, 1, out=root)
    apart *= float(count << _NORM_BITS)
    apart += np.floor(root / 2)
    apart /= root
    rounded: Doubles = np.floor(apart, out=apart)
    return rounded


def _kernel(total: Ints, positions: int) -> Singles:
    """Return the integral over all positions as weights, (heads, units, units)."""
    mean = (total << _MEAN_BITS) // positions
    weights = (mean + (1 << (_ATTENTION_BITS - 1))) >> _ATTENTION_BITS
    clamped: Singles = np.clip(weights, -AMPLITUDE, AMPLITUDE).astype(np.float32)
    return clamped


def _scale_down(sums: Singles, bits: int) -> None:
    """Divide by a power of two, rounded to nearest, halves up."""
    sums += np.float32(1 << (bits - 1))
    sums *= np.float32(2.0**-bits)
    np.floor(sums, out=sums)


# ---- grids -------------------------------------------------------------------------------------------------


class Doubling:
    """The coarse positions beside each fine position along an axis, and their weights.

    Parameters
    ----------
    length : int
        Fine positions.
    exponent : int
        Binary logarithm of the fine positions for a coarse one.
    """

    def __init__(self, length: int, exponent: int) -> None:
        scale, last = 1 << exponent, (length - 1) >> exponent
        place = np.arange(length)
        twice = 2 * place + 1 - scale  # in halves of a fine position, from the first coarse one
        below = twice >> (exponent + 1)
        self.above = twice - (below << (exponent + 1))
        self.below = 2 * scale - self.above
        self.first, self.second = np.clip(below, 0, last), np.clip(below + 1, 0, last)
        self.bits = exponent + 1
        self.places = ((2 * (place % scale) + 1 - scale) << (_PLACE_BITS - exponent)).astype(np.float32)


def doubled(maps: npt.NDArray[Any], ups: Sequence[Doubling], part: Slices) -> npt.NDArray[Any]:
    """Return maps (maps, slices, rows, columns) at a part of the fine grid: linear along each axis, rounded once.

    Sums are exact: below 2^24 for outputs of layers in float32, below 2^44 for images in float64.
    """
    for axis, (up, s) in enumerate(zip(ups, part, strict=True), 1):
        shape = [-1 if a == axis else 1 for a in range(4)]
        low, high = (np.asarray(w[s].reshape(shape), maps.dtype) for w in (up.below, up.above))
        maps = maps.take(up.first[s], axis) * low + maps.take(up.second[s], axis) * high
    bits = sum(up.bits for up in ups)
    maps += maps.dtype.type(1 << (bits - 1))
    maps *= maps.dtype.type(2.0**-bits)
    rounded: npt.NDArray[Any] = np.floor(maps, out=maps)
    return rounded


def tiles(lengths: Sequence[int], most: int) -> Iterator[Slices]:
    """Yield parts of a volume of at most so many positions."""
    z, y, x = lengths
    columns = min(x, most)
    rows = min(y, max(1, most // columns))
    slices = min(z, max(1, most // (columns * rows)))
    for i, j, k in itertools.product(range(0, z, slices), range(0, y, rows), range(0, x, columns)):
        yield slice(i, min(i + slices, z)), slice(j, min(j + rows, y)), slice(k, min(k + columns, x))


def _moved(tile: Slices, part: Slices) -> Slices:
    """Return where in the volume a tile of a part lies."""
    z, y, x = (slice(p.start + t.start, p.start + t.stop) for t, p in zip(tile, part, strict=True))
    return z, y, x
