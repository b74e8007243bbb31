"""Reads back what a model put into the output list of a program, without running any of it.

Python is parsed; code that does not parse (cut off, or half prose), C++ and Go go through a small lexer. Both collect
the strings appended or assigned to whatever is named like the output list. Work is bounded whatever the text holds.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

Language: TypeAlias = Literal["python", "cpp", "go"]

LIMIT = 40_000  # characters looked at; a reply of 1,024 tokens has about 5,000
_WORK = 1_000_000  # characters the parsed reader may put together before it gives up

_PASSES = frozenset({"str", "list", "tuple", "sorted", "reversed", "enumerate", "zip", "deque", "dedent", "iter"})

_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_HOLLOW = re.compile(r"[\W\d_]*(?:(?:step|paragraph|item)[\W\d_]*)?", re.IGNORECASE)  # "", "...", "Step 1:"
_ADDS = frozenset({"append", "appendleft", "extend", "insert", "push_back", "emplace_back", "push", "add"})


def read_back(text: str, language: Language, *, otherwise: str | None = None) -> str:
    """The output list's strings, one a line; `otherwise` (by default the text itself) where there are none."""
    looked_at = text[:LIMIT]
    for blocks in (_FENCED.findall(looked_at), [re.sub(r"```\w*", " ", looked_at)]):
        items = [item.strip() for block in blocks for item in _items(block, language)]
        if kept := dict.fromkeys(item for item in items if not _HOLLOW.fullmatch(item)):
            # Escapes can spell half a character; through UTF-16 two halves meet and a lone one is replaced.
            return "\n".join(kept).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text if otherwise is None else otherwise


def _items(source: str, language: Language) -> list[str]:
    if language == "python":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in the model's strings
                tree = ast.parse(textwrap.dedent(source))
            reader = _Parsed()
            reader.visit(tree)
            return reader.found
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # not Python, or built to blow up: the lexer takes any text
    return list(_scanned(source, language))


def _is_output(name: str) -> bool:
    return name.replace("_", "").lower().startswith("output")


