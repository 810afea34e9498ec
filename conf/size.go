package conf

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/dustin/go-humanize"
)

var sizeSyntax = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,6})?) ?(B|KiB|MiB|GiB|TiB|PiB|EiB|[KMGTPEkmgtpe])?$`)

// ParseSize parses a size in bytes: a number, optionally with an IEC unit such as
// 10GiB, or with the first letter of one, as qemu-img, truncate and lvcreate accept.
// It refuses units that are decimal in some programs and binary in others (10GB),
// because a disk of the wrong size is detected late.
func ParseSize(text string) (int64, error) {
	m := sizeSyntax.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("invalid size %q; use bytes, or a number with KiB, MiB, GiB or TiB, for example 10GiB", text)
	}
	number, unit := m[1], m[2]
	if len(unit) == 1 && unit != "B" {
		unit = strings.ToUpper(unit) + "iB"
	}
	n, err := humanize.ParseBytes(number + unit)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("size %q is out of range", text)
	}
	return int64(n), nil
}

// FormatSize formats n bytes in the largest IEC unit that is exact. ParseSize parses
// the result.
func FormatSize(n int64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	u := 0
	for n != 0 && n%1024 == 0 && u < len(units)-1 {
		n /= 1024
		u++
	}
	return fmt.Sprintf("%d%s", n, units[u])
}
