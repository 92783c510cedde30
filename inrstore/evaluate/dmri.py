"""A diffusion scan and what became of it -> errors of MD, FA, main direction, RISH and fODF in WM, GM and CSF.

- *Tensor*: log-linear weighted least squares as `dwi2tensor` of MRtrix3 does by default: weights are the squares of the
  measured signal, then twice those of the predicted one (Veraart et al., NeuroImage 81, 2013). Signals below 1e-6 of
  the largest of their voxel count as that. Eigenvalues are not clipped. It takes the measurements up to b = 1,500
  s/mm², or all where these are too few for a tensor.
- *RISH0, RISH2*: sums of squared coefficients of degree 0 and 2 of the spherical harmonics of order 4 (Mirzaalian et
  al., NeuroImage 135, 2016), fitted to the signal of the highest shell with 15 directions or more, by least squares;
  the median b = 0 signal of the brain counts as 1.
- *fODF*: constrained spherical deconvolution of dipy on the same shell, order 8 or what its directions allow, one
  response for all candidates: of the 300 voxels of WM with the largest FA of the source. In up to 1,000 voxels of each
  tissue, evenly spaced, since it takes a millisecond a voxel.
- *Tissues*, of the source alone, after smoothing (FWHM of 2 voxels), so that they are not chosen by the noise that a
  candidate may lose: CSF where MD is over 1.75 of its median in the mask; below 1.5 of it WM where FA is over 0.3, GM
  where it is under 0.2; the rest is neither. "brain" is the whole mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from inrstore.errors import ConfigurationError
from inrstore.evaluate.findings import (
    Finding,
    Floats,
    Image,
    Result,
    Truth,
    errors,
    foreground,
    needs,
    value,
)

B0 = 50.0
"""b-value up to which a measurement counts as without diffusion weighting, s/mm²."""
TENSOR_B = 1500.0
SAME_SHELL = 80.0
"""Two b-values this close belong to one shell."""
ORDER = 4
FODF_VOXELS, RESPONSE_VOXELS = 1000, 300
TISSUES = ("WM", "GM", "CSF")
_REWEIGHTED, _FLOOR = 2, 1e-6
_BLOCK = 1 << 14
"""Voxels fitted at once; bounds the memory of normal equations."""


@dataclass(frozen=True)
class Tensors:
    """Tensors of some voxels.

    Parameters
    ----------
    values : ndarray
        (n, 3), eigenvalues, largest first, mm²/s.
    main : ndarray
        (n, 3), the direction of the largest.
    b0 : ndarray
        (n,), the signal without weighting, in the unit of the signal.
    """

    values: Floats
    main: Floats
    b0: Floats

    @property
    def md(self) -> Floats:
        """Mean diffusivity, (n,), mm²/s."""
        return np.asarray(self.values.mean(axis=1))

    @property
    def fa(self) -> Floats:
        """Fractional anisotropy, (n,); 0 where there is no diffusion at all. Over 1 where eigenvalues are negative."""
        spread = np.square(self.values - self.md[:, None]).sum(axis=1)
        size = np.square(self.values).sum(axis=1)
        return np.asarray(np.sqrt(1.5 * np.divide(spread, size, out=np.zeros_like(size), where=size > 0)))


@dataclass(frozen=True)
class Gradients:
    """Which measurement is what.

    Parameters
    ----------
    bval : ndarray
        (t,), s/mm².
    bvec : ndarray
        (t, 3), of any length.
    """

    bval: Floats
    bvec: Floats

    @cached_property
    def unit(self) -> Floats:
        """Directions of length 1, (t, 3); 0 where there is none."""
        length = np.linalg.norm(self.bvec, axis=1, keepdims=True)
        return np.asarray(np.divide(self.bvec, length, out=np.zeros_like(self.bvec), where=length > 0))

    @property
    def plain(self) -> Truth:
        """Measurements without weighting, (t,); those of the least b where none is under `B0`."""
        low: Truth = self.bval <= B0
        return low if low.any() else np.asarray(self.bval <= self.bval.min() + SAME_SHELL)

    @property
    def directed(self) -> Truth:
        """Measurements with weighting in a direction, (t,)."""
        return np.asarray(~self.plain & self.unit.any(axis=1))

    def shells(self) -> list[Truth]:
        """Return the shells, each as which measurements it has, lowest b first."""
        order = np.argsort(self.bval, kind="stable")
        order = order[self.directed[order]]
        breaks = np.flatnonzero(np.diff(self.bval[order]) > SAME_SHELL) + 1
        found = []
        for part in np.split(order, breaks):
            shell = np.zeros(len(self.bval), np.bool_)
            shell[part] = True
            found.append(shell)
        return [shell for shell in found if shell.any()]

    def for_tensor(self, chosen: Truth | None = None) -> Truth:
        """Return the measurements that a tensor is fitted to.

        Parameters
        ----------
        chosen : ndarray of bool, optional
            Those there are, (t,).

        Raises
        ------
        ConfigurationError
            If they are too few for one.
        """
        there = np.ones(len(self.bval), np.bool_) if chosen is None else chosen
        usable = there & (self.plain | self.directed)
        for found in (usable & (self.bval <= TENSOR_B), usable):
            if np.linalg.matrix_rank(self.design(found)) == 7:
                return np.asarray(found)
        count = int(np.count_nonzero(there & self.directed))
        raise ConfigurationError(f"gradients: {count} measurements with weighting are too few for a tensor")

    def for_harmonics(self, chosen: Truth | None = None) -> Truth | None:
        """Return the shell that spherical harmonics are fitted to, None if none has the directions."""
        for shell in reversed(self.shells()):
            there = shell if chosen is None else shell & chosen
            if np.count_nonzero(there) >= coefficients(ORDER) and np.linalg.cond(harmonics(self.unit[there])[0]) < 30:
                return np.asarray(there)
        return None

    def design(self, chosen: Truth) -> Floats:
        """Return the matrix (measurement, 7) from log S0 and D (xx, yy, zz, xy, xz, yz), µm²/ms, to log S."""
        b, (x, y, z) = self.bval[chosen] / 1000, self.unit[chosen].T
        columns = [x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]
        return np.stack([np.ones_like(b), *(-b * column for column in columns)], axis=1)

    def halves(self) -> tuple[Truth, Truth]:
        """Return two halves of the scan: one each of every two directions that are close, and all without weighting."""
        first = np.zeros(len(self.bval), np.bool_)
        for shell in self.shells():
            left = list(np.flatnonzero(shell))
            while left:
                one = left.pop(0)
                first[one] = True
                if left:
                    alike = np.abs(self.unit[left] @ self.unit[one])
                    del left[int(np.argmax(alike))]
        return first | self.plain, (~first & self.directed) | self.plain


def coefficients(order: int) -> int:
    """Return how many real symmetric spherical harmonics there are up to an order."""
    return (order + 1) * (order + 2) // 2


def fit_tensors(signal: Floats, design: Floats) -> Tensors:
    """Fit tensors; the module says how.

    Parameters
    ----------
    signal : ndarray
        (n, measurement), any unit.
    design : ndarray
        (measurement, 7), of `Gradients.design`.

    Returns
    -------
    Tensors
        Zero where no measurement of a voxel is over 0.
    """
    parts = [_fit_block(signal[start : start + _BLOCK], design) for start in range(0, max(1, len(signal)), _BLOCK)]
    return Tensors(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "main", "b0")))


def _fit_block(signal: Floats, design: Floats) -> Tensors:
    top = signal.max(axis=1, initial=0.0)
    there = top > 0
    scale = np.where(there, top, 1.0)
    scaled = np.where(there[:, None], np.maximum(signal / scale[:, None], _FLOOR), 1.0)
    log, weights = np.log(scaled), scaled
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    for _ in range(1 + _REWEIGHTED):
        square = np.square(weights / weights.max(axis=1, keepdims=True))
        normal = (square @ outer).reshape(-1, 7, 7)
        right = (square * log) @ design
        found = _solve(normal, right)
        weights = np.exp(np.clip(found @ design.T, -50.0, 50.0))
    xx, yy, zz, xy, xz, yz = found[:, 1:].T / 1000
    matrix = np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=1).reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(matrix)
    b0 = np.exp(np.clip(found[:, 0], -50.0, 50.0)) * np.where(there, top, 0.0)
    return Tensors(values[:, ::-1], vectors[:, :, 2], b0)


def _solve(normal: Floats, right: Floats) -> Floats:
    """Solve normal equations; a little is added to the diagonal where a few measurements have all the weight."""
    diagonal = np.einsum("nii->ni", normal)  # a view
    diagonal += 1e-12 * diagonal.mean(axis=1, keepdims=True)
    return np.asarray(np.linalg.solve(normal, right[..., None])[..., 0])


@dataclass(frozen=True)
class Maps:
    """What is derived from the signal of the voxels of the mask, (n,) each; RISH is None without a shell for it."""

    tensors: Tensors
    md: Floats
    fa: Floats
    rish: tuple[Floats, Floats] | None


class Diffusion:
    """The source, whose maps every candidate is compared with.

    Parameters
    ----------
    voxels : ndarray
        (t, z, y, x), stored units.
    gradients : Gradients
    slope, inter : float
        Signal = slope x stored + inter.
    mask : ndarray of bool, optional
        (z, y, x), the brain; by default what Otsu's threshold of the smoothed mean of the unweighted ones finds.

    Raises
    ------
    ConfigurationError
        If there are too few measurements for a tensor.
    MissingDependencyError
        Without dipy.
    """

    kind = "dmri"

    def __init__(
        self, voxels: Image, gradients: Gradients, *, slope: float = 1.0, inter: float = 0.0, mask: Truth | None = None
    ) -> None:
        _dipy()
        self.voxels, self.gradients, self._slope, self._inter = voxels, gradients, slope, inter
        gradients.for_tensor()
        self.mask = mask if mask is not None else foreground(self._mean_b0(voxels))
        self._tensor = gradients.for_tensor()
        self._shell = gradients.for_harmonics()
        self._unit = 0.0
        self.maps = self.derive(voxels)
        self.tissues = self._tissues()
        self._positive = self._lowest(voxels) > 0
        self._fodf_at = self._sample()
        self._response = self._respond()
        self._fodf = self._deconvolve(voxels)

    # ---- maps

    def signal(self, voxels: Image, chosen: Truth, at: Any = None) -> Floats:
        """Return the signal in the voxels of the mask, (n, measurement); `at` numbers some of these voxels."""
        where = tuple(axis if at is None else axis[at] for axis in np.nonzero(self.mask))
        stored = np.stack([np.asarray(volume[where], np.float64) for volume in _volumes(voxels, chosen)], axis=1)
        return np.nan_to_num(stored * self._slope + self._inter, posinf=0.0, neginf=0.0)

    def derive(self, voxels: Image, chosen: Truth | None = None) -> Maps:
        """Return the maps of a scan, from all measurements or those that are chosen."""
        tensor, shell = self._tensor, self._shell
        if chosen is not None:
            tensor, shell = self.gradients.for_tensor(chosen), self.gradients.for_harmonics(chosen)
        tensors = fit_tensors(self.signal(voxels, tensor), self.gradients.design(tensor))
        self._unit = self._unit or float(np.median(tensors.b0)) or 1.0  # of the source, which comes first
        rish = None
        if shell is not None:
            rish = rotation_invariants(self.signal(voxels, shell) / self._unit, self.gradients.unit[shell])
        return Maps(tensors, tensors.md, tensors.fa, rish)

    def compare(self, voxels: Image) -> Result:
        """Compare a candidate, (t, z, y, x), stored units, with the source."""
        found = self.derive(voxels)
        findings = [*self._differences(self.maps, found), *self._fodf_errors(self._deconvolve(voxels))]
        lowest = self._lowest(voxels)
        fell = int(np.count_nonzero(self._positive & (lowest <= 0)))
        findings.append(value("voxels that became <= 0", "brain", fell, "voxels"))
        maps = {
            "colour FA": self._colours(found),
            "FA error": self.spread(found.fa - self.maps.fa),
            "MD error": self.spread(1000 * (found.md - self.maps.md)),
        }
        return Result(findings=tuple(findings), maps=maps)

    def describe(self) -> tuple[Finding, ...]:
        """Return what the source itself is like: sizes of the tissues, their MD and FA, voxels that are not over 0."""
        out = [value("voxels", name, np.count_nonzero(part), "voxels") for name, part in self.tissues.items()]
        for name, part in self.tissues.items():
            if part.any():
                out.append(value("MD, mean", name, 1000 * self.maps.md[part].mean(), "µm²/ms"))
                out.append(value("FA, mean", name, self.maps.fa[part].mean()))
        out.append(value("voxels <= 0", "brain", np.count_nonzero(~self._positive), "voxels"))
        return tuple(out)

    def reference_maps(self) -> dict[str, Image]:
        """Return the pictures of the source."""
        tissue = np.zeros(len(self.maps.fa))
        for number, name in enumerate(TISSUES, 1):
            tissue[self.tissues[name]] = number
        return {"colour FA": self._colours(self.maps), "tissue": self.spread(tissue)}

    def halves(self) -> Result:
        """Compare the two halves of the source's directions: what a scan says twice.

        Raises
        ------
        ConfigurationError
            If a half has too few directions.
        """
        one, other = (self.derive(self.voxels, half) for half in self.gradients.halves())
        maps = {
            "colour FA": self._colours(other),
            "FA error": self.spread(other.fa - one.fa),
            "MD error": self.spread(1000 * (other.md - one.md)),
        }
        return Result(findings=tuple(self._differences(one, other)), maps=maps)

    def spread(self, values: Image) -> Image:
        """Return values of the voxels of the mask, (n, ...), as an image, NaN outside."""
        out = np.full((*self.mask.shape, *values.shape[1:]), np.nan, np.float32)
        out[self.mask] = values
        return out

    # ---- inside

    def _mean_b0(self, voxels: Image) -> Image:
        plain = self.gradients.plain
        total = np.zeros(voxels.shape[1:], np.float32)
        for volume in _volumes(voxels, plain):
            total += np.nan_to_num(volume.astype(np.float32), posinf=0.0, neginf=0.0)
        return total / np.float32(np.count_nonzero(plain))

    def _lowest(self, voxels: Image) -> Floats:
        """Return the smallest signal of each voxel of the mask."""
        return np.asarray(voxels.min(axis=0)[self.mask] * self._slope + self._inter, np.float64)

    def _tissues(self) -> dict[str, Truth]:
        from scipy.ndimage import gaussian_filter

        sigma = 2.0 / np.sqrt(8 * np.log(2))
        stored = [
            gaussian_filter(np.nan_to_num(volume.astype(np.float32), posinf=0.0, neginf=0.0), sigma)[self.mask]
            for volume in _volumes(self.voxels, self._tensor)
        ]
        signal = np.stack(stored, axis=1).astype(np.float64) * self._slope + self._inter
        smooth = fit_tensors(signal, self.gradients.design(self._tensor))
        md, fa = smooth.md, smooth.fa
        middle = float(np.median(md))
        low = md <= 1.5 * middle
        return {
            "WM": low & (fa > 0.3) & (md > 0),
            "GM": low & (fa < 0.2) & (md > 0),
            "CSF": md > 1.75 * middle,
            "brain": np.ones(len(md), np.bool_),
        }

    def _differences(self, before: Maps, after: Maps) -> list[Finding]:
        found: list[Finding] = []
        angle = np.degrees(np.arccos(np.clip(np.abs((before.tensors.main * after.tensors.main).sum(axis=1)), 0, 1)))
        for name, part in self.tissues.items():
            found += errors("FA", name, before.fa[part], after.fa[part])
            found += errors("MD", name, 1000 * before.md[part], 1000 * after.md[part], "µm²/ms")
            if before.rish is not None and after.rish is not None:
                for degree, first, second in zip((0, 2), before.rish, after.rish, strict=True):
                    found += errors(f"RISH{degree}", name, first[part], second[part])
        part = self.tissues["WM"]
        found += errors("V1 angle", "WM", np.zeros(np.count_nonzero(part)), angle[part], "°", relative=False)[:2]
        return found

    def _colours(self, maps: Maps) -> Image:
        """Return FA coloured by direction: x red, y green, z blue."""
        return self.spread(np.clip(maps.fa, 0, 1)[:, None] * np.abs(maps.tensors.main))

    # ---- fODF

    def _sample(self) -> dict[str, Any]:
        """Return the numbers of voxels of each tissue whose fODFs are compared."""
        out = {}
        for name in TISSUES:
            numbers = np.flatnonzero(self.tissues[name])
            step = max(1, -(-len(numbers) // FODF_VOXELS))
            out[name] = numbers[step // 2 :: step]
        return out

    def _respond(self) -> Any:
        """Return the response of a single fibre, as dipy takes it; None where there is no white matter or no shell."""
        inside = np.flatnonzero(self.tissues["WM"])
        if self._shell is None or not self.gradients.plain.any() or len(inside) < 30:
            return None
        best = inside[np.argsort(-self.maps.fa[inside] * (self.maps.fa[inside] < 1))][:RESPONSE_VOXELS]
        chosen = self._shell | self.gradients.plain
        tensors = fit_tensors(self.signal(self.voxels, chosen, best), self.gradients.design(chosen))
        along, across = np.median(tensors.values[:, 0]), np.median(tensors.values[:, 1:])
        if not 0 < across < along:
            return None
        return np.array([along, across, across]), float(np.median(tensors.b0))

    def _deconvolve(self, voxels: Image) -> dict[str, Floats] | None:
        """Return coefficients of fODFs, (n, coefficient), of the sample of each tissue."""
        if self._response is None or self._shell is None:
            return None
        from dipy.core.gradients import gradient_table
        from dipy.reconst.csdeconv import ConstrainedSphericalDeconvModel

        chosen = self._shell | self.gradients.plain
        order = 8
        while coefficients(order) > np.count_nonzero(self._shell):
            order -= 2
        bval = np.where(self.gradients.plain, 0.0, self.gradients.bval)[chosen]
        bvec = np.where(self.gradients.plain[:, None], 0.0, self.gradients.unit)[chosen]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of voxels of noise that do not converge
            model = ConstrainedSphericalDeconvModel(
                gradient_table(bval, bvecs=bvec, b0_threshold=B0), self._response, sh_order_max=order
            )
            return {
                name: np.asarray(model.fit(self.signal(voxels, chosen, at)).shm_coeff)
                for name, at in self._fodf_at.items()
                if len(at)
            }

    def _fodf_errors(self, after: dict[str, Floats] | None) -> list[Finding]:
        if self._fodf is None or after is None:
            return []
        out = []
        for name, before in self._fodf.items():
            there = np.isfinite(before).all(axis=1) & np.isfinite(after[name]).all(axis=1)
            a, b = before[there], after[name][there]
            size = np.linalg.norm(a, axis=1)
            away = np.linalg.norm(b - a, axis=1)[size > 0] / size[size > 0]
            out.append(value("fODF, relative error", name, 100 * np.median(away) if away.size else None, "%"))
            # The first coefficient is the mean over all directions, which is no shape.
            one, other = a[:, 1:], b[:, 1:]
            sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            alike = (one * other).sum(axis=1)[sizes > 0] / sizes[sizes > 0]
            out.append(value("fODF, angular correlation", name, np.median(alike) if alike.size else None))
        return out


def rotation_invariants(signal: Floats, directions: Floats) -> tuple[Floats, Floats]:
    """Return RISH0 and RISH2 of signals, (n,) each.

    Parameters
    ----------
    signal : ndarray
        (n, direction).
    directions : ndarray
        (direction, 3), of length 1.
    """
    basis, degrees = harmonics(directions)
    found = signal @ np.linalg.pinv(basis).T
    zero, two = (np.square(found[:, degrees == degree]).sum(axis=1) for degree in (0, 2))
    return zero, two


def _volumes(voxels: Image, chosen: Truth) -> Iterator[Image]:
    """Yield some volumes of a scan without copying them."""
    return (voxels[t] for t in np.flatnonzero(chosen))


def harmonics(directions: Floats) -> tuple[Floats, Image]:
    """Return spherical harmonics up to `ORDER` in some directions, (direction, coefficient), and their degrees."""
    from dipy.core.geometry import cart2sphere
    from dipy.reconst.shm import real_sh_descoteaux

    _, theta, phi = cart2sphere(*directions.T)
    basis, _, degrees = real_sh_descoteaux(ORDER, theta, phi, legacy=False)
    return np.asarray(basis, np.float64), np.asarray(degrees)


def _dipy() -> None:
    try:
        import dipy  # noqa: F401
    except ImportError as error:
        raise needs("dipy") from error