class _Parsed(ast.NodeVisitor):
    """Follows strings through Python's assignments, loops and calls into the output list. ValueError past its limit."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.known: dict[str, list[str]] = {}
        self.work = _WORK

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind(target, self._strings(node.value))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self._bind(node.target, self._strings(node.value))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add(_name(node.target), self._strings(node.value))
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, self._strings(node.iter))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr in _ADDS:
            self._add(_name(node.func.value), self._all(node.args))
        self.generic_visit(node)

    def _bind(self, target: ast.expr, values: list[str]) -> None:
        """`target = values`; of several targets the last is bound, as in `for number, text in enumerate(texts)`."""
        if isinstance(target, (ast.Tuple, ast.List)) and target.elts:
            self._bind(target.elts[-1], values)
            return
        if not isinstance(target, ast.Subscript):
            self.known[_name(target)] = []
        self._add(_name(target), values)

    def _add(self, name: str, values: list[str]) -> None:
        self._spend(values)
        self.known.setdefault(name, []).extend(values)
        if _is_output(name):
            self.found += values

    def _spend(self, strings: Iterable[str]) -> None:
        self.work -= sum(len(string) + 1 for string in strings)
        if self.work < 0:
            raise ValueError("the code puts together more text than a reply can hold")

    def _all(self, nodes: Iterable[ast.AST]) -> list[str]:
        return [string for node in nodes for string in self._strings(node)]

    def _strings(self, node: ast.AST) -> list[str]:
        """The strings an expression holds, as far as they can be known without running it."""
        match node:
            case ast.Constant(value=str(text)):
                strings = [text]
            case ast.Name() | ast.Attribute():
                strings = self.known.get(_name(node), [])
            case ast.JoinedStr(values=parts):
                strings = self._glued(parts)
            case ast.FormattedValue(value=value):
                strings = self._strings(value) or ["{" + _name(value) + "}"]
            case ast.BinOp(op=ast.Add()) if _is_text(node):
                strings = self._glued([node.left, node.right])
            case ast.BinOp(op=ast.Mod()):
                strings = self._strings(node.left)
            case ast.Call():
                strings = self._called(node)
            case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element):
                for loop in node.generators:
                    self._bind(loop.target, self._strings(loop.iter))
                strings = self._strings(element)
            case _:
                strings = self._all(ast.iter_child_nodes(node))
        self._spend(strings)
        return strings

    def _called(self, node: ast.Call) -> list[str]:
        match node.func:
            case ast.Attribute(attr="join", value=separator) if node.args:
                parts, between = self._all(node.args), (self._strings(separator) or [""])[0]
                self._spend([between] * len(parts))
                return [between.join(parts)]
            case ast.Attribute(value=value) if own := self._strings(value):
                return own  # "...".format(x), text.strip()
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in _PASSES:
                return self._all(node.args)
        # What an unknown function makes of a variable is unknown; a literal given to it is the model's own text.
        return [leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)]

    def _glued(self, nodes: Sequence[ast.AST]) -> list[str]:
        """One text made of several; where a part can be one of many strings, as many texts."""
        parts = [self._strings(node) or [""] for node in nodes]
        longest = max(map(len, parts), default=0)
        for part in parts:
            self._spend([part[-1]] * (longest - len(part)))
        return ["".join(part[min(i, len(part) - 1)] for part in parts) for i in range(longest)]


def _name(node: ast.AST) -> str:
    """The name a variable, an attribute or an element of one goes by; "" for anything else."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_text(node: ast.AST) -> bool:
    """Whether `+` makes one text of this and what stands beside it, rather than a longer list."""
    while isinstance(node, ast.BinOp):
        if _is_text(node.right):
            return True
        node = node.left
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class _Token(NamedTuple):
    kind: str  # string, word, newline or op
    text: str


_JOINING = frozenset({"if", "else", "for", "in", "and", "or", "not", "s"})  # what code puts after a string

_STRING = r"""
    "(?P<double>(?:\\.|[^"\\\n])*)"
  | '(?P<single>(?:\\.|[^'\\\n])*)'
  | "(?P<broken>[^"\n]*(?:\n[^"\n]*){1,9})"(?=\s*[),\]])  # a string with a bare line break in it
  | "(?P<open>(?:\\.|[^"\\\n])*)                         # cut off
"""
_REST = r"""
  | (?P<word>[^\W\d]\w*) | (?P<number>\d[\w.']*) | (?P<newline>\n) | (?P<op>\+=|:=|<<|[=!<>]=|\S)
"""
_SLASHES = r"//[^\n]*"  # in Python too: models write them there, and a floor division is no loss
_TRIPLE = r"""(?P<triple>\"{3}|'{3})(?P<long>(?:\\.|(?!(?P=triple)).)*)(?:(?P=triple)|\Z)"""
_LEXERS: dict[Language, re.Pattern[str]] = {
    "python": re.compile(
        rf"\#[^\n]*|{_SLASHES}|(?P<prefix>[rRbBuUfF]{{0,2}})(?:{_TRIPLE}|{_STRING}){_REST}", re.VERBOSE | re.DOTALL
    ),
    "cpp": re.compile(
        rf"""{_SLASHES}|/\*.*?(?:\*/|\Z)
        |(?:u8|[uUL])?R"(?P<delimiter>[^()\\\s"]{{0,16}})\((?P<raw>.*?)(?:\)(?P=delimiter)"|\Z)
        |(?:{_STRING}){_REST}""",
        re.VERBOSE | re.DOTALL,
    ),
    "go": re.compile(rf"{_SLASHES}|/\*.*?(?:\*/|\Z)|`(?P<raw>[^`]*)`?|(?:{_STRING}){_REST}", re.VERBOSE | re.DOTALL),
}
_STRINGS = ("long", "raw", "double", "single", "broken", "open")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U(00[01][0-9a-fA-F]{5})|(\n)|(.))", re.DOTALL)
_PLAIN = dict(zip("ntrbfva\\'\"?0", "\n\t\r\b\f\v\a\\'\"?\0", strict=True))


