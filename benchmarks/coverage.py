"""How often each interval we print holds the truth: 2,000 simulated runs for each size and true rate.

    python benchmarks/coverage.py [--write] [CASE ...]      all cases, or some: kappa, corrected_ppi, ...

--write puts their lines into the table of docs/coverage.md.

At nominal 95% each must hold it 93% of the time or more, and 98% at most where the counts are not too few for that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom

from harness.judges.agreement import Pair, Rate, f1_rate, kappa_rate
from harness.stats.correction import Corrected, Labels, ppi, rogan_gladen
from harness.stats.intervals import Interval, clustered, mean, rate
from harness.stats.paired import Pairs
from harness.stats.resample import bootstrap_ratio, pass_at_k

DRAWS = 2000
SIZES = (50, 200, 1000)
RATES = (0.01, 0.10, 0.50)
LEAST, MOST = 0.93, 0.98
SENSITIVITY, SPECIFICITY = 0.9, 0.95
ALIKE = 0.3  # correlation of attempts on one behavior

Rng = np.random.Generator
Draw = Callable[[Rng, int, float], Interval | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One interval: how to draw it, the truth, and how many events there must be for 98% to be within reach."""

    name: str
    what: str
    draw: Draw
    enough: Callable[[int, float], bool]
    truth: Callable[[float], float] = lambda p: p
    rates: tuple[float, ...] = RATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    index: int
    n: int
    p: float
    held: float
    given: float  # share of draws in which an interval was printed at all
    width: float

    @property
    def case(self) -> Case:
        return CASES[self.index]


def behaviors(rng: Rng, n: int, p: float, attempts: int, alike: float) -> list[list[float]]:
    """0/1 outcomes of several attempts on each of `n` behaviors whose own rates spread around `p`."""
    scale = (1 - alike) / alike
    own = rng.beta(p * scale, (1 - p) * scale, n)
    drawn: list[list[float]] = (rng.random((n, attempts)) < own[:, None]).astype(float).tolist()
    return drawn


def several(rng: Rng, n: int, p: float) -> Interval:
    return clustered(behaviors(rng, n, p, 5, ALIKE))


def same_again(rng: Rng, n: int, p: float) -> Interval:
    return clustered([[x] * 3 for x in (rng.random(n) < p).astype(float).tolist()])


def marks(rng: Rng, n: int, p: float) -> Interval:
    """Half marks as well: 0, .5 or 1, the mean being p."""
    half = min(p, 1 - p) / 2
    return clustered([[x] for x in rng.choice([0.0, 0.5, 1.0], n, p=[1 - p - half / 2, half, p - half / 2]).tolist()])


def tokens(rng: Rng, n: int, p: float) -> Interval | None:
    """Tokens given before a refusal: none for four in five replies, an exponential number for the rest."""
    return mean([[x] for x in (rng.exponential(50, n) * (rng.random(n) < 0.2)).tolist()])


def judge(rng: Rng, truth: np.ndarray) -> np.ndarray:
    return np.where(truth > 0, rng.random(len(truth)) < SENSITIVITY, rng.random(len(truth)) > SPECIFICITY).astype(float)


def corrected_ppi(rng: Rng, n: int, p: float) -> Interval | None:
    """n labels drawn from 3 n judged attempts."""
    truth = (rng.random(3 * n) < p).astype(float)
    result = ppi(judge(rng, truth).tolist(), [*truth[:n].tolist(), *[None] * (2 * n)])
    return (result.low, result.high) if isinstance(result, Corrected) else None


