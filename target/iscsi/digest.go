package iscsi

import (
	"encoding/binary"
	"hash/crc32"
)

// digestLength is the length in bytes of a header or data digest.
const digestLength = 4

// zeroPad is the source of padding bytes.
var zeroPad [4]byte

// castagnoli is the polynomial of RFC 7143 13.1 (CRC32C).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digest is a running CRC32C. The zero value is the digest of no bytes.
type digest uint32

func (d digest) add(b []byte) digest { return digest(crc32.Update(uint32(d), castagnoli, b)) }

// put writes the digest in wire order: with the bit mapping of RFC 7143 13.1 the value
// is sent least significant byte first.
func (d digest) put(b []byte) { binary.LittleEndian.PutUint32(b, uint32(d)) }

// matches reports whether the wire bytes b are the digest.
func (d digest) matches(b []byte) bool { return binary.LittleEndian.Uint32(b) == uint32(d) }