def _unescaped(text: str) -> str:
    """`text` with the escapes that the three languages share put into characters; unknown ones stay as they are."""

    def character(found: re.Match[str]) -> str:
        if code := found[1] or found[2] or found[3]:
            return chr(int(code, 16)) if int(code, 16) <= 0x10FFFF else found[0]
        return "" if found[4] else _PLAIN.get(found[5], found[0])

    return _ESCAPE.sub(character, text)


def _tokens(source: str, language: Language) -> Iterator[_Token]:
    for found in _LEXERS[language].finditer(source):
        groups = found.groupdict()
        kind = found.lastgroup
        text = next((groups[name] for name in _STRINGS if groups.get(name) is not None), None)
        if text is not None:
            if groups.get("single") is not None and language != "python":
                continue  # a character, or an apostrophe
            raw = groups.get("raw") is not None or "r" in (groups.get("prefix") or "").lower()
            yield _Token("string", text if raw else _unescaped(text))
        elif kind in ("word", "number", "newline", "op"):
            yield _Token(kind, found[0])


def _scanned(source: str, language: Language) -> Iterator[str]:
    """The strings given to the output list in code that may be cut off or broken."""
    tokens = [*_tokens(source, language), _Token("newline", "\n")]
    at = 0
    while at < len(tokens):
        start = _anchor(tokens, at)
        at, items = _collected(tokens, *start) if start else (at + 1, [])
        yield from items


def _anchor(tokens: list[_Token], at: int) -> tuple[int, int] | None:
    """Where the strings given to the output list named at `at` begin, and how many brackets are open there."""
    if tokens[at].kind != "word" or not _is_output(tokens[at].text):
        return None
    before = [token.text for token in tokens[max(at - 2, 0) : at]]
    after = [token.text for token in tokens[at + 1 : at + 13]]
    if len(before) == 2 and before[0] in _ADDS and before[1] == "(" and after[:1] == [","]:
        return at + 2, 1  # append(outputList, ...
    if len(after) > 2 and after[0] == "." and after[1] in _ADDS and after[2] == "(":
        return at + 4, 1  # output_list.append(...
    if after[:1] == ["{"]:
        return at + 2, 1  # outputList{...}
    for offset, text in enumerate(after):
        if text in ("=", "+=", ":=", "<<"):
            return at + offset + 2, 0
        if not re.fullmatch(r"\w+|[:|,\[\]]", text):  # anything but an index or a type
            break
    return None


def _collected(tokens: list[_Token], at: int, depth: int) -> tuple[int, list[str]]:
    """The strings of one call or statement and where it ends; neighbours and sums are one string."""
    items: list[str] = []
    in_call, glue = depth > 0, False
    while at < len(tokens):
        kind, text = tokens[at]
        if kind == "string":
            items[-1:] = [items[-1] + text] if glue else [*items[-1:], text]
            glue = True
        elif glue and kind == "word" and tokens[at - 1].kind != "newline" and text not in _JOINING:
            items[-1] += f" {text}"  # a quotation in the string whose quotes were not escaped
        elif kind == "newline":
            continued = depth > 0 or tokens[at - 1].text in ("=", "+", "+=", ":=", "<<", "\\")
            following = tokens[at + 1] if at + 1 < len(tokens) else None
            if not continued or (following and following.kind == "word" and _is_output(following.text)):
                break
        elif text == ";":
            break
        elif text != "+":
            glue = False
            depth += (text in ("(", "[", "{")) - (text in (")", "]", "}"))
            if depth < in_call:
                break
        at += 1
    return at + 1, items
