"""Escaping of text for HTML and SVG."""

import html
import re

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(value: object) -> str:
    """`value` as text in which characters that XML forbids (controls, lone surrogates) are U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", str(value))


def escape(value: object) -> str:
    """`value` as text that is safe between tags and inside a quoted attribute."""
    return html.escape(printable(value), quote=True)


def element(tag: str, content: str, **attributes: object) -> str:
    """`<tag ...>content</tag>`: attributes are escaped (None leaves one out), the content is taken as it is."""
    return f"<{tag}{_attributes(attributes)}>{content}</{tag}>"


def _attributes(attributes: dict[str, object]) -> str:
    names = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    return "".join(f' {name}="{escape(value)}"' for name, value in names)
