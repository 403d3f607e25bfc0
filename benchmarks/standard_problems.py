"""Standard problems for optimisers, from their published formulas.

The sums of squares are those of J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing
unconstrained optimization software", ACM TOMS 7 (1981), by their numbers there; the fits are those
of NIST's Statistical Reference Datasets for nonlinear regression, with the certified sums of
squares. A residual takes x as (…, n), real or complex, and returns (…, m): its Jacobian is taken by
complex steps, which are exact to the rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np

Array = np.ndarray
STEP = 1e-30


@dataclass(frozen=True)
class Problem:
    """A sum of squares, its start, and the values of its known local minima (0 to be exact)."""

    name: str
    residual: Callable[..., Array]
    start: tuple[float, ...]
    minima: tuple[float, ...] = (0.0,)

    def values_and_gradients(self, x: Array) -> tuple[Array, Array]:
        """Return Σr², (A,), and its gradients, (A, n), at x, (A, n)."""
        r, J = self.residual_and_jacobian(x)
        return (r * r).sum(-1), 2 * (J @ r[..., None])[..., 0]

    def residual_and_jacobian(self, x: Array) -> tuple[Array, Array]:
        """Return r, (…, m), and Jᵀ, (…, n, m), at x, (…, n)."""
        n = x.shape[-1]
        moved = x[..., None, :] + 1j * STEP * np.eye(n)
        with np.errstate(all="ignore"):
            return self.residual(x), self.residual(moved).imag / STEP


def parts(x: Array) -> list[Array]:
    """The unknowns one by one, each (…, 1)."""
    return [x[..., i : i + 1] for i in range(x.shape[-1])]


def joined(*columns: Array) -> Array:
    return np.concatenate(columns, axis=-1)


def counted(m: int) -> Array:
    return np.arange(1, m + 1)


def magnitude(z: Array) -> Array:
    """|z|, differentiable by complex steps."""
    return np.where(z.real < 0, -z, z)


def freudenstein_roth(x: Array) -> Array:
    a, b = parts(x)
    return joined(-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b)


def rosenbrock(x: Array, steepness: float = 10) -> Array:
    odd, even = x[..., ::2], x[..., 1::2]
    return joined(steepness * (even - odd * odd), 1 - odd)


def powell_badly_scaled(x: Array) -> Array:
    a, b = parts(x)
    return joined(1e4 * a * b - 1, np.exp(-a) + np.exp(-b) - 1.0001)


def brown_badly_scaled(x: Array) -> Array:
    a, b = parts(x)
    return joined(a - 1e6, b - 2e-6, a * b - 2)


def beale(x: Array) -> Array:
    a, b = parts(x)
    return np.array([1.5, 2.25, 2.625]) - a * (1 - b ** counted(3))


def jennrich_sampson(x: Array) -> Array:
    (a, b), i = parts(x), counted(10)
    return 2 + 2 * i - (np.exp(i * a) + np.exp(i * b))


def helical_valley(x: Array) -> Array:
    a, b, c = parts(x)
    angle = np.arctan(b / a) / (2 * np.pi) + np.where(a.real < 0, 0.5, 0.0)
    return joined(10 * (c - 10 * angle), 10 * (np.sqrt(a * a + b * b) - 1), c)


BARD = np.array([14, 18, 22, 25, 29, 32, 35, 39, 37, 58, 73, 96, 134, 210, 439]) / 100


def bard(x: Array) -> Array:
    (a, b, c), u = parts(x), counted(15)
    return BARD - (a + u / ((16 - u) * b + np.minimum(u, 16 - u) * c))


GAUSSIAN = np.array([9, 44, 175, 540, 1295, 2420, 3521, 3989]) / 1e4


def gaussian(x: Array) -> Array:
    (a, b, c), t = parts(x), (8 - counted(15)) / 2
    return a * np.exp(-b * (t - c) ** 2 / 2) - np.concatenate([GAUSSIAN, GAUSSIAN[-2::-1]])


MEYER = np.array(
    [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744]
    + [8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
)


def meyer(x: Array) -> Array:
    a, b, c = parts(x)
    return a * np.exp(b / (45 + 5 * counted(16) + c)) - MEYER


def gulf(x: Array) -> Array:
    (a, b, c), t = parts(x), counted(99) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return np.exp(-(magnitude(y - b) ** c) / a) - t


def box(x: Array) -> Array:
    (a, b, c), t = parts(x), counted(10) / 10
    return np.exp(-t * a) - np.exp(-t * b) - c * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x: Array) -> Array:
    a, b, c, d = (x[..., i::4] for i in range(4))
    return joined(a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2)


def wood(x: Array) -> Array:
    a, b, c, d = parts(x)
    last = 10**0.5 * (b + d - 2), (b - d) / 10**0.5
    return joined(10 * (b - a * a), 1 - a, 90**0.5 * (d - c * c), 1 - c, *last)


KOWALIK = np.array([1957, 1947, 1735, 1600, 844, 627, 456, 342, 323, 235, 246]) / 1e4
KOWALIK_AT = np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])


def kowalik_osborne(x: Array) -> Array:
    (a, b, c, d), u = parts(x), KOWALIK_AT
    return KOWALIK - a * (u * u + u * b) / (u * u + u * c + d)


def brown_dennis(x: Array) -> Array:
    (a, b, c, d), t = parts(x), counted(20) / 5
    return (a + t * b - np.exp(t)) ** 2 + (c + d * np.sin(t) - np.cos(t)) ** 2


OSBORNE_1 = np.array(
    [844, 908, 932, 936, 925, 908, 881, 850, 818, 784, 751, 718, 685, 658, 628, 603, 580]
    + [558, 538, 522, 506, 490, 478, 467, 457, 448, 438, 431, 424, 420, 414, 411, 406]
)


def osborne_1(x: Array) -> Array:
    (a, b, c, d, e), t = parts(x), 10 * (counted(33) - 1)
    return OSBORNE_1 / 1000 - (a + b * np.exp(-t * d) + c * np.exp(-t * e))


def biggs(x: Array) -> Array:
    (a, b, c, d, e, f), t = parts(x), counted(13) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return c * np.exp(-t * a) - d * np.exp(-t * b) + f * np.exp(-t * e) - y


OSBORNE_2 = np.array(
    [1366, 1191, 1112, 1013, 991, 885, 831, 847, 786, 725, 746, 679, 608, 655, 616, 606, 602]
    + [626, 651, 724, 649, 649, 694, 644, 624, 661, 612, 558, 533, 495, 500, 423, 395, 375, 372]
    + [391, 396, 405, 428, 429, 523, 562, 607, 653, 672, 708, 633, 668, 645, 632, 591, 559, 597]
    + [625, 739, 710, 729, 720, 636, 581, 428, 292, 162, 98, 54]
)


def osborne_2(x: Array) -> Array:
    a, t = parts(x), (counted(65) - 1) / 10
    bells = [a[i] * np.exp(-a[4 + i] * (t - a[7 + i]) ** 2) for i in (1, 2, 3)]
    return OSBORNE_2 / 1000 - (a[0] * np.exp(-t * a[4]) + bells[0] + bells[1] + bells[2])


def watson(x: Array) -> Array:
    n = x.shape[-1]
    t, j = counted(29)[:, None] / 29, np.arange(n)
    slope = x[..., 1:] @ (j[1:] * t ** (j[1:] - 1)).T
    value = x @ (t**j).T
    a, b = x[..., :1], x[..., 1:2]
    return joined(slope - value**2 - 1, a, b - a * a - 1)


def penalty_1(x: Array) -> Array:
    return joined(1e-5**0.5 * (x - 1), (x * x).sum(-1, keepdims=True) - 0.25)


def penalty_2(x: Array) -> Array:
    n, tenth = x.shape[-1], np.exp(x / 10)
    i = np.arange(2, n + 1)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    pairs = 1e-5**0.5 * (tenth[..., 1:] + tenth[..., :-1] - y)
    alone = 1e-5**0.5 * (tenth[..., 1:] - np.exp(-0.1))
    weighted = (np.arange(n, 0, -1) * x * x).sum(-1, keepdims=True) - 1
    return joined(x[..., :1] - 0.2, pairs, alone, weighted)


def variably_dimensioned(x: Array) -> Array:
    weighted = (counted(x.shape[-1]) * (x - 1)).sum(-1, keepdims=True)
    return joined(x - 1, weighted, weighted**2)


def trigonometric(x: Array) -> Array:
    n = x.shape[-1]
    return n - np.cos(x).sum(-1, keepdims=True) + counted(n) * (1 - np.cos(x)) - np.sin(x)


def brown_almost_linear(x: Array) -> Array:
    n = x.shape[-1]
    return joined(x[..., :-1] + x.sum(-1, keepdims=True) - (n + 1), x.prod(-1, keepdims=True) - 1)


def shifted(x: Array) -> tuple[Array, Array]:
    """The unknowns before and after each, zeros at the ends."""
    zero = np.zeros_like(x[..., :1])
    before = np.concatenate([zero, x[..., :-1]], -1)
    return before, np.concatenate([x[..., 1:], zero], -1)


def boundary_value(x: Array) -> Array:
    n = x.shape[-1]
    h, (before, after) = 1 / (n + 1), shifted(x)
    return 2 * x - before - after + h * h * (x + h * counted(n) + 1) ** 3 / 2


def integral_equation(x: Array) -> Array:
    n = x.shape[-1]
    h = 1 / (n + 1)
    t = h * counted(n)
    cubes = (x + t + 1) ** 3
    kernel = np.minimum((1 - t[:, None]) * t, t[:, None] * (1 - t))
    return x + h / 2 * (cubes @ kernel.T)


def broyden_tridiagonal(x: Array) -> Array:
    before, after = shifted(x)
    return (3 - 2 * x) * x - before - 2 * after + 1


def broyden_banded(x: Array) -> Array:
    n = x.shape[-1]
    apart = counted(n)[:, None] - counted(n)
    band = (apart <= 5) & (apart >= -1) & (apart != 0)
    return x * (2 + 5 * x * x) + 1 - (x * (1 + x)) @ band.T.astype(float)


def linear_full_rank(x: Array, m: int = 20) -> Array:
    n = x.shape[-1]
    total = 2 / m * x.sum(-1, keepdims=True)
    return joined(x - total - 1, np.repeat(-total - 1, m - n, axis=-1))


def chebyquad(x: Array) -> Array:
    n = x.shape[-1]
    before, now, means = np.ones_like(x), 2 * x - 1, []
    for i in range(1, n + 1):
        means.append(now.mean(-1, keepdims=True) - (-1 / (i * i - 1) if i % 2 == 0 else 0))
        before, now = now, 2 * (2 * x - 1) * now - before
    return joined(*means)


MGH = (
    Problem("1 Rosenbrock", rosenbrock, (-1.2, 1)),
    Problem("2 Freudenstein and Roth", freudenstein_roth, (0.5, -2), (0, 48.98425)),
    Problem("3 Powell badly scaled", powell_badly_scaled, (0, 1)),
    Problem("4 Brown badly scaled", brown_badly_scaled, (1, 1)),
    Problem("5 Beale", beale, (1, 1)),
    Problem("6 Jennrich and Sampson", jennrich_sampson, (0.3, 0.4), (124.3621824,)),
    Problem("7 Helical valley", helical_valley, (-1, 0, 0)),
    Problem("8 Bard", bard, (1, 1, 1), (8.214877e-3, 17.42869)),
    Problem("9 Gaussian", gaussian, (0.4, 1, 0), (1.127933e-8,)),
    Problem("10 Meyer", meyer, (0.02, 4000, 250), (87.94586,)),
    Problem("11 Gulf", gulf, (5, 2.5, 0.15), (0, 0.0380)),
    Problem("12 Box", box, (0, 10, 20), (0, 0.07558874)),
    Problem("13 Powell singular", powell_singular, (3, -1, 0, 1)),
    Problem("14 Wood", wood, (-3, -1, -3, -1)),
    Problem("15 Kowalik and Osborne", kowalik_osborne, (0.25, 0.39, 0.415, 0.39), (3.0750561e-4,)),
    Problem("16 Brown and Dennis", brown_dennis, (25, 5, -5, -1), (85822.20163,)),
    Problem("17 Osborne 1", osborne_1, (0.5, 1.5, -1, 0.01, 0.02), (5.4648947e-5,)),
    Problem("18 Biggs", biggs, (1, 2, 1, 1, 1, 1), (0, 5.655650e-3, 0.30636677)),
    Problem(
        "19 Osborne 2",
        osborne_2,
        (1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5),
        (4.0137736e-2, 1.789814),
    ),
    Problem("20 Watson", watson, (0,) * 6, (2.2876701e-3,)),
    Problem("21 Rosenbrock, n = 10", rosenbrock, (-1.2, 1) * 5),
    Problem("22 Powell singular, n = 12", powell_singular, (3, -1, 0, 1) * 3),
    Problem("23 Penalty I", penalty_1, (1, 2, 3, 4), (2.2499775e-5,)),
    Problem("24 Penalty II", penalty_2, (0.5,) * 4, (9.3762932e-6,)),
    Problem("25 Variably dimensioned", variably_dimensioned, tuple(1 - counted(10) / 10)),
    Problem("26 Trigonometric", trigonometric, (0.1,) * 10, (0, 2.7950561e-5)),
    Problem("27 Brown almost linear", brown_almost_linear, (0.5,) * 10, (0, 1)),
    Problem("28 Boundary value", boundary_value, tuple(t * (t - 1) for t in counted(10) / 11)),
    Problem(
        "29 Integral equation", integral_equation, tuple(t * (t - 1) for t in counted(10) / 11)
    ),
    Problem("30 Broyden tridiagonal", broyden_tridiagonal, (-1,) * 10),
    Problem("31 Broyden banded", broyden_banded, (-1,) * 10),
    Problem("32 Linear, full rank", linear_full_rank, (1,) * 10, (10,)),
    Problem("35 Chebyquad, n = 8", chebyquad, tuple(counted(8) / 9), (3.5168737e-3,)),
)


def steep(x: Array) -> Array:
    return rosenbrock(x, 1e4)


def barrier(x: Array) -> Array:
    """Not a number beyond x = 0, and its minimum close to that."""
    return joined(np.sqrt(x), x - 1e-4, 1e-3 / np.sqrt(x))


def hole(x: Array) -> Array:
    """Not a number in the disk that lies on the way."""
    inside = (x.real**2).sum(-1, keepdims=True) < 0.25
    return np.where(inside, np.nan, x - np.array([0.4, 0.5]))


BEYOND = (
    Problem("narrow valley", steep, (-1.2, 1)),
    Problem("narrow valleys, n = 10", steep, (-1.2, 1) * 5),
    Problem("edge of a domain", barrier, (1.0, 2.0), (4.0016184e-3,)),
    Problem("a hole in the way", hole, (-1.0, -1.2), (0, inf)),
    Problem("flat, x⁴", lambda x: x**4, (2.0, -1.0)),
    Problem("a flat tail", lambda x: 1 - np.exp(-x * x / 2), (4.0, 3.0), (0, 1, 2)),
    Problem("no minimum, e⁻ˣ", lambda x: np.exp(-x / 2), (0.0, 1.0)),
    Problem("ill-conditioned, 10¹²", lambda x: x * np.array([1, 1e3, 1e6]), (1.0, 1.0, 1.0)),
)


@dataclass(frozen=True)
class Fit:
    """A model of one variable, the data, NIST's two starts, and the certified sum of squares."""

    name: str
    model: Callable[..., Array]
    at: Array
    data: Array
    starts: tuple[tuple[float, ...], ...]
    certified: float

    def problems(self) -> list[Problem]:
        def residual(x: Array) -> Array:
            return self.model(self.at, *parts(x)) - self.data

        return [
            Problem(f"{self.name}, start {number}", residual, start, (self.certified,))
            for number, start in enumerate(self.starts, 1)
        ]


