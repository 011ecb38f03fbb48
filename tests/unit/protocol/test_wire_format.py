"""The examples and tables of docs/wire-format.md are what the code reads and writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tcpls.protocol import frames, parameters, resumption
from tcpls.protocol.frames import ALL_FRAMES, encode, parse_frames
from tcpls.protocol.negotiation import CodePoints
from tcpls.protocol.options import REGISTRY, Kind

TEXT = (Path(__file__).parents[3] / "docs" / "wire-format.md").read_text()
EXAMPLES = re.findall(r"```(frame|parameters|remembered)\n(.*)\n([0-9a-f \n]+)\n```", TEXT)
NAMES = {**vars(frames), **vars(parameters), **vars(resumption)}


@pytest.mark.parametrize(("kind", "expression", "written"), EXAMPLES, ids=[each[1][:40] for each in EXAMPLES])
def test_an_example_is_what_the_code_writes_and_reads(kind: str, expression: str, written: str) -> None:
    value = eval(expression, NAMES)
    data = bytes.fromhex(written)
    if kind != "frame":
        assert value.write() == data
        assert type(value).read(data) == value
    else:
        assert encode(value) == data
        assert list(parse_frames(data)) == [value]


def test_every_frame_has_an_example_and_its_type_in_a_heading() -> None:
    of_examples = {bytes.fromhex(written)[-1] for kind, _, written in EXAMPLES if kind == "frame"}
    assert of_examples | {0x02} == set(ALL_FRAMES)
    headings = {
        int(code, 16) for heading in re.findall(r"^### .*", TEXT, re.M) for code in re.findall(r"0x..", heading)
    }
    assert headings == set(ALL_FRAMES)


def test_the_registry_of_options_is_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (?:number|name|raw).*? \| (.*) \|$", TEXT, re.M)
    ranges = {
        option.name: "see above" if option.kind in (Kind.NAME, Kind.RAW) else f"{option.least} to {option.most}"
        for option in REGISTRY
    }
    assert rows == [(str(option.option_id), option.name, ranges[option.name]) for option in REGISTRY]


def test_the_code_points_are_the_table() -> None:
    codes = dict(re.findall(r"^\| (tcpls\w*) \| (0x\w+) ", TEXT, re.M))
    assert {name: int(code, 16) for name, code in codes.items()} == {
        "tcpls": CodePoints().tcpls,
        "tcpls_join": CodePoints().join,
        "tcpls_token": CodePoints().token,
        "tcpls_parameters": CodePoints().parameters,
    }
