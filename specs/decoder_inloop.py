"""Section 16 of `inrstore-1.md`: the correction that a network makes of what was decoded. Two modes may have one."""

import numpy as np
from decoder_network import Network
from decoder_parts import Reader, check


class Correction:
    """What is read around a position, and the network that reads it."""

    def __init__(self, payload: Reader, k: int) -> None:
        check(1 <= (n := payload.number("u8", "inloop components")) <= k, "inloop components", f"{n} of {k}")
        check((m := payload.number("u8", "differences")) <= n, "differences", f"{m} of {n}")
        check((d := payload.number("u8", "neighbours")) <= 124, "neighbours", f"{d} is above 124")
        shifts = payload.array("u1", n + m, "inloop shifts").tolist()
        check(max(shifts) <= 40, "inloop shifts", "one is above 40")
        self.a, self.b = shifts[:n], shifts[n:]
        self.offsets = payload.array("i1", 3 * d, "inloop offsets").reshape(d, 3).tolist()
        check(all(-2 <= o <= 2 for row in self.offsets for o in row), "inloop offsets", "one is not in -2..2")
        self.network = Network(payload)
        check(not self.network.coordinates, "inputs", "coordinates")
        check(self.network.inputs == n + m * d, "values", f"{self.network.inputs} where {n + m * d} are read")
        check(self.network.outputs <= k, "outputs", f"{self.network.outputs} of {k}")
        check(self.network.parameters <= 2**14, "outputs", f"{self.network.parameters} parameters")
        self.network.check_sums([self.network.magnitude] * self.network.inputs)

    def correct(self, u: np.ndarray) -> None:
        """Change the volumes u: component, z, y, x."""
        x = [shifted(u[k], a) for k, a in enumerate(self.a)]
        for k, b in enumerate(self.b):
            for offset in self.offsets:
                index = [np.clip(np.arange(n) + o, 0, n - 1) for n, o in zip(u.shape[1:], offset, strict=True)]
                x.append(shifted(u[k][np.ix_(*index)] - u[k], b))
        most = self.network.magnitude
        inputs = np.clip(np.array(x).reshape(len(x), -1), -most, most)
        u[: self.network.outputs] += self.network.evaluate(inputs).reshape(-1, *u.shape[1:])


def shifted(v: np.ndarray, s: int) -> np.ndarray:
    return (v + (1 << s - 1)) >> s if s else v
