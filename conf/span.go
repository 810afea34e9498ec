package conf

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Span is a time of the calendar, as restic's --keep-within has it: 2y5m7d3h is two years,
// five months, seven days and three hours.
type Span struct{ Years, Months, Days, Hours int }

var spanSyntax = regexp.MustCompile(`^([0-9]{1,3}y)?([0-9]{1,4}m)?([0-9]{1,5}d)?([0-9]{1,6}h)?$`)

// ParseSpan reads a span of at least an hour.
func ParseSpan(text string) (s Span, err error) {
	m := spanSyntax.FindStringSubmatch(text)
	if m != nil {
		for i, to := range []*int{&s.Years, &s.Months, &s.Days, &s.Hours} {
			if n := m[i+1]; n != "" {
				*to, _ = strconv.Atoi(n[:len(n)-1]) // digits
			}
		}
	}
	if s == (Span{}) {
		return s, fmt.Errorf("invalid span %.70q; use years, months, days and hours in this order, for example 2y5m7d3h", text)
	}
	return s, nil
}

// String returns the span as ParseSpan reads it, "" for none.
func (s Span) String() string {
	var b strings.Builder
	for _, part := range []struct {
		n    int
		unit byte
	}{{s.Years, 'y'}, {s.Months, 'm'}, {s.Days, 'd'}, {s.Hours, 'h'}} {
		if part.n > 0 {
			b.WriteString(strconv.Itoa(part.n))
			b.WriteByte(part.unit)
		}
	}
	return b.String()
}

// Before returns the time that is a span before t.
func (s Span) Before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
}
