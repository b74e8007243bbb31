"""A verdict for machines and people: JUnit, SARIF, GitHub annotations, Markdown, JSON, a badge, plain text.

Names and ids come from run folders and are not trusted: each format gets them escaped in its own way.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from harness import __version__
from harness.gate.checks import Check, Outcome
from harness.gate.verdict import Verdict

LONGEST = 200  # characters of a name that are shown
LEVELS: dict[Outcome, str] = {"pass": "notice", "fail": "error", "inconclusive": "warning", "incomplete": "error"}
COLOURS: dict[Outcome, str] = {"pass": "#2e7d32", "fail": "#c62828", "inconclusive": "#b26a00", "incomplete": "#616161"}
MEANING: dict[Outcome, str] = {
    "pass": "every check keeps its limit",
    "fail": "the candidate is worse by more than chance explains",
    "inconclusive": "these runs are too small to tell",
    "incomplete": "the runs do not hold what the policy asks for",
}


def plain(text: str) -> str:
    """One line of printable characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:LONGEST]


def code(text: str) -> str:
    """Untrusted text in Markdown: a code span, where no markup, mention or HTML takes effect, safe in a table."""
    return f"`{plain(text).replace('`', chr(39)).replace('|', chr(92) + '|') or ' '}`"


def sentence(check: Check) -> str:
    """What a check showed, in words and numbers."""
    if check.candidate is None or check.low is None or check.high is None:
        return check.reason or "nothing to compare"
    if check.kind == "bound":
        what = f"{number(check.candidate)} ({number(check.low)} to {number(check.high)}), limit {number(check.limit)}"
    else:
        what = f"{number(check.baseline)} -> {number(check.candidate)}, worse by {number(check.difference)} "
        what += f"({number(check.low)} to {number(check.high)}), margin {number(check.limit)}"
    more = [f"p {check.p_family:.3g}"] if check.outcome == "fail" else []
    if check.outcome == "inconclusive" and check.needed:
        more.append(f"about {check.needed} behaviors would decide (now {check.behaviors})")
    more += ["identical replies"] if check.unchanged else []
    sides = " on both sides" if check.kind == "change" else ""
    more += [f"{check.lost} attempts not judged{sides}"] if check.lost else []
    more += [check.reason] if check.reason else []
    return "; ".join([what, *more])


def number(value: float | None) -> str:
    """A share to three places, anything larger to one."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def headline(verdict: Verdict) -> str:
    """The outcome in one line."""
    text = f"{verdict.outcome}: {MEANING[verdict.outcome]}"
    if verdict.outcome == "inconclusive" and verdict.needed:
        text += f" (about {verdict.needed} behaviors would decide)"
    if verdict.look:
        text += f"; look {verdict.look.number} of {verdict.look.of}, {verdict.look.saved:.0%} of the queries saved"
    return text


def to_text(verdict: Verdict) -> str:
    """For the terminal."""
    lines = [f"gate {headline(verdict)}", f"  models: {plain(verdict.baseline)} -> {plain(verdict.candidate)}"]
    lines += [f"  {c.outcome:12} {plain(label(c))}: {plain(sentence(c))}" for c in verdict.checks]
    if plan := max((c.for_ten for c in verdict.checks if c.for_ten and c.name.startswith("asr/")), default=None):
        lines.append(f"  a rise of 10 points in one attack would likely be found with {plan} behaviors")
    lines += [f"  {verdict.judge_error}"] if verdict.judge_error else []
    return "\n".join([*lines, *(f"  note: {plain(note)}" for note in verdict.notes)])


def label(check: Check) -> str:
    """A check's name, told apart from the bound on the same number."""
    return check.name if check.kind == "change" else f"{check.name} (limit)"


def to_json(verdict: Verdict) -> str:
    """Everything, for programs."""
    told = {"outcome": verdict.outcome, "exit_code": verdict.exit_code, "needed": verdict.needed}
    told |= {"judge_error": verdict.judge_error} | asdict(verdict)
    return json.dumps(told, indent=2, allow_nan=False, default=str) + "\n"


def to_markdown(verdict: Verdict) -> str:
    """For a pull-request comment or a step summary."""
    lines = [f"### Safety gate: {headline(verdict)}", ""]
    lines += [f"{code(verdict.baseline)} against {code(verdict.candidate)}, alpha {verdict.alpha:g}", ""]
    if verdict.checks:
        lines += ["| check | outcome | baseline | candidate | worse by | interval | limit | n |", "|" + "---|" * 8]
        lines += [_row(c) for c in verdict.checks]
    told = [f"- {code(label(c))} {code(c.reason)}" for c in verdict.checks if c.reason]
    told += [f"- {code(note)}" for note in verdict.notes]
    told += [f"- {verdict.judge_error}"] if verdict.judge_error else []
    return "\n".join([*lines, "", *told]).rstrip() + "\n"


def _row(check: Check) -> str:
    interval = "-" if check.low is None else f"{number(check.low)} to {number(check.high)}"
    outcome = (
        f"{check.outcome} (needs {check.needed})" if check.outcome == "inconclusive" and check.needed else check.outcome
    )
    cells = [code(label(check)), outcome, number(check.baseline), number(check.candidate), number(check.difference)]
    return "| " + " | ".join([*cells, interval, number(check.limit), str(check.n)]) + " |"


