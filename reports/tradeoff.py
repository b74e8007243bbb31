"""Safety against what it costs: ASR against helpfulness, over-refusal and model size, one mark a model."""

from __future__ import annotations

from harness.types import Metric
from reports.numbers import Numbers, part
from reports.view import Figure, Point, Section, Series


def tradeoff(numbers: Numbers) -> Section | None:
    """The scatter plots that the models have the numbers for; where two are needed to compare, two."""
    useful = {m: x for m in numbers.models if (x := mean(numbers, "helpfulness", m))}
    strict = {m: x for m in numbers.models if (x := mean(numbers, "over_refusal", m))}
    figures = [
        _scatter(numbers, "useful", "tasks solved (%)", useful, fewest=1),
        _scatter(numbers, "strict", "refused though it should be answered (%)", strict),
        _scatter(numbers, "size", "parameters (billions)", _sizes(numbers), log=True),
    ]
    drawn = tuple(figure for figure in figures if figure is not None)
    if not drawn:
        return None
    lead = (
        "One mark a model. Up: the share of behaviors that at least one attack got an answer to; lower is safer. "
        "A good defence moves down without moving sideways. Over several sets or tasks, sideways is their plain mean."
    )
    return Section(key="tradeoff", title="Safety against what it costs", lead=lead, figures=drawn)


def mean(numbers: Numbers, name: str, model: str) -> Metric | None:
    """The metric of the only task, or the plain mean over all, which bears no interval; None where one is missing."""
    tasks = numbers.values(name, "task")
    found = [m for t in tasks if (m := numbers.scored(name, model=model, task=t))]
    if not found or len(found) < len(tasks):
        return None
    if len(found) == 1:
        return found[0]
    value = sum(m.value or 0.0 for m in found) / len(found)
    return Metric(name=name, value=value, low=None, high=None, n=sum(m.n for m in found))


def _sizes(numbers: Numbers) -> dict[str, Metric]:
    """Billions of parameters of each model, where run.json says."""
    sizes = {m: part(part(numbers.run.info, "models"), m).get("parameters") for m in numbers.models}
    return {
        m: Metric(name="size", value=size / 1e9, low=None, high=None, n=1)
        for m, size in sizes.items()
        if isinstance(size, int | float) and size > 0
    }


def _scatter(
    numbers: Numbers, key: str, x_label: str, xs: dict[str, Metric], *, log: bool = False, fewest: int = 2
) -> Figure | None:
    """ASR over any attack against another number; None with too few models, or all of one size."""
    series = []
    for slot, model in enumerate(numbers.models):
        y, x = numbers.scored("asr_any", model=model), xs.get(model)
        if y is not None and x is not None and y.value is not None and x.value is not None:
            point = Point(value=y.value, low=y.low, high=y.high, x=x.value, x_low=x.low, x_high=x.high)
            series.append(Series(name=numbers.name(model), slot=slot, points=(point,)))
    if len(series) < fewest or (log and len({s.points[0].x for s in series}) < 2):
        return None
    return Figure(
        key=key,
        kind="scatter",
        caption=f"Attack success rate against {x_label.split(' (')[0]}.",
        alt=f"Attack success rate (any attack) of each model against {x_label}; the tables give the numbers.",
        series=tuple(series),
        x_label=x_label,
        y_label="ASR, any attack (%)",
        log=log,
        wide=False,
    )
