package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// Authentication says what initiators have to prove by CHAP. Without users they
// have to prove nothing.
type Authentication struct {
	// Required: initiators that offer no CHAP are refused.
	Required bool
	// Algorithms are the names of those allowed; none: all.
	Algorithms []string
	Users      []User
	// Mutual is what the target proves itself by to initiators that ask for it,
	// nil when it cannot.
	Mutual *User
}

// User is a CHAP name and its secret.
type User struct {
	Name   string
	Secret Secret
	// Initiators are those that may use the name; none: all.
	Initiators []NamePattern
	// Key is where the user stands in the file, for example
	// "targets[0].authentication.users[1]".
	Key string
}

// Allows reports whether an initiator may use the name.
func (u *User) Allows(initiator string) bool {
	return len(u.Initiators) == 0 || matchesAny(u.Initiators, initiator)
}

// Binds reports whether the user is bound to the name of an initiator: it is one
// of those that alone may use the user's name, and not just because all may.
func (u *User) Binds(initiator string) bool {
	return slices.ContainsFunc(u.Initiators, func(p NamePattern) bool { return !p.universal() && p.Matches(initiator) })
}

// Bound reports whether only certain initiators may use the name.
func (u *User) Bound() bool {
	return len(u.Initiators) > 0 && !slices.ContainsFunc(u.Initiators, NamePattern.universal)
}

// Access is an entry of an access list. A target's first entry that matches an
// initiator says what it sees.
type Access struct {
	// Initiators and Addresses are who is meant; where both are given, both have
	// to match. At least one is.
	Initiators []NamePattern
	Addresses  []netip.Prefix
	// LUNs are those that the initiator sees; nil: all.
	LUNs []MappedLUN
	// ReadOnly makes all of them write protected for the initiator.
	ReadOnly bool
	// StoreDuplicates: what anyone writes to these LUNs is not deduplicated.
	StoreDuplicates bool
}

// StoresDuplicates reports whether what is written to a LUN of the target is not
// deduplicated, by the LUN's own key or because of an initiator that sees it.
func (t *Target) StoresDuplicates(l *LUN) bool {
	return l.StoreDuplicates || slices.ContainsFunc(t.Access, func(a Access) bool {
		return a.StoreDuplicates && (a.LUNs == nil || slices.ContainsFunc(a.LUNs, func(m MappedLUN) bool { return m.LUN == l.Number }))
	})
}

// MappedLUN is a LUN of the target as an initiator sees it.
type MappedLUN struct {
	// LUN is the number in the target's list, As the one that the initiator sees.
	LUN, As  uint16
	ReadOnly bool
}

// Matches reports whether the entry is about an initiator that connects from an
// address.
func (a *Access) Matches(initiator string, from netip.Addr) bool {
	if len(a.Initiators) > 0 && !matchesAny(a.Initiators, initiator) {
		return false
	}
	if len(a.Addresses) == 0 {
		return true
	}
	for _, p := range a.Addresses {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// NamePattern is an initiator name, or the beginning of one and an asterisk.
type NamePattern string

// universal reports whether the pattern is about every name, or every name of
// one type.
func (p NamePattern) universal() bool {
	return p == "*" || p == "iqn.*" || p == "eui.*" || p == "naa.*"
}

// Matches reports whether the pattern is about a name, which is in lower case.
func (p NamePattern) Matches(name string) bool {
	if prefix, ok := strings.CutSuffix(string(p), "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return name == string(p)
}

func matchesAny(patterns []NamePattern, name string) bool {
	for _, p := range patterns {
		if p.Matches(name) {
			return true
		}
	}
	return false
}

// ParseNamePattern reads an initiator name, or the beginning of one that ends
// with an asterisk, and returns it in lower case. Initiators have names that RFC 7143
// does not allow (my_host, iqn.2015-1.…), and may log in with them: what can log in
// can be named.
func ParseNamePattern(text string) (NamePattern, error) {
	pattern := strings.ToLower(text)
	name, beginning := strings.CutSuffix(pattern, "*")
	switch {
	case len(pattern) > maxName:
		return "", fmt.Errorf("the iSCSI name has %d bytes; %d are allowed", len(pattern), maxName)
	case strings.Contains(name, "*"):
		return "", fmt.Errorf("%q is no pattern; write the beginning of an iSCSI name and then an asterisk, for example iqn.1991-05.com.microsoft:*, or * alone for every name", text)
	case name == "" && !beginning, strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError }):
		return "", fmt.Errorf("%q is not an iSCSI name; write one without blanks, for example iqn.2026-11.com.example:host", text)
	}
	return NamePattern(pattern), nil
}

// ParseNetwork reads an IP address or a network ("192.0.2.0/24").
func ParseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a network; write for example 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s is an address inside a network; write %s for the network or %s for the address", text, p.Masked(), p.Addr())
	}
	return p, nil
}

// errTwoSecrets says what is wrong with a name that has no secret, or several.
var errTwoSecrets = errors.New("give one of secret_file, secret_env and secret")
