"""The page: one HTML file with its style inside."""

from collections.abc import Iterable
from importlib import resources

from tidegate.report.html import element, escape
from tidegate.report.parts import Part, join


def page(title: str, parts: Iterable[Part], *, subtitle: str = "", footer: str = "", language: str = "en") -> str:
    """A whole HTML document: `title` and `subtitle` over the parts, `footer` below them.

    It needs no other file, network or script, follows the reader's light or dark setting, and prints in light colours.
    """
    style = resources.files("tidegate.report").joinpath("page.css").read_text("utf-8")
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>"
    )
    under = element("p", escape(subtitle), class_="subtitle") if subtitle else ""
    last = element("footer", escape(footer)) if footer else ""
    main = element("header", element("h1", escape(title)) + under) + "\n" + join(parts) + last
    body = element("body", element("main", main))
    return f"<!DOCTYPE html>\n{element('html', element('head', head) + body, lang=language)}\n"
