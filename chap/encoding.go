package chap

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxChallenge bounds the challenge that an initiator sends, in bytes (RFC 7143
// 12.1.3).
const maxChallenge = 1024

// maxEncoded bounds the text of a binary value: maxChallenge in hexadecimal.
const maxEncoded = 2 + 2*maxChallenge

// decodeBinary reads a binary value (RFC 7143 6.1): hexadecimal after 0x or
// base64 after 0b, upper or lower case.
func decodeBinary(s string) ([]byte, error) {
	if len(s) > maxEncoded {
		return nil, fmt.Errorf("a value of %d characters", len(s))
	}
	if len(s) < 3 || s[0] != '0' {
		return nil, errors.New("neither hexadecimal nor base64")
	}
	switch s[1] {
	case 'x', 'X':
		return hex.DecodeString(s[2:])
	case 'b', 'B':
		if strings.ContainsAny(s, "\r\n") { // which the decoder would pass over
			return nil, errors.New("line breaks in base64")
		}
		return base64.StdEncoding.Strict().DecodeString(s[2:])
	}
	return nil, errors.New("neither hexadecimal nor base64")
}

// encodeBinary writes a binary value in the form that every initiator reads.
func encodeBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

// decodeIdentifier reads CHAP_I: one byte, in decimal or hexadecimal.
func decodeIdentifier(s string) (byte, error) {
	base, digits := 10, s
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		base, digits = 16, s[2:]
	}
	n, err := strconv.ParseUint(digits, base, 8)
	if err != nil || len(s) > 10 {
		return 0, fmt.Errorf("%.20q is no number from 0 to 255", s)
	}
	return byte(n), nil
}
