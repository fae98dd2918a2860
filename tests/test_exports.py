"""Exports of people as Customer.io writes them, and as spreadsheets and pipes leave them."""

import csv
import gzip
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cio_proxy.exports import LONGEST, Bad, NotAnExport, Row, rows

IDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="@"), min_size=1)
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists)


def read(content: str | bytes) -> list[Row | Bad]:
    return list(rows(io.BytesIO(content.encode() if isinstance(content, str) else content)))


def people(content: str | bytes) -> list[tuple[str, ...]]:
    return [row.identifiers for row in read(content) if isinstance(row, Row)]


def bad(content: str | bytes) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in read(content) if isinstance(row, Bad)]


def reason(content: str | bytes) -> str:
    with pytest.raises(NotAnExport) as caught:
        read(content)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "id,email,cio_id,created_at\n42,Ada@Example.com,a3000001,1700000000\n",
        "\ufeffid,email,cio_id\r\n42,ADA@example.com,a3000001\r\n",
        "CIO ID;Plan;ID;E-Mail\na3000001;pro; 42 ;ada@example.com\n",
        'email\tid\tcio_id\n"ada@example.com"\t42\ta3000001',
        "customer_id,internal_customer_id,email_addr\n42,a3000001,ada@example.com\n",
        '{"id": "42", "email": "Ada@example.com", "cio_id": "a3000001", "plan": {"is": 1}}\n',
        '\ufeff{"id": 42, "email": "ada@example.com", "cio_id": "a3000001"}\r\n\r\n',
        '{"identifiers": {"id": "42", "cio_id": "a3000001"}, "attributes": {"email": "ada@example.com"}}',
    ],
)
def test_a_person_is_known_by_every_identifier_however_the_export_is_written(content: str) -> None:
    for written in (content.encode(), gzip.compress(content.encode())):
        (row,) = read(written)
        assert isinstance(row, Row)
        assert row.identifiers == ("id:42", "email:ada@example.com", "cio_id:a3000001")
        assert row.email


def test_of_columns_that_differ_in_case_the_usual_one_counts() -> None:
    assert people("ID,id,Email\nx,42,a@b.c\n") == [("id:42", "email:a@b.c")]


def test_an_id_is_also_known_as_a_path_would_name_it() -> None:
    assert people("id,cio_id\nAda@Example.com,\ncio_9,\n7,cio_a3\n") == [
        ("id:Ada@Example.com", "email:ada@example.com"),
        ("id:cio_9", "cio_id:9"),
        ("id:7", "cio_id:cio_a3", "cio_id:a3"),
    ]
    assert [row.email for row in read("id\nAda@Example.com\n7\n") if isinstance(row, Row)] == [True, False]


def test_a_bad_row_has_the_number_of_the_line_it_starts_in_and_costs_no_other() -> None:
    content = b'id,email,note\n1,,"two\nlines"\n2,a@b.c\n,,x\n3,,"open\n4,,\n5,,a"b\n6,,"a"b\n\xff,,\n\n7,,\n'
    assert people(content) == [("id:1",), ("id:4",), ("id:5",), ("id:7",)]
    quote = "a quote that is not closed, or stands in the middle of a field"
    fields = "2 fields where the header has 3"
    assert bad(content) == [(4, fields), (5, "no identifier"), (6, quote), (9, quote), (10, "not UTF-8")]


def test_only_a_row_that_may_be_somebody_is_lost() -> None:
    assert [row.lost for row in read("id,email\n,\n1\n") if isinstance(row, Bad)] == [False, True]


def test_bad_json_lines_are_told_and_passed_over() -> None:
    content = '{"id": 1}\n{"id": \n[1]\n{"plan": "x"}\n{"id": true, "email": ""}\n' + "[" * 100_000 + '\n{"id": 2.5}\n'
    assert people(content) == [("id:1",), ("id:2.5",)]
    assert bad(content) == [
        (2, "not JSON"),
        (3, "not a JSON object"),
        (4, "no identifier"),
        (5, "no identifier"),
        (6, "not JSON"),
    ]


def test_a_line_without_an_end_is_passed_over_in_bounded_memory() -> None:
    content = "id,note\n1,\n2," + "x" * (3 * LONGEST) + "\n3,\n"
    assert people(content) == [("id:1",), ("id:3",)]
    assert bad(content) == [(3, "a line of more than 1 MiB")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("first_name,plan\nAda,pro\n", "the columns are first_name, plan; wanted are id, email or cio_id"),
        ('{"first_name": 1}\n', "the columns are first_name; wanted are id, email or cio_id"),
        ("phone\n1\n", "the columns are phone; wanted are id, email or cio_id"),
        ("42,ada@example.com\n", "the first line is no header; the columns wanted are id, email or cio_id"),
        ("[{}]", "the file is a JSON array; write one object a line: jq -c '.[]'"),
        ("id\n1\n".encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        (b"PK\x03\x04...", "the file is a ZIP archive; unpack it first"),
    ],
)
def test_a_file_that_is_no_export_is_one_line_that_says_what_to_do(content: str | bytes, message: str) -> None:
    assert reason(content) == message


def test_compressed_data_that_breaks_off_is_told_with_the_line() -> None:
    lines = "id\n" + "".join(f"{number * 7919 % 100_003}\n" for number in range(50_000))
    whole = gzip.compress(lines.encode())
    for broken in (whole[:-100], whole[:40_000] + b"\0\0\0\0" + whole[40_004:]):
        assert "the compressed data breaks off after line" in reason(broken)


@pytest.mark.parametrize("content", ["", "\n\r\n\n", "id,email\n", "\ufeff"])
def test_nobody_is_no_mistake(content: str) -> None:
    assert people(content) == []


@given(st.lists(st.tuples(IDS, CELLS), max_size=8), st.sampled_from(["\n", "\r\n"]), st.sampled_from(",;\t"))
def test_every_row_of_a_csv_file_is_read_whatever_its_other_columns_hold(
    written: list[tuple[str, str]], end: str, delimiter: str
) -> None:
    file = io.StringIO(newline="")
    # Before 3.13 the writer leaves a lone \r bare, which is no CSV.
    quoted = any("\r" in note for _, note in written)
    writer = csv.writer(
        file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    )
    writer.writerow(["note", "id"])
    writer.writerows([(note, id) for id, note in written])
    found = people(file.getvalue())
    assert [identifiers[0] for identifiers in found] == [f"id:{id}" for id, _ in written]


@given(st.lists(st.tuples(IDS, JSON)))
def test_every_json_line_is_read_whatever_else_it_holds(written: list[tuple[str, Any]]) -> None:
    lines = [json.dumps({"note": note, "id": id}) for id, note in written]
    assert [identifiers[0] for identifiers in people("\n".join(lines))] == [f"id:{id}" for id, _ in written]


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"id,email\n", b'{"id": 1}\n', b"\x1f\x8b\x08", b"\xef\xbb\xbfid\n"])
)
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes, start: bytes) -> None:
    try:
        found = read(start + content)
    except NotAnExport as error:
        found = [Bad(1, str(error))]
    assert all(row.line >= 1 for row in found)
    assert all(row.reason.isprintable() for row in found if isinstance(row, Bad))