MISRA_AT = np.array(
    [77.6, 114.9, 141.1, 190.8, 239.9, 289, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760]
)
MISRA = np.array(
    [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.4, 75.47]
    + [81.78]
)
THURBER = np.array(
    [80.574, 84.248, 87.264, 87.195, 89.076, 89.608, 89.868, 90.101, 92.405, 95.854, 100.696]
    + [101.06, 401.672, 390.724, 567.534, 635.316, 733.054, 759.087, 894.206, 990.785, 1090.109]
    + [1080.914, 1122.643, 1178.351, 1260.531, 1273.514, 1288.339, 1327.543, 1353.863, 1414.509]
    + [1425.208, 1421.384, 1442.962, 1464.35, 1468.705, 1447.894, 1457.628]
)
THURBER_AT = np.array(
    [-3.067, -2.981, -2.921, -2.912, -2.84, -2.797, -2.702, -2.699, -2.633, -2.481, -2.363]
    + [-2.322, -1.501, -1.46, -1.274, -1.212, -1.1, -1.046, -0.915, -0.714, -0.566, -0.545, -0.4]
    + [-0.309, -0.109, -0.103, 0.01, 0.119, 0.377, 0.79, 0.963, 1.006, 1.115, 1.572, 1.841, 2.047]
    + [2.2]
)
ECKERLE = np.array(
    [1575, 1699, 2350, 3102, 4917, 8710, 17418, 46400, 65895, 97302, 149002, 237310, 401683]
    + [712559, 1264458, 2073413, 2902366, 3445623, 3698049, 3668534, 3106727, 2078154, 1164354]
    + [616764, 337200, 194023, 117831, 74357, 22732, 8800, 4579, 2345, 1586, 1143, 710]
)
ECKERLE_AT = np.concatenate(
    [np.arange(400, 436, 5), np.arange(436.5, 464, 1.5), np.arange(465, 501, 5)]
)
LANCZOS_AT = np.arange(24) * 0.05


