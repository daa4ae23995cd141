from __future__ import annotations

import pytest

from orchestrator.adapters.http1.multipart import MAX_PARTS, form_field

TYPE = b"multipart/form-data; boundary=X"


def part(name: str, content: str = "v", more: str = "") -> bytes:
    return f'--X\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'.encode()


FILE = part("file", "RIFF\0--X\r\n name=model", '; filename="model"')
END = b"--X--\r\n"


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (part("model", "m") + FILE + END, "m"),
        (FILE + part("model", "org/m") + END, "org/m"),
        (FILE + END, None),
        (part("model", "") + END, None),
        (part("model", "m") + part("model", "m") + END, "m"),
        (b"--X\r\ncontent-type: a/b\r\nCONTENT-DISPOSITION:form-data;name=model\r\n\r\nm\r\n" + END, "m"),
    ],
)
def test_a_form_names_its_model(body: bytes, model: str | None) -> None:
    assert form_field(TYPE, body, b"model") == model
    assert form_field(b'multipart/form-data; charset=a; boundary="X"', body, b"model") == model


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "begin with its boundary"),
        (b"preamble\r\n" + part("model") + END, "begin with its boundary"),
        (part("model", "a") + part("model", "b") + END, "two values for `model`"),
        (part("model", "a") + part("Model", "b") + END, "two values for `model`"),
        (part("model"), "not ended"),
        (part("model") + b"--Xtra\r\n" + END, "neither"),
        (part("model", more='; name="x"') + END, "2 names"),
        (b"--X\r\nContent-Type: a/b\r\n\r\nm\r\n" + END, "0 names"),
        (part("x" * 9000) + END, "no end within"),
        (part("x") * (MAX_PARTS + 1) + END, "more than"),
        (b"--X\r\nContent-Disposition: form-data; name=model\r\n\r\n\xff\r\n" + END, "UTF-8"),
    ],
)
def test_a_form_that_two_parsers_could_read_differently_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        form_field(TYPE, body, b"model")


@pytest.mark.parametrize("kind", [b"", b"multipart/form-data", b"application/json", TYPE + b"; boundary=Y"])
def test_a_form_has_one_boundary(kind: bytes) -> None:
    with pytest.raises(ValueError, match="boundary|multipart"):
        form_field(kind, part("model") + END, b"model")
