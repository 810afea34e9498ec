package conf

import (
	"fmt"
	"regexp"
	"strings"
)

// maxName is the maximum length of an iSCSI name in bytes (RFC 7143 4.2.7.1).
const maxName = 223

var (
	// RFC 7143 4.2.7.4: the year and month in which the domain was owned, the reversed
	// domain, and optionally any string after a colon. The characters are the ASCII
	// subset of RFC 3722.
	iqnSyntax = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[a-z0-9.:-]+)?$`)
	// RFC 7143 4.2.7.5, 4.2.7.6.
	euiSyntax = regexp.MustCompile(`^eui\.[0-9a-f]{16}$`)
	naaSyntax = regexp.MustCompile(`^naa\.([0-9a-f]{16}|[0-9a-f]{32})$`)
)

// ParseName parses an iSCSI name (RFC 7143 4.2.7) and returns its normal form, which
// is lower case.
func ParseName(text string) (string, error) {
	name := strings.ToLower(text)
	if len(name) > maxName {
		return "", fmt.Errorf("iSCSI name of %d bytes; maximum is %d", len(name), maxName)
	}
	switch kind, _, _ := strings.Cut(name, "."); kind {
	case "iqn":
		if !iqnSyntax.MatchString(name) {
			return "", fmt.Errorf("invalid iSCSI name %q; use iqn.YEAR-MONTH.REVERSED-DOMAIN:ANYTHING with letters, digits, dots, dashes and colons, for example iqn.2026-11.com.example:disks", text)
		}
	case "eui":
		if !euiSyntax.MatchString(name) {
			return "", fmt.Errorf("invalid iSCSI name %q; eui. is followed by 16 hexadecimal digits", text)
		}
	case "naa":
		if !naaSyntax.MatchString(name) {
			return "", fmt.Errorf("invalid iSCSI name %q; naa. is followed by 16 or 32 hexadecimal digits", text)
		}
	default:
		return "", fmt.Errorf("invalid iSCSI name %q; it must begin with iqn., eui. or naa., for example iqn.2026-11.com.example:disks", text)
	}
	return name, nil
}
