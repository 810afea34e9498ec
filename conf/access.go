package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// Authentication configures CHAP. Without users, initiators need not authenticate.
type Authentication struct {
	// Required refuses initiators that do not offer CHAP.
	Required bool
	// Algorithms lists the names of the allowed algorithms. If empty, all are.
	Algorithms []string
	Users      []User
	// Mutual is the target's credential for mutual authentication, or nil to refuse
	// initiators that request it.
	Mutual *User
}

// User is a CHAP name and its secret.
type User struct {
	Name   string
	Secret Secret
	// Initiators lists who may use the name. If empty, all may.
	Initiators []NamePattern
	// Key is the path of the user in the file, for example
	// "targets[0].authentication.users[1]".
	Key string
}

// Allows reports whether an initiator may use the name.
func (u *User) Allows(initiator string) bool {
	return len(u.Initiators) == 0 || matchesAny(u.Initiators, initiator)
}

// Binds reports whether the user is bound to the name of an initiator: a pattern that
// does not match every name matches it.
func (u *User) Binds(initiator string) bool {
	return slices.ContainsFunc(u.Initiators, func(p NamePattern) bool { return !p.universal() && p.Matches(initiator) })
}

// Bound reports whether only some initiators may use the name.
func (u *User) Bound() bool {
	return len(u.Initiators) > 0 && !slices.ContainsFunc(u.Initiators, NamePattern.universal)
}

// Access is an entry of an access list. The first entry of a target that matches an
// initiator applies.
type Access struct {
	// Initiators and Addresses select the initiators. At least one is given; if both
	// are, both must match.
	Initiators []NamePattern
	Addresses  []netip.Prefix
	// LUNs lists the mapped LUNs. If nil, all are mapped.
	LUNs []MappedLUN
	// ReadOnly write protects all of them for the initiator.
	ReadOnly bool
	// StoreDuplicates disables deduplication of writes to these LUNs, by all
	// initiators.
	StoreDuplicates bool
}

// StoresDuplicates reports whether writes to a LUN of the target are not
// deduplicated, because of the LUN's own key or an access entry that maps it.
func (t *Target) StoresDuplicates(l *LUN) bool {
	return l.StoreDuplicates || slices.ContainsFunc(t.Access, func(a Access) bool {
		return a.StoreDuplicates && (a.LUNs == nil || slices.ContainsFunc(a.LUNs, func(m MappedLUN) bool { return m.LUN == l.Number }))
	})
}

// MappedLUN maps a LUN of the target to a LUN of an initiator.
type MappedLUN struct {
	// LUN is the number in the target's list, As the number for the initiator.
	LUN, As  uint16
	ReadOnly bool
}

// Matches reports whether the entry applies to an initiator that connects from the
// given address.
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

// NamePattern is an initiator name, or a prefix followed by an asterisk.
type NamePattern string

// universal reports whether the pattern matches all names, or all names of one type.
func (p NamePattern) universal() bool {
	return p == "*" || p == "iqn.*" || p == "eui.*" || p == "naa.*"
}

// Matches reports whether the pattern matches name, which is in lower case.
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

// ParseNamePattern parses an initiator name, or a prefix followed by an asterisk, and
// returns it in lower case. It accepts names that RFC 7143 does not allow (my_host,
// iqn.2015-1.…), because initiators log in with such names.
func ParseNamePattern(text string) (NamePattern, error) {
	pattern := strings.ToLower(text)
	name, isPrefix := strings.CutSuffix(pattern, "*")
	switch {
	case len(pattern) > maxName:
		return "", fmt.Errorf("iSCSI name of %d bytes; maximum is %d", len(pattern), maxName)
	case strings.Contains(name, "*"):
		return "", fmt.Errorf("invalid pattern %q; use a prefix of an iSCSI name followed by an asterisk, for example iqn.1991-05.com.microsoft:*, or * to match all names", text)
	case name == "" && !isPrefix, strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError }):
		return "", fmt.Errorf("invalid iSCSI name %q; use one without white space, for example iqn.2026-11.com.example:host", text)
	}
	return NamePattern(pattern), nil
}

// ParseNetwork parses an IP address or a network ("192.0.2.0/24").
func ParseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a network; use for example 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has host bits set; use %s for the network or %s for the address", text, p.Masked(), p.Addr())
	}
	return p, nil
}

// errSecretCount reports a name with no secret, or with several.
var errSecretCount = errors.New("give exactly one of secret_file, secret_env and secret")
