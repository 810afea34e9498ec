"""Reads a stream of odx send, and writes the content that it describes over a file.

Written from docs/stream.md alone. usage: read.py STREAM CONTENT
Prints the header as JSON. With an encrypted stream, decrypt it with age first."""

import hashlib
import json
import struct
import subprocess
import sys

TABLE = []
for i in range(256):
    for _ in range(8):
        i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
    TABLE.append(i)


def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ b) & 0xFF]
    return crc ^ 0xFFFFFFFF


def need(condition, what):
    if not condition:
        sys.exit("refused: " + what)


def unzstd(data, length):
    done = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True)
    need(done.returncode == 0 and len(done.stdout) == length, "a frame does not decompress")
    return done.stdout


stream = open(sys.argv[1], "rb").read()
at = 0


def take(n):
    global at
    need(at + n <= len(stream), "it ends too early")
    at += n
    return stream[at - n : at]


def names(b):
    out = []
    for _ in range(3):
        (n,) = struct.unpack_from(">H", b)
        out.append(b[2 : 2 + n].decode())
        b = b[2 + n :]
    need(b == b"", "names")
    return out


need(take(8) == bytes.fromhex("894f44585354520a"), "mark")
version, flags, length = struct.unpack(">HHI", take(8))
need(version == 1 and flags & ~7 == 0 and 106 <= length <= 3178, "version, flags or length")
body = take(length)
(sum_,) = struct.unpack(">I", take(4))
need(crc32c(stream[: 16 + length]) == sum_, "checksum of the header")
size, base_size, created, start, block = struct.unpack_from(">QQqQI", body, 64)
need(block == 4096, "block length")
volume, snapshot, base = names(body[100:])
header = {
    "store": body[:16].hex(), "volume": body[16:32].hex(), "snapshot": body[32:48].hex(), "base": body[48:64].hex(),
    "flags": flags, "size": size, "base_size": base_size, "created": created, "start": start,
    "volume_name": volume, "snapshot_name": snapshot, "base_name": base,
}

content = open(sys.argv[2], "r+b")
content.truncate(size)
frames = records = data_bytes = hole_bytes = 0
position = start
while True:
    begin = at
    head = take(20)
    kind, encoding, zero, stored, raw, number, sum_ = struct.unpack(">BBHIIII", head)
    need(zero == 0 and number == frames and 1 <= stored <= 1114112 and 1 <= raw <= 1114112, "frame")
    payload = take(stored)
    need(crc32c(head[:16] + payload) == sum_, "checksum of a frame")
    if kind == 2:
        need(encoding == 0 and stored == raw == 64, "end")
        need(struct.unpack_from(">QQQQ", payload) == (frames, records, data_bytes, hole_bytes), "totals")
        need(payload[32:] == hashlib.sha256(stream[:begin]).digest(), "digest")
        need(at == len(stream), "more bytes")
        break
    need(kind == 1 and encoding in (0, 1), "kind")
    frames += 1
    if encoding == 1:
        payload = unzstd(payload, raw)
    need(len(payload) == raw, "length")
    while payload:
        records += 1
        if payload[0] == 1:
            offset, n, sum_ = struct.unpack_from(">QII", payload, 1)
            data = payload[17 : 17 + n]
            need(1 <= n <= 262144 and len(data) == n and crc32c(payload[:13] + data) == sum_, "record")
            data_bytes += n
            payload = payload[17 + n :]
        else:
            need(payload[0] == 2, "kind of record")
            offset, n, sum_ = struct.unpack_from(">QQI", payload, 1)
            need(crc32c(payload[:17]) == sum_, "hole")
            data = bytes(n)
            hole_bytes += n
            payload = payload[21:]
        need(offset >= position and offset % 4096 == 0 and (n % 4096 == 0 or offset + n == size) and offset + n <= size, "order")
        position = offset + n
        content.seek(offset)
        content.write(data)
print(json.dumps(header))
