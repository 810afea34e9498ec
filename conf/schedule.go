package conf

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // containers have no time zones

	"github.com/netresearch/go-cron"
)

// Schedule is when something happens: at multiples of Every, or at times by the clock.
type Schedule struct {
	// Every is the interval; 0: At counts. Times are multiples of it since 1970-01-01
	// 00:00 UTC.
	Every time.Duration
	// At are times of cron with five fields, or @hourly, @daily, @weekly, @monthly,
	// @yearly.
	At []string
	// Zone names the time zone of At.
	Zone string

	location *time.Location
	times    []cron.Schedule
}

// DefaultTimeZone is the default of Schedule.Zone.
const DefaultTimeZone = "UTC"

const (
	minEvery = time.Minute
	maxEvery = 366 * 24 * time.Hour
)

// cronParser reads five fields: minute, hour, day of the month, month, day of the week. As
// with cron, one of the two days is enough if both are given.
var cronParser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)

// parseZone returns a time zone by its name in the IANA database.
func parseZone(name string) (*time.Location, error) {
	l, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("unknown time zone %.70q; use UTC, or a name like Europe/Berlin", name)
	}
	return l, nil
}

// parseTime reads a time of cron.
func parseTime(text string) (cron.Schedule, error) {
	known := map[string]bool{"@hourly": true, "@daily": true, "@midnight": true, "@weekly": true, "@monthly": true, "@yearly": true, "@annually": true}
	if strings.Contains(text, "=") || strings.HasPrefix(text, "@") && !known[text] || len(text) > 256 {
		return nil, fmt.Errorf(`invalid time %.70q; use the five fields of cron, for example "30 2 * * *", or @hourly, @daily, @weekly, @monthly or @yearly`, text)
	}
	s, err := cronParser.Parse(text)
	if err != nil {
		return nil, fmt.Errorf(`invalid time %.70q: %w; use the five fields of cron, for example "30 2 * * *"`, text, err)
	}
	if s.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("invalid time %.70q: no day is such a day", text)
	}
	return s, nil
}

// Location returns the time zone.
func (s *Schedule) Location() *time.Location {
	if s.location == nil {
		return time.UTC
	}
	return s.location
}

// Next returns the first time after t, in the time zone. A time that the clock skips, because
// summer time begins, is when it does; one that it shows twice, because it ends, is the first
// of both. Of times of every hour those that the clock skips are not, and those that it shows
// twice are twice.
func (s *Schedule) Next(t time.Time) time.Time {
	t = t.In(s.Location())
	if s.Every > 0 {
		return nextMultiple(t, s.Every)
	}
	var next time.Time
	for _, at := range s.times {
		n := nextByClock(at, t)
		if everyHour(at) {
			n = nextOfHours(at, t)
		}
		if next.IsZero() || !n.IsZero() && n.Before(next) {
			next = n
		}
	}
	return next
}

// The times of package cron are computed of what a clock shows, taken as UTC: in a zone that
// changes its offset at midnight or by a day, the package looks for ever.

// longestJump is more than any clock was ever set forward or back.
const longestJump = 25 * time.Hour

// nextByClock returns the first instant after t at which a clock shows one of the times, or
// skips it.
func nextByClock(at cron.Schedule, t time.Time) time.Time {
	for shown := clock(t).Add(-longestJump); ; {
		if shown = at.Next(shown); shown.IsZero() {
			return shown
		}
		if n := instant(shown, t.Location()); n.After(t) {
			return n
		}
	}
}

// nextOfHours returns the first instant after t at which a clock shows one of the times.
func nextOfHours(at cron.Schedule, t time.Time) time.Time {
	for {
		_, offset := t.Zone()
		_, end := t.ZoneBounds()
		n := at.Next(clock(t))
		if n.IsZero() {
			return n
		}
		n = n.Add(-time.Duration(offset) * time.Second).In(t.Location())
		if end.IsZero() || n.Before(end) {
			return n
		}
		end = end.In(t.Location())
		if at.Next(clock(end).Add(-time.Second)).Equal(clock(end)) {
			return end
		}
		t = end
	}
}

// clock returns what a clock in the zone of t shows, as a time in UTC.
func clock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// instant returns the first time at which a clock in a zone shows what it is to show, or when
// it skips that.
func instant(shown time.Time, in *time.Location) time.Time {
	t := time.Date(shown.Year(), shown.Month(), shown.Day(), shown.Hour(), shown.Minute(), shown.Second(), shown.Nanosecond(), in)
	began, end := t.ZoneBounds()
	switch c := clock(t); {
	case c.Before(shown):
		return end.In(in)
	case c.After(shown):
		return began.In(in)
	case began.IsZero():
		return t
	}
	_, before := began.Add(-time.Nanosecond).Zone()
	_, now := t.Zone()
	if back := time.Duration(before-now) * time.Second; t.Sub(began) < back {
		return t.Add(-back)
	}
	return t
}

// nextMultiple returns the first multiple of every since 1970 that is after t.
func nextMultiple(t time.Time, every time.Duration) time.Time {
	n := t.UnixNano()
	past := n % int64(every)
	if past < 0 {
		past += int64(every)
	}
	return time.Unix(0, n-past+int64(every)).In(t.Location())
}

// everyHour reports whether a time of cron is one of each hour.
func everyHour(s cron.Schedule) bool {
	const hours = 1<<24 - 1
	spec, ok := s.(*cron.SpecSchedule)
	return ok && spec.Hour&hours == hours
}

// schedule reads when a policy runs.
func (c *checker) schedule(key string, every *string, at []*string, zone *string) Schedule {
	s := Schedule{Zone: DefaultTimeZone, location: time.UTC}
	if zone != nil {
		l, err := parseZone(*zone)
		if err != nil {
			c.add(key+".time_zone", "%v", err)
		} else {
			s.Zone, s.location = *zone, l
		}
	}
	c.notEmpty(key+".at", len(at))
	for i, value := range at {
		k := fmt.Sprintf("%s.at[%d]", key, i)
		text, ok := c.required(k, value, `a time of cron, for example "30 2 * * *"`)
		if !ok {
			continue
		}
		t, err := parseTime(text)
		if err != nil {
			c.add(k, "%v", err)
			continue
		}
		s.At, s.times = append(s.At, text), append(s.times, t)
	}
	if every != nil {
		s.Every = c.every(key+".every", *every)
	}
	switch {
	case every != nil && len(at) > 0:
		c.add(key+".every", "both every and at; keep one")
	case every == nil && len(at) == 0 && !c.mistyped[key+".at"] && !c.mistyped[key+".every"]:
		c.add(key, `missing; give every, for example 15m, or at, for example ["30 2 * * *"]`)
	}
	return s
}

// every reads an interval: a duration, or days.
func (c *checker) every(key, text string) time.Duration {
	days, err := strconv.Atoi(strings.TrimSuffix(text, "d"))
	d := time.Duration(days) * 24 * time.Hour
	if err != nil || !strings.HasSuffix(text, "d") || days > 366 {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d < minEvery || d > maxEvery || d%time.Second != 0 {
		c.add(key, "invalid value %.70q; use whole seconds, minutes, hours or days, from 1m to 366d, for example 15m", text)
		return 0
	}
	return d
}
