package iscsi

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of text negotiation. Text arrives in pieces (C bit); the pieces of one
// request together, and so the memory a peer can hold by text, are bounded.
const (
	maxTextLength  = 16 << 10
	maxTextKeys    = 256
	maxKeyLength   = 63  // RFC 7143 6.1
	maxValueLength = 255 // RFC 7143 6.1, values of no list or binary kind
)

// Values that answer a key instead of a result (RFC 7143 6.2).
const (
	valueNotUnderstood = "NotUnderstood"
	valueReject        = "Reject"
	valueIrrelevant    = "Irrelevant"
	valueNone          = "None"
	valueYes           = "Yes"
	valueNo            = "No"
)

// pair is one key=value of a text negotiation.
type pair struct{ key, value string }

// parseText splits the data of a login or text request, put together from all
// its pieces, into pairs (RFC 7143 6.1). Each pair ends with a NUL; empty pairs
// (more than one NUL) are passed over, as is a last pair without one.
func parseText(b []byte) ([]pair, error) {
	if len(b) > maxTextLength {
		return nil, fmt.Errorf("text of %d bytes, at most %d are taken", len(b), maxTextLength)
	}
	var pairs []pair
	for len(b) > 0 {
		var item []byte
		item, b, _ = bytes.Cut(b, []byte{0})
		if len(item) == 0 {
			continue
		}
		key, value, ok := strings.Cut(string(item), "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("text %.40q is no key=value", item)
		}
		if len(key) > maxKeyLength {
			return nil, fmt.Errorf("key of %d bytes, at most %d are allowed", len(key), maxKeyLength)
		}
		if len(pairs) == maxTextKeys {
			return nil, fmt.Errorf("more than %d keys in one text", maxTextKeys)
		}
		pairs = append(pairs, pair{key, value})
	}
	return pairs, nil
}

// appendPair adds key=value and its NUL to a text.
func appendPair(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// parseNumber reads a numerical value: decimal, or hexadecimal after 0x
// (RFC 7143 6.1).
func parseNumber(s string) (uint64, bool) {
	base := 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		s, base = s[2:], 16
	}
	for _, r := range s {
		// ParseUint takes a sign and, with base 0, underscores; the RFC takes neither.
		if r == '+' || r == '-' || r == '_' {
			return 0, false
		}
	}
	v, err := strconv.ParseUint(s, base, 64)
	return v, err == nil
}
