package conf

import (
	"fmt"
	"regexp"
	"strings"
)

// maxName is the longest iSCSI name in bytes (RFC 7143 4.2.7.1).
const maxName = 223

var (
	// RFC 7143 4.2.7.4: year and month of owning the domain, the domain
	// reversed, and what its owner likes after a colon. The characters are
	// those that RFC 3722 leaves of ASCII.
	iqnSyntax = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[a-z0-9.:-]+)?$`)
	// RFC 7143 4.2.7.5, 4.2.7.6.
	euiSyntax = regexp.MustCompile(`^eui\.[0-9a-f]{16}$`)
	naaSyntax = regexp.MustCompile(`^naa\.([0-9a-f]{16}|[0-9a-f]{32})$`)
)

// ParseName checks an iSCSI name (RFC 7143 4.2.7) and returns its normal form,
// which is lower case.
func ParseName(text string) (string, error) {
	name := strings.ToLower(text)
	if len(name) > maxName {
		return "", fmt.Errorf("the iSCSI name has %d bytes; %d are allowed", len(name), maxName)
	}
	switch kind, _, _ := strings.Cut(name, "."); kind {
	case "iqn":
		if !iqnSyntax.MatchString(name) {
			return "", fmt.Errorf("%q is not an iSCSI name; write iqn.YEAR-MONTH.REVERSED-DOMAIN:ANYTHING with letters, digits, dots, dashes and colons, for example iqn.2026-11.com.example:disks", text)
		}
	case "eui":
		if !euiSyntax.MatchString(name) {
			return "", fmt.Errorf("%q is not an iSCSI name; eui. is followed by 16 hexadecimal digits", text)
		}
	case "naa":
		if !naaSyntax.MatchString(name) {
			return "", fmt.Errorf("%q is not an iSCSI name; naa. is followed by 16 or 32 hexadecimal digits", text)
		}
	default:
		return "", fmt.Errorf("%q is not an iSCSI name; it begins with iqn., eui. or naa., for example iqn.2026-11.com.example:disks", text)
	}
	return name, nil
}
