"""Frames as no library sends them: made of right ones, wrong ones and halves, by chance, from either side."""

from random import Random

from websockets.frames import Frame, Opcode

PIECES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
CONTROL = (Opcode.PING, Opcode.PONG)
WORDS = (
    b"{}",
    b"[]",
    b'{"id":1,"method":"Browser.getVersion"}',
    b'{"id":1}',
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"",
)


def header(first: int, length: int, *, masked: bool, wide: int = 0) -> bytes:
    """Return the head of a frame, its length written in more bytes than it needs if `wide` says so."""
    bit = 0x80 if masked else 0
    if length > 65535 or wide == 8:
        size = bytes([bit | 127]) + length.to_bytes(8)
    elif length > 125 or wide == 2:
        size = bytes([bit | 126]) + length.to_bytes(2)
    else:
        size = bytes([bit | length])
    return bytes([first]) + size + (bytes(4) if masked else b"")


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True, masked: bool) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=masked)


def in_pieces(chance: Random, data: bytes, *, masked: bool) -> bytes:
    """Return a message in fragments, with pings and pongs between them."""
    said, opcode = b"", Opcode.TEXT
    while data and chance.random() < 0.8:
        cut = chance.randrange(len(data) + 1)
        said += frame(opcode, data[:cut], fin=False, masked=masked)
        data, opcode = data[cut:], Opcode.CONT
        if chance.random() < 0.5:
            said += frame(chance.choice(CONTROL), chance.randbytes(chance.randrange(126)), masked=masked)
    return said + frame(opcode, data, masked=masked)


def one(chance: Random, *, masked: bool) -> bytes:
    """Return a frame or a few, right or wrong."""
    words = chance.choice(WORDS)
    match chance.randrange(12):
        case 0 | 1:
            return frame(Opcode.TEXT, words, masked=masked)
        case 2 | 3:
            return in_pieces(chance, words * chance.randrange(1, 40), masked=masked)
        case 4:
            return frame(chance.choice(CONTROL), chance.randbytes(chance.randrange(126)), masked=masked)
        case 5:  # masked by a server, or not by a client
            return frame(Opcode.TEXT, words, masked=not masked)
        case 6:  # reserved bits and opcodes
            return header(chance.choice((0xC1, 0xF1, 0x83, 0x8B, 0xB2)), 0, masked=masked)
        case 7:  # more than anybody sends, or takes
            length = chance.choice((2**63 - 1, 2**63, 2**64 - 1, 2**40, 2**31))
            return header(chance.choice((0x81, 0x01, 0x82)), length, masked=masked) + chance.randbytes(300)
        case 8:  # a length in more bytes than it needs; a control frame that is too long, or in pieces
            first, wide = chance.choice(((0x81, 2), (0x81, 8), (0x89, 2), (0x09, 0), (0x8A, 8), (0x88, 2)))
            return header(first, 2, masked=masked, wide=wide) + b"{}"
        case 9:  # goodbyes: whole, half a code, no such code, a reason that is no text
            code = chance.choice((b"", b"\x03", b"\x00\x00", b"\x03\xe8", b"\x03\xed", b"\x03\xe8\xff\xfe"))
            return (
                frame(Opcode.CLOSE, code, masked=masked)
                if len(code) != 1
                else (header(0x88, 1, masked=masked) + code)
            )
        case 10:  # a continuation of nothing, or a beginning within a message
            return frame(chance.choice(PIECES), words, fin=chance.random() < 0.5, masked=masked)
        case _:
            return chance.randbytes(chance.randrange(1, 400))


def stream(chance: Random, *, masked: bool) -> bytes:
    """Return some of them, and now and then not the end."""
    said = b"".join(one(chance, masked=masked) for _ in range(chance.randrange(1, 6)))
    return said[: chance.randrange(1, len(said) + 1)] if said and chance.random() < 0.3 else said


def halves(*, masked: bool) -> list[bytes]:
    """Return a stream of all kinds of right frames, cut off after each of its bytes."""
    said = (
        frame(Opcode.TEXT, b'{"id":1}', fin=False, masked=masked)
        + frame(Opcode.PING, b"here?", masked=masked)
        + frame(Opcode.CONT, b" " * 126, masked=masked)
        + frame(Opcode.TEXT, b"{}", masked=masked)
        + header(0x81, 3, masked=masked, wide=8) + b"[1]"
        + frame(Opcode.CLOSE, b"\x03\xe8bye", masked=masked)
    )  # fmt: skip
    return [said[:end] for end in range(1, len(said) + 1)]
