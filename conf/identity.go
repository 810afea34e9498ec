package conf

import (
	"encoding/hex"
	"fmt"
	"regexp"
)

var identityText = regexp.MustCompile(`^[0-9A-Fa-f]{32}$`)

// ParseIdentity reads the identity of a LUN: its serial number, 32 hexadecimal digits.
func ParseIdentity(text string) (id [16]byte, err error) {
	if !identityText.MatchString(text) {
		return id, fmt.Errorf("invalid identity %q; use the serial number of the LUN, 32 hexadecimal digits", text)
	}
	_, err = hex.Decode(id[:], []byte(text))
	if err == nil && id == [16]byte{} {
		err = fmt.Errorf("identity %s: zeros identify nothing", text)
	}
	return id, err
}

// FormatIdentity returns an identity in the syntax of the file, "" for zero.
func FormatIdentity(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// identity reads the identity of a LUN.
func (c *checker) identity(key string, value *string) [16]byte {
	if value == nil {
		return [16]byte{}
	}
	id, err := ParseIdentity(*value)
	if err != nil {
		c.add(key, "%v", err)
	}
	return id
}

// checkIdentities refuses one identity for two media: initiators would take them for one
// disk with two paths.
func (c *checker) checkIdentities(targets []Target) {
	first := map[[16]byte]*LUN{}
	for i := range targets {
		for k := range targets[i].LUNs {
			l := &targets[i].LUNs[k]
			if l.Identity == [16]byte{} {
				continue
			}
			other := first[l.Identity]
			if other == nil {
				first[l.Identity] = l
			} else if other.Medium() != l.Medium() {
				c.add(l.Key+".identity", "LUN %d: %s has the identity of %s (line %d); initiators would take them for one disk", l.Number, l.Medium(), other.Medium(), lineOf(c.lines, other.Key+".identity"))
			}
		}
	}
}
