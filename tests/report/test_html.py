from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.report.drawing.html import Markup, element, join, table

# HTML parsers turn a carriage return into a line feed, and NUL into a replacement character: the standard says so.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=60)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@settings(deadline=None, max_examples=60)
@given(TEXT, TEXT)
def test_text_and_attributes_come_back_as_they_were(text: str, attribute: str) -> None:
    reader = read(element("p", text, title=attribute))
    assert reader.tags == [("p", {"title": attribute})]
    assert reader.text == text


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=4))
def test_strings_never_make_elements(texts: list[str]) -> None:
    reader = read(element("div", [element("b", text) for text in texts], texts))
    assert [tag for tag, _ in reader.tags] == ["div", *["b"] * len(texts)]


def test_markup_is_not_escaped_twice() -> None:
    assert element("b", element("i", "a & b")) == "<b><i>a &amp; b</i></b>"
    assert join(["<", None, Markup("<br>"), ["x", ["y"]]]) == "&lt;<br>xy"


def test_none_is_left_out_and_names_are_translated() -> None:
    assert element("path", class_="a", stroke_width=2, title=None) == '<path class="a" stroke-width="2"></path>'
    assert element("meta", name="viewport") == '<meta name="viewport">'


def test_table_marks_rows_and_aligns_numbers() -> None:
    markup = table(["a", "b"], [["x", "1"], ["y", "2"]], marked=["chosen"])
    tags = read(markup).tags
    assert [attributes.get("class") for tag, attributes in tags if tag == "tr"] == [None, "chosen", None]
    assert [attributes.get("class") for tag, attributes in tags if tag == "td"] == [None, "num"] * 2
