"""What counts as held: pairs of runs, their medians and quartiles, and how rows are printed and written down.

A row compares ringcast with a reference (mostly the floor program) in pairs of runs that follow each other. Its
ratio holds when the median of at least PAIRS pairs is at most the bound + TOLERANCE (at least the bound -
TOLERANCE, where more is better). A set whose quartiles lie further than SPREAD apart says nothing: it is void.
A row without a reference holds absolute values (bytes), and is judged by their median.
"""
import dataclasses
import statistics

PAIRS, TOLERANCE, SPREAD = 9, 0.02, 0.10


@dataclasses.dataclass
class Row:
    """`kind`: "ratio" (pairs of reference and ringcast) or "value". Without a bound it is there to be read."""
    id: str
    name: str
    unit: str
    most: float = None
    least: float = None
    kind: str = "ratio"
    reference: str = "floor"

    def bound(self):
        if self.most is None and self.least is None:
            return ""
        sign, limit = ("<=", self.most) if self.least is None else (">=", self.least)
        return f"{sign} {number(limit) if self.kind == 'value' else limit}"


@dataclasses.dataclass
class Result:
    """A row with what was measured: medians of both sides and the ratios' order statistics."""
    row: Row
    n: int = 0
    dropped: int = 0
    reference: float = None
    ringcast: float = None
    middle: float = None
    q1: float = None
    q3: float = None
    low: float = None
    high: float = None
    verdict: str = ""


def spread(values):
    """(median, first and third quartile, least, most) of at least one value."""
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return statistics.median(values), q1, q3, min(values), max(values)


def judge(row, data):
    """data: {"pairs": [[reference, ringcast], ...] or [value, ...], "dropped": n}"""
    pairs = data.get("pairs", [])
    r = Result(row, len(pairs), data.get("dropped", 0))
    if not pairs:
        r.verdict = "void: the premise never held" if r.dropped else ""
        return r
    if row.kind == "value":
        ratios = pairs
        r.ringcast = statistics.median(pairs)
    else:
        ratios = [b / a if a else float("inf") for a, b in pairs]
        r.reference = statistics.median(a for a, _ in pairs)
        r.ringcast = statistics.median(b for _, b in pairs)
    r.middle, r.q1, r.q3, r.low, r.high = spread(ratios)
    r.verdict = verdict(row, r)
    return r


def verdict(row, r):
    if row.most is None and row.least is None:
        return ""
    if row.kind == "value":
        held = r.middle <= row.most if row.least is None else r.middle >= row.least
        return "met" if held else "not met"
    if r.n < PAIRS:
        return f"{r.n} of {PAIRS} pairs"
    if r.q3 - r.q1 > SPREAD:
        return "void: quartiles too far apart"
    held = r.middle <= row.most + TOLERANCE if row.least is None else r.middle >= row.least - TOLERANCE
    return "met" if held else "not met"


def number(v):
    if v is None:
        return ""
    if abs(v) >= 1000:
        return f"{v:,.0f}"
    return f"{v:.3g}" if abs(v) < 1 else f"{v:.2f}" if abs(v) < 100 else f"{v:.0f}"


def ratio_text(r):
    if r.middle is None:
        return f"0 pairs ({r.dropped} dropped)" if r.dropped else ""
    if r.row.kind == "value":
        return f"{number(r.low)}-{number(r.high)}" if r.n > 1 else ""
    return f"{r.middle:.2f} [{r.q1:.2f}-{r.q3:.2f}] {r.low:.2f}-{r.high:.2f}"


def pairs_text(r):
    return f"{r.n}" + (f" (-{r.dropped})" if r.dropped else "")


HEAD = f"{'':76} {'reference':>11} {'ringcast':>11} {'':4} {'ratio [Q1-Q3] min-max':30} {'n':>7} {'bound':>9}"


def line(r):
    """One line of the table on the terminal."""
    return (f"{r.row.name:76.76} {number(r.reference):>11} {number(r.ringcast):>11} {r.row.unit:4} {ratio_text(r):30} "
            f"{pairs_text(r):>7} {r.row.bound():>9} {r.verdict}")


def markdown(results):
    """The table of docs/benchmarks.md."""
    lines = ["| | what | reference | ringcast | ratio [quartiles] least-most | pairs | must be | |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in results:
        goal, unit = r.row.id.split(".")[0], f" {r.row.unit}" if r.row.unit else ""
        reference = f"{number(r.reference)}{unit}" if r.reference is not None else ""
        ours = f"{number(r.ringcast)}{unit}" if r.ringcast is not None else ""
        lines.append(f"| {goal} | {r.row.name} | {reference} | {ours} | {ratio_text(r)} | {pairs_text(r)} | "
                     f"{r.row.bound()} | {r.verdict} |")
    return lines