def exponentials(t: Array, a: Array, b: Array, c: Array, d: Array, e: Array, f: Array) -> Array:
    return a * np.exp(-b * t) + c * np.exp(-d * t) + e * np.exp(-f * t)


LANCZOS = exponentials(LANCZOS_AT, *np.array([0.0951, 1, 0.8607, 3, 1.5576, 5]))
LANCZOS_STARTS = ((1.2, 0.3, 5.6, 5.5, 6.5, 7.6), (0.5, 0.7, 3.6, 4.2, 4, 6.3))

NIST = (
    Fit(
        "Misra1a",
        lambda t, a, b: a * (1 - np.exp(-b * t)),
        *(MISRA_AT, MISRA, ((500, 1e-4), (250, 5e-4)), 0.12455138894),
    ),
    Fit(
        "Misra1b",
        lambda t, a, b: a * (1 - (1 + b * t / 2) ** -2),
        *(MISRA_AT, MISRA, ((500, 1e-4), (300, 2e-4)), 0.075464681533),
    ),
    Fit(
        "Misra1c",
        lambda t, a, b: a * (1 - (1 + 2 * b * t) ** -0.5),
        *(MISRA_AT, MISRA, ((500, 1e-4), (600, 2e-4)), 0.040966836971),
    ),
    Fit(
        "Misra1d",
        lambda t, a, b: a * b * t / (1 + b * t),
        *(MISRA_AT, MISRA, ((500, 1e-4), (450, 3e-4)), 0.056419295283),
    ),
    Fit(
        "DanWood",
        lambda t, a, b: a * t**b,
        np.array([1.309, 1.471, 1.49, 1.565, 1.611, 1.68]),
        np.array([2.138, 3.421, 3.597, 4.34, 4.882, 5.66]),
        *(((1, 5), (0.7, 4)), 0.0043173084083),
    ),
    Fit(
        "BoxBOD",
        lambda t, a, b: a * (1 - np.exp(-b * t)),
        np.array([1, 2, 3, 5, 7, 10]),
        np.array([109, 149, 149, 191, 213, 224]),
        *(((1, 1), (100, 0.75)), 1168.0088766),
    ),
    Fit(
        "Rat42",
        lambda t, a, b, c: a / (1 + np.exp(b - c * t)),
        np.array([9, 14, 21, 28, 42, 57, 63, 70, 79]),
        np.array([8.93, 10.8, 18.59, 22.33, 39.35, 56.11, 61.73, 64.62, 67.08]),
        *(((100, 1, 0.1), (75, 2.5, 0.07)), 8.0565229338),
    ),
    Fit(
        "Rat43",
        lambda t, a, b, c, d: a / (1 + np.exp(b - c * t)) ** (1 / d),
        counted(15),
        np.array(
            [16.08, 33.83, 65.8, 97.2, 191.55, 326.2, 386.87, 520.53, 590.03, 651.92, 724.93]
            + [699.56, 689.96, 637.56, 717.41]
        ),
        *(((100, 10, 1, 1), (700, 5, 0.75, 1.3)), 8786.404908),
    ),
    Fit(
        "MGH09",
        lambda u, a, b, c, d: a * (u * u + u * b) / (u * u + u * c + d),
        *(KOWALIK_AT, KOWALIK, ((25, 39, 41.5, 39), (0.25, 0.39, 0.415, 0.39)), 3.0750560385e-4),
    ),
    Fit(
        "MGH10",
        lambda t, a, b, c: a * np.exp(b / (t + c)),
        *(45 + 5 * counted(16), MEYER, ((2, 4e5, 25000), (0.02, 4000, 250)), 87.945855171),
    ),
    Fit(
        "MGH17",
        lambda t, a, b, c, d, e: a + b * np.exp(-t * d) + c * np.exp(-t * e),
        10 * (counted(33) - 1),
        OSBORNE_1 / 1000,
        *(((50, 150, -100, 1, 2), (0.5, 1.5, -1, 0.01, 0.02)), 5.4648946975e-5),
    ),
    Fit(
        "Thurber",
        lambda t, a, b, c, d, e, f, g: (
            (a + t * (b + t * (c + t * d))) / (1 + t * (e + t * (f + t * g)))
        ),
        *(THURBER_AT, THURBER),
        ((1000, 1000, 400, 40, 0.7, 0.3, 0.03), (1300, 1500, 500, 75, 1, 0.4, 0.05)),
        5642.7082397,
    ),
    Fit(
        "Eckerle4",
        lambda t, a, b, c: a / b * np.exp(-(((t - c) / b) ** 2) / 2),
        *(ECKERLE_AT, ECKERLE / 1e7, ((1, 10, 500), (1.5, 5, 450)), 1.4635887487e-3),
    ),
    Fit(
        "Lanczos3",
        exponentials,
        *(LANCZOS_AT, np.round(LANCZOS, 4), LANCZOS_STARTS, 1.6117193594e-8),
    ),
)
