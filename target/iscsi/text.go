package iscsi

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of text negotiation. They apply to the sum of the PDUs of a request (C bit),
// and so bound the memory of a peer's text.
const (
	maxTextLength  = 16 << 10
	maxTextKeys    = 256
	maxKeyLength   = 63  // RFC 7143 6.1
	maxValueLength = 255 // RFC 7143 6.1, values of no list or binary kind
)

// Answers to a key other than a result (RFC 7143 6.2).
const (
	valueNotUnderstood = "NotUnderstood"
	valueReject        = "Reject"
	valueIrrelevant    = "Irrelevant"
	valueNone          = "None"
	valueYes           = "Yes"
	valueNo            = "No"
)

// pair is a key=value pair.
type pair struct{ key, value string }

// parseText splits the complete text of a login or text request into pairs (RFC 7143
// 6.1). Each pair ends with a NUL. Empty pairs (repeated NULs) are skipped, and the
// last NUL is optional.
func parseText(b []byte) ([]pair, error) {
	if len(b) > maxTextLength {
		return nil, fmt.Errorf("text of %d bytes; maximum is %d", len(b), maxTextLength)
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
			return nil, fmt.Errorf("text %.40q is not key=value", item)
		}
		if len(key) > maxKeyLength {
			return nil, fmt.Errorf("key of %d bytes; maximum is %d", len(key), maxKeyLength)
		}
		if len(pairs) == maxTextKeys {
			return nil, fmt.Errorf("more than %d keys in one text", maxTextKeys)
		}
		pairs = append(pairs, pair{key, value})
	}
	return pairs, nil
}

// appendPair appends key=value and a NUL to a text.
func appendPair(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// parseNumber parses a numerical value: decimal, or hexadecimal after 0x (RFC 7143 6.1).
func parseNumber(s string) (uint64, bool) {
	base := 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		s, base = s[2:], 16
	}
	for _, r := range s {
		// ParseUint accepts a sign and, with base 0, underscores; the RFC does not.
		if r == '+' || r == '-' || r == '_' {
			return 0, false
		}
	}
	v, err := strconv.ParseUint(s, base, 64)
	return v, err == nil
}
