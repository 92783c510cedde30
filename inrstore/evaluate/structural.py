"""A T1 or FLAIR image and what became of it -> edges, and a segmentation of its tissues.

- *Gradient magnitude*: of central differences in mm, in the mask: its mean error over its mean, and its bias: blur
  takes edges away, noise adds some.
- *Dice*: overlap of the classes that dipy's `TissueClassifierHMRF` (3 classes, beta 0.1) finds before and after, in the
  middle slices of the mask, up to 1.5 million voxels of them, since it takes a minute for a whole head. Classes are
  counted from the darkest; of a T1 inside a brain mask they are CSF, GM and WM. Without a mask (`--mask`) it is the
  whole head that is segmented.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np

from inrstore.evaluate.findings import Finding, Image, Result, Truth, errors, foreground, needs, number, value

CLASSES, BETA = 3, 0.1
MOST_VOXELS = 1_500_000
NAMES = {"T1w": ("CSF", "GM", "WM")}


class Structural:
    """The source, whose maps every candidate is compared with.

    Parameters
    ----------
    voxels : ndarray
        (z, y, x), stored units.
    steps : tuple of float
        Size of a voxel along z, y, x, mm.
    slope, inter : float
        Signal = slope x stored + inter.
    mask : ndarray of bool, optional
        (z, y, x); by default what is not 0 of an image that is mostly 0, else what Otsu's threshold of the smoothed
        image finds.
    names : tuple of str, optional
        What the classes are called, darkest first.

    Raises
    ------
    MissingDependencyError
        Without dipy.
    """

    kind = "structural"

    def __init__(
        self, voxels: Image, steps: tuple[float, float, float] = (1.0, 1.0, 1.0), *, slope: float = 1.0,
        inter: float = 0.0, mask: Truth | None = None, names: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        try:
            import dipy  # noqa: F401
        except ImportError as error:
            raise needs("dipy") from error
        self._slope, self._inter = slope, inter
        self._steps = tuple(step if step > 0 else 1.0 for step in steps)
        image = self._real(voxels)
        self.mask = mask if mask is not None else foreground(image)
        self.names = names or tuple(f"class {k}" for k in range(1, CLASSES + 1))
        self._box, self._part = _boxes(self.mask)
        self._inside = image[self.mask]
        self.gradient = self._edges(image)
        self.classes = self._segment(image)

    def compare(self, voxels: Image) -> Result:
        """Compare a candidate, (z, y, x), stored units, with the source."""
        image = self._real(voxels)
        found = self._edges(image)
        before, after = self.gradient[self.mask[self._box]], found[self.mask[self._box]]
        mean = float(before.mean()) or 1.0
        findings: list[Finding] = [
            value("gradient, error over mean", "mask", 100 * np.abs(after - before).mean() / mean, "%"),
            value("gradient, bias over mean", "mask", 100 * (after - before).mean() / mean, "%"),
        ]
        classes = self._segment(image)
        for label, name in enumerate(self.names, 1):
            one, other = self.classes == label, classes == label
            both = np.count_nonzero(one) + np.count_nonzero(other)
            dice = 2 * np.count_nonzero(one & other) / both if both else None
            findings.append(value("Dice", name, number(dice)))
        findings += errors("intensity", "mask", self._inside, image[self.mask])
        return Result(findings=tuple(findings), maps={"gradient error": self._whole(found - self.gradient),
                                                      "tissue": self._tissue(classes)})  # fmt: skip

    def describe(self) -> tuple[Finding, ...]:
        """Return what the source itself is like."""
        out = [value("voxels", "mask", np.count_nonzero(self.mask), "voxels")]
        for label, name in enumerate(self.names, 1):
            out.append(value("voxels segmented", name, np.count_nonzero(self.classes == label), "voxels"))
        return tuple(out)

    def reference_maps(self) -> dict[str, Image]:
        """Return the pictures of the source."""
        return {"tissue": self._tissue(self.classes)}

    def _real(self, voxels: Image) -> Image:
        real = voxels.astype(np.float32) * np.float32(self._slope) + np.float32(self._inter)
        return np.asarray(np.nan_to_num(real, posinf=0.0, neginf=0.0))

    def _edges(self, image: Image) -> Image:
        """Return the gradient's magnitude in the box around the mask."""
        part = image[self._box]
        total = np.zeros(part.shape, np.float32)
        for axis, step in enumerate(self._steps):
            if part.shape[axis] > 1:
                total += np.square(np.gradient(part, step, axis=axis))
        return np.asarray(np.sqrt(total))

    def _segment(self, image: Image) -> Image:
        """Return the classes, 1 for the darkest, 0 outside the mask, in the slices that are segmented."""
        from dipy.segment.tissue import TissueClassifierHMRF

        inside = self.mask[self._part]
        low = image[self._part][inside].min()
        # 0 is the class outside for dipy, so the signal inside starts above it.
        signal = np.where(inside, image[self._part] - low + np.float32(1.0), 0.0).astype(np.float64)
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            _, classes, _ = TissueClassifierHMRF(verbose=False).classify(signal, CLASSES, BETA)
        classes = np.asarray(classes)
        means = [signal[inside & (classes == k)].mean() if (inside & (classes == k)).any() else np.inf
                 for k in range(1, CLASSES + 1)]  # fmt: skip
        out = np.zeros(classes.shape, np.uint8)
        for rank, k in enumerate(np.argsort(means, kind="stable"), 1):
            out[inside & (classes == k + 1)] = rank
        return out

    def _whole(self, boxed: Image) -> Image:
        out = np.full(self.mask.shape, np.nan, np.float32)
        out[self._box] = boxed
        out[~self.mask] = np.nan
        return out

    def _tissue(self, classes: Image) -> Image:
        out = np.full(self.mask.shape, np.nan, np.float32)
        out[self._part] = classes
        return out


def _boxes(mask: Truth) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the box around a mask, and the middle slices of it that are segmented."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(k for k in range(mask.ndim) if k != axis)
        at = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, mask.shape[axis]))
    first, last = box[0].start, box[0].stop
    plane = (box[1].stop - box[1].start) * (box[2].stop - box[2].start)
    most = max(1, MOST_VOXELS // plane)
    if last - first > most:
        first = (first + last - most) // 2
        last = first + most
    return tuple(box), (slice(first, last), box[1], box[2])
