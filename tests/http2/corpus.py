"""Field blocks that must be refused, and some that look odd and must pass (H2-30 to H2-39, SE-20)."""

from __future__ import annotations

from tests.http2.script import REQUEST, RESPONSE, TRAILERS

Block = tuple[tuple[bytes, bytes], ...]


def _request(*extra: tuple[bytes, bytes], **pseudo: bytes | None) -> Block:
    """The usual request with pseudo fields replaced (`path=b"x"`), removed (`path=None`), and fields added."""
    fields = []
    for name, value in REQUEST:
        replaced = pseudo.get(name[1:].decode(), value) if name.startswith(b":") else value
        if replaced is not None:
            fields.append((name, replaced))
    return (*fields, *extra)


def _response(*extra: tuple[bytes, bytes]) -> Block:
    return (*RESPONSE, *extra)


# What is wrong in any block, given as the one field to add.
WRONG_FIELDS: dict[str, tuple[bytes, bytes]] = {
    "empty name": (b"", b"x"),
    "upper case name": (b"X-Upper", b"x"),
    "colon inside a name": (b"x:y", b"x"),
    "space in a name": (b"x y", b"x"),
    "tab in a name": (b"x\ty", b"x"),
    "nul in a name": (b"x\x00", b"x"),
    "cr in a name": (b"x\ry", b"x"),
    "lf in a name": (b"x\ny", b"x"),
    "del in a name": (b"x\x7f", b"x"),
    "obs-text in a name": (b"x\xff", b"x"),
    "nul in a value": (b"x", b"a\x00b"),
    "cr in a value": (b"x", b"a\rb"),
    "lf in a value": (b"x", b"a\nb"),
    "crlf and a header in a value": (b"x", b"a\r\nx-evil: 1"),
    "leading space": (b"x", b" a"),
    "trailing space": (b"x", b"a "),
    "leading tab": (b"x", b"\ta"),
    "trailing tab": (b"x", b"a\t"),
    "connection": (b"connection", b"close"),
    "proxy-connection": (b"proxy-connection", b"keep-alive"),
    "keep-alive": (b"keep-alive", b"timeout=5"),
    "transfer-encoding": (b"transfer-encoding", b"chunked"),
    "upgrade": (b"upgrade", b"h2c"),
    "te is not trailers": (b"te", b"gzip"),
    "te is trailers and more": (b"te", b"trailers, gzip"),
    "pseudo after regular": (b":path", b"/late"),
    "unknown pseudo": (b":protocol", b"websocket"),
}

MALFORMED_REQUESTS: dict[str, Block] = {
    **{name: _request(field) for name, field in WRONG_FIELDS.items()},
    "no method": _request(method=None),
    "no scheme": _request(scheme=None),
    "no path": _request(path=None),
    "empty path": _request(path=b""),
    "empty method": _request(method=b""),
    "empty authority": _request(authority=b""),
    "method is not a token": _request(method=b"PO ST"),
    "path without slash": _request(path=b"greeter.Greeter/SayHello"),
    "absolute path": _request(path=b"http://evil/greeter.Greeter/SayHello"),
    "asterisk without OPTIONS": _request(path=b"*"),
    "path with a space": _request(path=b"/a b"),
    "path with a fragment": _request(path=b"/a#b"),
    "scheme with junk": _request(scheme=b"http://evil/?"),
    "userinfo in authority": _request(authority=b"user@greeter"),
    "slash in authority": _request(authority=b"greeter/x"),
    "neither authority nor host": _request(authority=None),
    "path twice": ((b":path", b"/a"), *REQUEST),
    "method twice": ((b":method", b"GET"), *REQUEST),
    "connect without authority but with host": _request(
        (b"host", b"greeter"), method=b"CONNECT", scheme=None, path=None, authority=None
    ),
    "status in a request": ((b":status", b"200"), *REQUEST),
    "two hosts": _request((b"host", b"greeter"), (b"host", b"greeter")),
    "two hosts without authority": _request((b"host", b"a"), (b"host", b"b"), authority=None),
    "host differs from authority": _request((b"host", b"other")),
    "host with userinfo": _request((b"host", b"u@greeter"), authority=None),
    "content-length twice": _request((b"content-length", b"1"), (b"content-length", b"2")),
    "content-length repeated": _request((b"content-length", b"1"), (b"content-length", b"1")),
    "content-length as a list": _request((b"content-length", b"1, 1")),
    "content-length signed": _request((b"content-length", b"+1")),
    "content-length negative": _request((b"content-length", b"-1")),
    "content-length empty": _request((b"content-length", b"")),
    "content-length hexadecimal": _request((b"content-length", b"0x1")),
    "content-length beyond all measure": _request((b"content-length", b"9" * 30)),
    "connect with path": _request(method=b"CONNECT"),
    "connect without authority": _request(method=b"CONNECT", scheme=None, path=None, authority=None),
}