def corrected_ppi_several(rng: Rng, n: int, p: float) -> Interval | None:
    """The same where three attempts share a behavior; n labels drawn at random."""
    truth = np.array(behaviors(rng, n, p, 3, ALIKE)).ravel()
    drawn = set(rng.permutation(3 * n)[:n].tolist())
    human = [float(t) if i in drawn else None for i, t in enumerate(truth)]
    result = ppi(judge(rng, truth).tolist(), human, clusters=[i // 3 for i in range(3 * n)])
    return (result.low, result.high) if isinstance(result, Corrected) else None


def corrected_rogan_gladen(rng: Rng, n: int, p: float) -> Interval | None:
    """n judged attempts; the judge's errors known from n labels elsewhere, half of them violations."""
    hits, rejections = rng.binomial(n // 2, SENSITIVITY), rng.binomial(n // 2, SPECIFICITY)
    labels = Labels(hits=int(hits), positives=n // 2, correct_rejections=int(rejections), negatives=n // 2)
    result = rogan_gladen([[x] for x in judge(rng, rng.random(n) < p).tolist()], labels)
    return (result.low, result.high) if isinstance(result, Corrected) else None


def informedness(rng: Rng, n: int, p: float) -> Interval:
    hits, rejections = rng.binomial(n // 2, SENSITIVITY), rng.binomial(n // 2, SPECIFICITY)
    labels = Labels(hits=int(hits), positives=n // 2, correct_rejections=int(rejections), negatives=n // 2)
    return labels.informedness()[1:]


def against(rng: Rng, truth: np.ndarray, alike: int) -> list[list[Pair]]:
    """A judge against labels, `alike` replies of each behavior."""
    pairs = list(zip((judge(rng, truth) > 0).tolist(), (truth > 0).tolist(), strict=True))
    return [pairs[i : i + alike] for i in range(0, len(pairs), alike)]


def ends(found: Rate) -> Interval | None:
    return None if found.low is None or found.high is None else (found.low, found.high)


def kappa(rng: Rng, n: int, p: float) -> Interval | None:
    return ends(kappa_rate(against(rng, (rng.random(n) < p).astype(float), 1)))


def kappa_several(rng: Rng, n: int, p: float) -> Interval | None:
    return ends(kappa_rate(against(rng, np.array(behaviors(rng, n, p, 3, ALIKE)).ravel(), 3)))


def f1(rng: Rng, n: int, p: float) -> Interval | None:
    return ends(f1_rate(against(rng, (rng.random(n) < p).astype(float), 1)))


def kappa_truth(p: float) -> float:
    said = p * SENSITIVITY + (1 - p) * (1 - SPECIFICITY)
    chance = said * p + (1 - said) * (1 - p)
    return (p * SENSITIVITY + (1 - p) * SPECIFICITY - chance) / (1 - chance)


def f1_truth(p: float) -> float:
    return 2 * p * SENSITIVITY / (2 * p * SENSITIVITY + p * (1 - SENSITIVITY) + (1 - p) * (1 - SPECIFICITY))


def repeated(rng: Rng, n: int, p: float) -> Interval:
    """pass@3 from 5 attempts on each behavior."""
    return pass_at_k([(5, int(sum(b))) for b in behaviors(rng, n, p, 5, ALIKE)], 3)[1:]


def repeated_truth(p: float) -> float:
    """1 - E[(1 - own rate)^3] under the same spread of own rates."""
    scale = (1 - ALIKE) / ALIKE
    b = (1 - p) * scale
    return 1 - float(np.prod([(b + i) / (scale + i) for i in range(3)]))


def difference(rng: Rng, n: int, p: float) -> Interval:
    """Two runs of one model: the share p of behaviors changes its mind, either way."""
    return Pairs(tuple((x,) for x in rng.choice([1.0, 0.0, -1.0], n, p=[p / 2, 1 - p, p / 2]).tolist())).interval()


def cost(rng: Rng, n: int, p: float) -> Interval:
    """Tokens of two runs behavior by behavior, both spread widely, the second a tenth more on average."""
    base = rng.gamma(3, 50, n)
    return bootstrap_ratio((base * rng.gamma(10, 0.11, n)).tolist(), base.tolist(), seed=int(rng.integers(2**32)))


def events(least: int) -> Callable[[int, float], bool]:
    """Whether so many of the rarer outcome are to be expected."""
    return lambda n, p: n * min(p, 1 - p) >= least


def always(n: int, p: float) -> bool:
    return True


def labelled(n: int, p: float) -> bool:
    """Violations, and mistakes of the judge, among the labels."""
    return n * p >= 15 and n * (p * (1 - SENSITIVITY) + (1 - p) * (1 - SPECIFICITY)) >= 15


def mistakes(n: int, p: float) -> bool:
    """Mistakes of either kind among n/2 labels of each kind, and violations judged."""
    return n / 2 * (1 - max(SENSITIVITY, SPECIFICITY)) >= 5 and n * p >= 5


ONCE = (0.10,)  # for what does not depend on the true rate
CASES = (
    Case(name="rate", what="ASR and every other rate, one attempt a behavior", draw=lambda *_: None, enough=events(5)),
    Case(name="several", what="the same, 5 attempts a behavior (correlation .3)", draw=several, enough=events(5)),
    Case(name="same_again", what="the same, 3 seeds that always agree", draw=same_again, enough=events(5)),
    Case(name="marks", what="helpfulness with half marks", draw=marks, enough=events(5)),
    Case(name="pass_at_k", what="pass@3 from 5 attempts", draw=repeated, enough=events(5), truth=repeated_truth),
    Case(name="corrected_ppi", what="corrected ASR, PPI, n of 3n labelled", draw=corrected_ppi, enough=labelled),
    Case(
        name="corrected_ppi_several",
        what="corrected ASR, PPI, 3 attempts a behavior, n of 3n labelled",
        draw=corrected_ppi_several,
        enough=labelled,
    ),
    Case(
        name="corrected_rogan_gladen",
        what="corrected ASR, Rogan-Gladen, n labels elsewhere",
        draw=corrected_rogan_gladen,
        enough=mistakes,
    ),
    Case(
        name="informedness",
        what="sensitivity + specificity - 1, n labels",
        draw=informedness,
        enough=mistakes,
        truth=lambda p: SENSITIVITY + SPECIFICITY - 1,
        rates=ONCE,
    ),
    Case(name="kappa", what="kappa with n labels", draw=kappa, enough=labelled, truth=kappa_truth),
    Case(
        name="kappa_several",
        what="kappa, 3 labelled replies of each of n behaviors",
        draw=kappa_several,
        enough=labelled,
        truth=kappa_truth,
    ),
    Case(name="f1", what="F1 with n labels", draw=f1, enough=labelled, truth=f1_truth),
    Case(
        name="difference",
        what="change of a rate between two runs (p: share that changes)",
        draw=difference,
        enough=events(5),
        truth=lambda p: 0.0,
    ),
    Case(name="cost", what="cost of one run over another's", draw=cost, enough=always, truth=lambda p: 1.1, rates=ONCE),
    Case(
        name="tokens",
        what="tokens given before a refusal",
        draw=tokens,
        enough=always,
        truth=lambda p: 10.0,
        rates=ONCE,
    ),
)


def measure(index: int, n: int, p: float) -> Cell:
    case = CASES[index]
    rng = np.random.default_rng([n, round(p * 100), len(case.name)])
    if case.name == "rate":  # evenly spread draws: the counts, and so the coverage, carry almost no noise
        counts = binom.ppf((np.arange(DRAWS) + rng.random(DRAWS)) / DRAWS, n, p).astype(int)
        known = {k: rate(int(k), n) for k in np.unique(counts)}
        drawn: list[Interval] = [known[k] for k in counts]
    else:
        drawn = [found for _ in range(DRAWS) if (found := case.draw(rng, n, p)) is not None]
    truth = case.truth(p)
    held = sum(low <= truth <= high for low, high in drawn) / max(len(drawn), 1)
    width = sum(high - low for low, high in drawn) / max(len(drawn), 1)
    return Cell(index=index, n=n, p=p, held=held, given=len(drawn) / DRAWS, width=width)


def rows(cells: list[Cell]) -> Iterator[str]:
    yield "| interval | n | true rate | holds the truth | mean width | printed | |"
    yield "|---|---|---|---|---|---|---|"
    for cell in cells:
        p = "-" if cell.case.rates == ONCE else f"{cell.p:.0%}"
        few = "" if cell.case.enough(cell.n, cell.p) else "few events"
        yield f"| {cell.case.what} | {cell.n} | {p} | {cell.held:.1%} | {cell.width:.3g} | {cell.given:.0%} | {few} |"


INTRO = """# How often our intervals hold the truth

Made by `python benchmarks/coverage.py --write`: {draws:,} simulated runs for each line, nominal 95%.
The bound is 93% or more everywhere, and 98% or less where the counts are not too few for that.

Counts come in whole numbers, so an interval for a rare outcome can't hold the truth exactly 95% of the time:
at n = 50 and a true rate of 1% the choice is between 91% (Wilson's interval, which leaves out two events) and
99% (which takes them in). We take the second. Lines with fewer than 5 expected events are marked "few events" and
may lie above 98%; for a corrected rate that is fewer than 15 violations or 15 mistakes of the judge among the
labels, for Rogan-Gladen fewer than 5 of either.

Judge of the corrected rates: sensitivity {sensitivity:g}, specificity {specificity:g}. "Printed" is how often the
labels showed the judge to be better than a coin; otherwise no corrected number is printed, and the coverage is over
the rest.

"""


def write(cells: list[Cell]) -> None:
    """The document with these cells; the lines of cases that were not measured now stay as they are."""
    path = Path(__file__).resolve().parent.parent / "docs" / "coverage.md"
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    now = list(rows(cells))
    measured = {cell.case.what for cell in cells}
    lines = now[:2]
    for case in CASES:
        source = now if case.what in measured else before
        lines += [line for line in source if line.startswith(f"| {case.what} |")]
    intro = INTRO.format(draws=DRAWS, sensitivity=SENSITIVITY, specificity=SPECIFICITY)
    path.write_text(intro + "\n".join(lines) + "\n", encoding="utf-8")


def report(name: str, ratio: float, bound: float, *, most: bool) -> bool:
    ok = ratio <= bound if most else ratio >= bound
    print(f"{name} ratio={ratio:.3f} bound{'<=' if most else '>='}{bound:.2f} {'ok' if ok else 'short'}", flush=True)
    return ok


def main() -> int:
    names = [name for name in sys.argv[1:] if name != "--write"] or [case.name for case in CASES]
    cases = [(i, case) for i, case in enumerate(CASES) if case.name in names]
    if len(cases) < len(names):
        sys.exit(f"cases: {', '.join(case.name for case in CASES)}")
    asked = [(i, n, p) for i, case in cases for n in SIZES for p in case.rates]
    with ProcessPoolExecutor() as pool:
        cells = list(pool.map(measure, *zip(*asked, strict=True)))
    print("\n".join(rows(cells)))
    if "--write" in sys.argv:
        write(cells)
    good = []
    for _, case in cases:
        mine = [c for c in cells if c.case is case]
        good.append(report(f"coverage_{case.name}", min(c.held for c in mine), LEAST, most=False))
        if enough := [c.held for c in mine if case.enough(c.n, c.p)]:
            good.append(report(f"coverage_{case.name}_most", max(enough), MOST, most=True))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
