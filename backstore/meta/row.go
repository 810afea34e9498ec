package meta

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A row is stored with a seal after its body: a byte with the format of the row, and a
// CRC-32C of key, body and that byte. The first byte of the key is the kind of the row,
// so a body under another key or of another kind fails the CRC.

// rowFormat is the format of every row of this version.
const rowFormat = 1

const sealLength = 1 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSeal = errors.New("row fails its checksum")

// appendSealed appends a row's stored form to dst.
func appendSealed(dst, key, body []byte) []byte {
	dst = append(append(dst, body...), rowFormat)
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, dst[len(dst)-len(body)-1:])
	return binary.BigEndian.AppendUint32(dst, sum)
}

// unseal returns the body of a stored row.
func unseal(key, sealed []byte) ([]byte, error) {
	n := len(sealed) - sealLength
	if n < 0 {
		return nil, errSeal
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, sealed[:n+1])
	if sealed[n] != rowFormat || sum != binary.BigEndian.Uint32(sealed[n+1:]) {
		return nil, errSeal
	}
	return sealed[:n:n], nil
}
