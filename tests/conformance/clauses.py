"""Which rule stands where: read off the comments of the code and the markers of the tests, without running anything."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tcpls"
TESTS = ROOT / "tests"

_SECTION = r"(?:[A-Z]\.)?\d+(?:\.\d+)*"
_SECTIONS = rf"{_SECTION}(?:(?:, | and |, and | to ){_SECTION})*"
# "RFC 8446 4.2.11: ...", "RFC 6066 section 3: ...", "RFC 8446 5.1 and 5.2."; in the same comment then "6: ..." alone.
_NAMED = re.compile(rf"RFC (\d+)(?: sections?)? ({_SECTIONS})(?=[:.,; ]|$)")
_AGAIN = re.compile(rf"[.;] ({_SECTIONS}):")


@dataclass(frozen=True, order=True)
class Place:
    """A function, method or constant, by the path of its file."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file} `{self.name}`"


def clauses_in(comment: str) -> set[str]:
    """The rules that a comment names, as "RFC 8446 4.2.11"."""
    found = set()
    marks = [(match.start(), match[1], match[2]) for match in _NAMED.finditer(comment)]
    marks += [(match.start(), "", match[1]) for match in _AGAIN.finditer(comment)]
    number = ""
    for _, named, sections in sorted(marks):
        number = named or number
        if number:
            found |= {f"RFC {number} {section}" for section in re.findall(_SECTION, sections)}
    return found


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Each comment with the number of its last line; lines of comment that follow each other are one."""
    text, last = "", -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.lstrip("# ")
        if token.start[0] == last + 1 and text:
            text, last = f"{text} {words}", token.start[0]
            continue
        if text:
            yield last, text
        text, last = words, token.start[0]
    if text:
        yield last, text


def _places(tree: ast.Module) -> list[tuple[int, int, str]]:
    """First line, last line and name of all that has a name, the inner behind the outer."""
    found = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            last = node.end_lineno or node.lineno
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found.append((first, last, prefix + node.name))
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name):
                    found.append((node.lineno, last, prefix + target.id))

    visit(tree.body, "")
    return found


def _place_of(line: int, places: list[tuple[int, int, str]]) -> str:
    inside = [name for first, last, name in places if first <= line <= last]
    if inside:
        return inside[-1]
    # A comment that stands above something at the module's own level is about that.
    return next((name for first, _, name in places if first > line), "")


@cache
def enforcing() -> dict[str, set[Place]]:
    """Which places of the package's code name a rule in a comment."""
    found: dict[str, set[Place]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        places = _places(ast.parse(source))
        for line, comment in _comments(source):
            for clause in clauses_in(comment):
                place = Place(str(path.relative_to(PACKAGE)), _place_of(line, places))
                found.setdefault(clause, set()).add(place)
    return found


@cache
def testing() -> dict[str, set[Place]]:
    """Which tests are marked with a rule."""
    found: dict[str, set[Place]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            for clause in _marked(node):
                found.setdefault(clause, set()).add(Place(str(path.relative_to(TESTS)), node.name))
    return found


def _marked(function: ast.FunctionDef) -> Iterator[str]:
    """The arguments of every `pytest.mark.clause` among the decorators, those of single parameters included."""
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.clause":
                yield from (str(ast.literal_eval(argument)) for argument in node.args)


def order(clause: str) -> tuple[int, list[tuple[bool, int, str]]]:
    """Sorts rules as a reader of the RFCs would."""
    _, number, section = clause.split(" ")
    parts = section.split(".")
    return int(number), [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def defined(file: str, name: str) -> bool:
    """Whether the package's file has something of this name."""
    path = PACKAGE / file
    return path.is_file() and any(name == found for *_, found in _places(ast.parse(path.read_text(encoding="utf-8"))))