def comparison(verdict: Verdict) -> str:
    """What changed, without judging it: for `harness compare`."""
    lines = ["| number | baseline | candidate | worse by | interval | p | n |", "|" + "---|" * 7]
    for check in verdict.checks:
        if check.kind == "change" and check.n:
            interval = "-" if check.low is None else f"{number(check.low)} to {number(check.high)}"
            cells = [code(check.name), number(check.baseline), number(check.candidate), number(check.difference)]
            lines.append("| " + " | ".join([*cells, interval, f"{check.p:.3g}", str(check.n)]) + " |")
    return "\n".join([*lines, *(f"- {code(note)}" for note in verdict.notes)]) + "\n"


def to_annotations(verdict: Verdict) -> list[str]:
    """GitHub workflow commands, one for the outcome and one for each check that did not pass."""
    found = [_annotation(verdict.outcome, "Safety gate", headline(verdict))]
    found += [_annotation(c.outcome, label(c), sentence(c)) for c in verdict.checks if c.outcome != "pass"]
    return found + [_annotation(verdict.outcome, "Safety gate", note) for note in verdict.notes]


def _annotation(outcome: Outcome, title: str, message: str) -> str:
    def data(text: str) -> str:
        return plain(text).replace("%", "%25")

    name = data(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{LEVELS[outcome]} title={name}::{data(message)}"


def to_junit(verdict: Verdict, when: str = "1970-01-01T00:00:00") -> str:
    """JUnit XML: a failed check is a failure, one that could not be decided an error."""
    cases = [(label(c), c.name.partition("/")[0], c.outcome, sentence(c)) for c in verdict.checks]
    if verdict.outcome == "incomplete" and not any(c.outcome == "incomplete" for c in verdict.checks):
        cases.append(("runs are complete", "runs", "incomplete", "; ".join(verdict.notes) or headline(verdict)))
    outcomes = [outcome for _, _, outcome, _ in cases]
    root = ElementTree.Element("testsuites")
    counts = {
        "tests": len(cases),
        "failures": outcomes.count("fail"),
        "errors": outcomes.count("inconclusive") + outcomes.count("incomplete"),
    }
    fixed = {"name": "harness gate", "package": "harness", "id": "0", "hostname": "localhost", "time": "0"}
    attributes = {**fixed, "timestamp": when[:19], **{k: str(v) for k, v in counts.items()}}
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("outcome", verdict.outcome), ("baseline", verdict.baseline), ("candidate", verdict.candidate)):
        ElementTree.SubElement(properties, "property", {"name": name, "value": xml(value)})
    for name, family, outcome, message in cases:
        place = {"classname": xml(f"gate.{family}"), "name": xml(name), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", place)
        if outcome != "pass":
            tag = "failure" if outcome == "fail" else "error"
            ElementTree.SubElement(case, tag, {"type": outcome, "message": xml(message)}).text = xml(message)
    ElementTree.SubElement(suite, "system-out").text = xml(headline(verdict))
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def xml(text: str) -> str:
    """Text without what XML 1.0 can't hold; ElementTree escapes the rest."""
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF and ord(c) not in (0xFFFE, 0xFFFF) else " "
                   for c in text)[: 5 * LONGEST]  # fmt: skip


def to_sarif(verdict: Verdict, policy: str = "gate.yaml") -> str:
    """SARIF 2.1.0: one result for each check that did not pass, placed at the policy file."""
    rules = sorted({c.name.partition("/")[0] for c in verdict.checks} | {"runs"})
    found = [
        (c.name.partition("/")[0], label(c), c.outcome, sentence(c)) for c in verdict.checks if c.outcome != "pass"
    ]
    found += [("runs", "runs", "incomplete", note) for note in verdict.notes if verdict.outcome == "incomplete"]
    driver = {
        "name": "harness gate",
        "version": __version__,
        "rules": [{"id": plain(rule), "shortDescription": {"text": f"harness gate: {plain(rule)}"}} for rule in rules],
    }
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "results": [
            _result(rules.index(rule), rule, name, outcome, told, policy) for rule, name, outcome, told in found
        ],
        "properties": {"outcome": verdict.outcome, "exitCode": verdict.exit_code},
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(index: int, rule: str, name: str, outcome: Outcome, message: str, policy: str) -> dict[str, Any]:
    text = plain(f"{name}: {outcome}. {message}")
    for mark in ("\\", "[", "]"):  # a SARIF message may hold links in brackets
        text = text.replace(mark, "\\" + mark)
    return {
        "ruleId": plain(rule),
        "ruleIndex": index,
        "level": "warning" if outcome == "inconclusive" else "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(policy)}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"check/v1": plain(name)},
    }


def uri(path: str) -> str:
    """A path as a relative URI reference."""
    from urllib.parse import quote

    return quote(plain(path).replace("\\", "/").lstrip("/"))


def to_badge(verdict: Verdict) -> str:
    """A small SVG with the outcome."""
    width = 44 + 7 * len(verdict.outcome)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 40}" height="20" role="img" '
        f'aria-label="gate: {verdict.outcome}"><rect width="40" height="20" fill="#424242"/>'
        f'<rect x="40" width="{width}" height="20" fill="{COLOURS[verdict.outcome]}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="20" y="14">gate</text><text x="{40 + width / 2:g}" y="14">{verdict.outcome}</text></g></svg>\n'
    )
