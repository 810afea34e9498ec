package chap

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxChallenge is the maximum length of an initiator's challenge in bytes (RFC 7143
// 12.1.3).
const maxChallenge = 1024

// maxEncoded is the maximum length of the text of a binary value: maxChallenge in
// hexadecimal.
const maxEncoded = 2 + 2*maxChallenge

// decodeBinary decodes a binary value (RFC 7143 6.1): hexadecimal after 0x or
// base64 after 0b, upper or lower case.
func decodeBinary(s string) ([]byte, error) {
	if len(s) > maxEncoded {
		return nil, fmt.Errorf("value of %d characters; maximum is %d", len(s), maxEncoded)
	}
	if len(s) < 3 || s[0] != '0' {
		return nil, errors.New("neither hexadecimal nor base64")
	}
	switch s[1] {
	case 'x', 'X':
		return hex.DecodeString(s[2:])
	case 'b', 'B':
		if strings.ContainsAny(s, "\r\n") { // the decoder ignores them
			return nil, errors.New("line breaks in base64")
		}
		return base64.StdEncoding.Strict().DecodeString(s[2:])
	}
	return nil, errors.New("neither hexadecimal nor base64")
}

// encodeBinary encodes a binary value in hexadecimal, which every initiator accepts.
func encodeBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

// decodeIdentifier decodes CHAP_I: one byte, in decimal or hexadecimal.
func decodeIdentifier(s string) (byte, error) {
	base, digits := 10, s
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		base, digits = 16, s[2:]
	}
	n, err := strconv.ParseUint(digits, base, 8)
	if err != nil || len(s) > 10 {
		return 0, fmt.Errorf("invalid number %.20q; range is 0 to 255", s)
	}
	return byte(n), nil
}
