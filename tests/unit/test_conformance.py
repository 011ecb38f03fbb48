"""The page of conformance: what it names exists, and its parts are made of what was run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance import clauses, page
from tests.conformance.plugin import load


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("RFC 8446 4.2.11: the last extension.", {"RFC 8446 4.2.11"}),
        ("RFC 6066 section 3: empty.", {"RFC 6066 3"}),
        ("RFC 8446 5.1 and 5.2.", {"RFC 8446 5.1", "RFC 8446 5.2"}),
        ("RFC 8446 5.1: one alert. 6: its level. RFC 7301 3.2: none.", {"RFC 8446 5.1", "RFC 8446 6", "RFC 7301 3.2"}),
        ("RFC 8446 D.4: the compatible form", {"RFC 8446 D.4"}),
        ("RFC 8446 has 3 roles", set()),
        ("1.2: not a rule", set()),
    ],
)
def test_rules_in_comments(comment: str, expected: set[str]) -> None:
    assert clauses.clauses_in(comment) == expected


def test_rules_are_in_the_order_of_the_rfcs() -> None:
    ordered = ["RFC 6066 3", "RFC 8446 4.2", "RFC 8446 4.2.9", "RFC 8446 4.2.10", "RFC 8446 5", "RFC 8446 D.4"]
    assert sorted(ordered[3:] + ordered[:3], key=clauses.order) == ordered


def test_what_the_page_names_exists() -> None:
    """A function or test that was renamed: `python -m tests.conformance --pages-only` makes the page anew."""
    named = re.findall(r"([\w/]+\.py) `([\w.]+)`", page.part_of(page.PAGE.read_text(encoding="utf-8"), "clauses"))
    assert len(named) > 100
    known = {(place.file, place.name) for found in clauses.testing().values() for place in found}
    missing = [
        f"{file} {name}" for file, name in named if (file, name) not in known and not clauses.defined(file, name)
    ]
    assert missing == []


@pytest.mark.parametrize("rule", page.rules(), ids=lambda rule: f"{rule.sections[0]}: {rule.text[:40]}")
def test_each_rule_has_its_code_and_its_test(rule: page.Rule) -> None:
    """The code exists; the tests exist and are marked with the rule's section."""
    for place in rule.code:
        file, _, name = place.partition(":")
        assert clauses.defined(file, name), place
    for place in rule.tests:
        file, _, name = place.partition(":")
        for section in rule.sections:
            assert clauses.Place(f"unit/{file}", name) in clauses.testing().get(section, set()), f"{place}: {section}"
    assert bool(rule.tests) is not bool(rule.why)


def test_the_tests_that_the_page_names_exist() -> None:
    """Those of the table of bugs."""
    named = set(re.findall(r"`(test_\w+)`", (page.HERE / "template.md").read_text(encoding="utf-8")))
    defined = {
        name
        for path in clauses.TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
    }
    assert named - defined == set()
    assert len(named) > 20


def test_the_page_has_the_rules() -> None:
    """`python -m tests.conformance --pages-only` makes it anew."""
    assert page.part_of(page.PAGE.read_text(encoding="utf-8"), "rules") == "\n".join(page.rules_part())


TESTS = """
import pytest

@pytest.mark.feature("one", peer="somebody", role="client")
@pytest.mark.clause("RFC 8446 4.1.2", "RFC 8446 4.1.3")
def test_passes(): pass

@pytest.mark.feature("two", peer="somebody", role="client")
def test_fails(): assert False

@pytest.mark.feature("three", peer="somebody", role="server")
def test_skips(): pytest.skip("no somebody")

@pytest.mark.feature("four", peer="tlsfuzzer", role="server")
@pytest.mark.parametrize("script", [pytest.param("a"), pytest.param("b", marks=pytest.mark.xfail(reason="b is odd"))])
def test_scripts(script): assert script == "a"

@pytest.mark.feature("five", peer="BoGo", role="server")
def test_whole(record_property):
    record_property("passed", 7)
    record_property("of", 9)

def test_that_says_nothing(): pass
"""


def test_a_report_says_what_was_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_addoption, pytest_configure\n")
    (tmp_path / "test_some.py").write_text(TESTS)
    reports = tmp_path / "reports"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--conformance", reports, tmp_path],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(clauses.ROOT)}, timeout=60, capture_output=True,
    )  # fmt: skip
    (report,) = load(reports)
    outcomes = {result["test"].rpartition("::")[2]: result for result in report["results"]}
    assert {name: result["outcome"] for name, result in outcomes.items()} == {
        "test_passes": "pass",
        "test_fails": "fail",
        "test_skips": "skip",
        "test_scripts[a]": "pass",
        "test_scripts[b]": "known",
        "test_whole": "pass",
    }
    assert outcomes["test_passes"]["clauses"] == ["RFC 8446 4.1.2", "RFC 8446 4.1.3"]
    features = "\n".join(page.features_part([report]))
    assert f"| three | server | {report['engine']}: [" in features or "| three | server | [" in features
    assert "no somebody" in features
    assert "FAIL" in features
    suites = "\n".join(page.suites_part([report]))
    assert "| tlsfuzzer | four | server | " in suites
    assert "| 1 | 1 | 0 | 0 |" in suites
    assert "| 7 | 2 | 0 | 0 |" in suites
    assert "- b: b is odd" in suites


def test_the_page_is_the_same_twice() -> None:
    assert page.compose({"clauses": page.clauses_part()}) == page.compose({"clauses": page.clauses_part()})
