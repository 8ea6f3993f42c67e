"""A page as the tests of the report read it: its elements and text, and a name that wants out of its place."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;</style></svg>{{7*7}}"
VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """A page's elements and text; fails where an element is not closed in order."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def check_harmless(page: Page) -> None:
    """Nothing runs, nothing is fetched."""
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "animate"}
        assert not any(
            name.startswith("on") or name in ("href", "xlink:href", "action", "srcset") for name in attributes
        )
        if "src" in attributes:
            assert str(attributes["src"]).startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