ODD_REQUESTS: dict[str, Block] = {
    "plain": REQUEST,
    "obs-text in a value": _request((b"x", b"\x80\xff\xfe")),
    "empty value": _request((b"x", b"")),
    "inner white space": _request((b"x", b"a b\tc")),
    "the same name thrice": _request((b"x", b"1"), (b"y", b"2"), (b"x", b"3"), (b"x", b"1")),
    "cookie crumbs": _request((b"cookie", b"a=1"), (b"cookie", b"b=2")),
    "binary metadata": _request((b"trace-bin", b"AAEC,/w==")),
    "host equal to authority": _request((b"host", b"greeter")),
    "host instead of authority": _request((b"host", b"greeter"), authority=None),
    "options on everything": _request(method=b"OPTIONS", path=b"*"),
    "unknown method": _request(method=b"BREW"),
    "path with a query and case": _request(path=b"/A/b?C=d%2F"),
    "https": _request(scheme=b"https"),
    "ipv6 authority": _request(authority=b"[::1]:80"),
    "connect": _request(method=b"CONNECT", scheme=None, path=None),
    "content-length": _request((b"content-length", b"5")),
    "no te": tuple(one for one in REQUEST if one[0] != b"te"),
}

MALFORMED_RESPONSES: dict[str, Block] = {
    **{name: _response(field) for name, field in WRONG_FIELDS.items()},
    "no status": ((b"content-type", b"application/grpc"),),
    "empty status": ((b":status", b""),),
    "status twice": ((b":status", b"200"), *RESPONSE),
    "status of two digits": ((b":status", b"20"),),
    "status of four digits": ((b":status", b"2000"),),
    "status with a sign": ((b":status", b"+20"),),
    "status with a zero": ((b":status", b"020"),),
    "switching protocols": ((b":status", b"101"),),
    "path in a response": ((b":path", b"/"), *RESPONSE),
    "te in a response": _response((b"te", b"trailers")),
    "content-length twice": _response((b"content-length", b"1"), (b"content-length", b"2")),
    "content-length not a number": _response((b"content-length", b"1x")),
}

ODD_RESPONSES: dict[str, Block] = {
    "plain": RESPONSE,
    "status 599": ((b":status", b"599"),),
    "status beyond the classes": ((b":status", b"999"),),
    "obs-text in a value": _response((b"grpc-message", b"\xc3\xa4\xff")),
    "duplicates in order": _response((b"x", b"2"), (b"x", b"1")),
}

MALFORMED_TRAILERS: dict[str, Block] = {
    **{name: (*TRAILERS, field) for name, field in WRONG_FIELDS.items()},
    "status in trailers": ((b":status", b"200"),),
    "content-length in trailers": ((b"content-length", b"0"),),
    "host in trailers": ((b"host", b"greeter"),),
    "te in trailers": ((b"te", b"trailers"),),
}
