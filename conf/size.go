package conf

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/dustin/go-humanize"
)

var sizeSyntax = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,6})?) ?(B|KiB|MiB|GiB|TiB|PiB|EiB|[KMGTPEkmgtpe])?$`)

// ParseSize returns the bytes in text: a count of bytes, or a number with an
// IEC unit such as 10GiB, or its first letter, which means the same to qemu-img,
// truncate and lvcreate. Units that are decimal for some programs and binary for
// others (10GB) are refused: a disk of the wrong size is found out late.
func ParseSize(text string) (int64, error) {
	m := sizeSyntax.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write bytes, or a number with KiB, MiB, GiB or TiB, for example 10GiB", text)
	}
	number, unit := m[1], m[2]
	if len(unit) == 1 && unit != "B" {
		unit = strings.ToUpper(unit) + "iB"
	}
	n, err := humanize.ParseBytes(number + unit)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large for a size", text)
	}
	return int64(n), nil
}

// FormatSize returns n bytes in the largest IEC unit that shows it exactly,
// as ParseSize reads it.
func FormatSize(n int64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	u := 0
	for n != 0 && n%1024 == 0 && u < len(units)-1 {
		n /= 1024
		u++
	}
	return fmt.Sprintf("%d%s", n, units[u])
}
