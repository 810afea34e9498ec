package snapshots

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/conf"
)

// takenAt returns snapshots at times, one run after the other.
func takenAt(times ...time.Time) (list []taken) {
	for i, at := range times {
		list = append(list, taken{ID: identity{byte(i), byte(i >> 8), byte(i >> 16)}, Time: at, Run: uint64(i + 1)})
	}
	return list
}

// each returns n times, a step apart, the first one at from.
func each(from time.Time, n int, next func(time.Time) time.Time) (times []time.Time) {
	for range n {
		times = append(times, from)
		from = next(from)
	}
	return times
}

func days(n int) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return t.AddDate(0, 0, n) }
}

// TestDecide_Sundays is the first example of restic's manual (doc/060_forget.rst): one
// snapshot each Sunday for 12 weeks. keep-daily 4 keeps the last four Sundays, since only days
// with a snapshot count.
func TestDecide_Sundays(t *testing.T) {
	list := takenAt(each(time.Date(2019, 9, 1, 11, 0, 0, 0, time.UTC), 12, days(7))...)
	var kept []string
	for _, v := range decide(list, &conf.Keep{Daily: 4}, time.Date(2019, 12, 1, 0, 0, 0, 0, time.UTC), time.UTC) {
		if len(v.reasons) > 0 {
			kept = append(kept, v.Time.Format("2006-01-02 ")+strings.Join(v.reasons, ","))
		}
	}
	want := []string{"2019-11-17 daily", "2019-11-10 daily", "2019-11-03 daily", "2019-10-27 daily"}
	if !slices.Equal(kept, want) {
		t.Errorf("kept %q, want %q", kept, want)
	}
}

// TestDecide_Century is the second example of restic's manual: one snapshot each day for 100
// years. keep-daily 7, keep-weekly 5, keep-monthly 12 and keep-yearly 75 keep the last 7 days,
// 4 more last days of a week, 12 or 11 more last days of a month, and 75 or 74 more last days
// of a year, depending on which days are more than one of these.
func TestDecide_Century(t *testing.T) {
	for _, last := range []string{"2025-12-31", "2025-12-28", "2026-06-17", "2026-02-28", "2024-02-29"} {
		end, err := time.Parse(time.DateOnly, last)
		if err != nil {
			t.Fatal(err)
		}
		list := takenAt(each(end.AddDate(-100, 0, 0).Add(12*time.Hour), int(end.Sub(end.AddDate(-100, 0, 0)).Hours()/24)+1, days(1))...)
		only, matches := map[string]int{}, map[string]int{}
		for i, v := range decide(list, &conf.Keep{Daily: 7, Weekly: 5, Monthly: 12, Yearly: 75}, end.AddDate(0, 0, 1), time.UTC) {
			if len(v.reasons) == 0 {
				continue
			}
			only[v.reasons[0]]++
			for _, why := range v.reasons {
				matches[why]++
			}
			next := v.Time.AddDate(0, 0, 1)
			switch newest := i == 0; v.reasons[0] {
			case "weekly":
				if v.Time.Weekday() != time.Sunday && !newest {
					t.Errorf("until %s: %v is not the last day of a week", last, v.Time)
				}
			case "monthly":
				if next.Day() != 1 && !newest {
					t.Errorf("until %s: %v is not the last day of a month", last, v.Time)
				}
			case "yearly":
				if next.YearDay() != 1 && !newest {
					t.Errorf("until %s: %v is not the last day of a year", last, v.Time)
				}
			}
		}
		if fmt.Sprint(matches) != "map[daily:7 monthly:12 weekly:5 yearly:75]" {
			t.Errorf("until %s: %v", last, matches)
		}
		// The week of the days is a whole one on a Sunday. More days than the manual says can
		// be of several kinds.
		weekly := 3
		if end.Weekday() == time.Sunday {
			weekly = 4
		}
		if only["daily"] != 7 || only["weekly"] != weekly || only["monthly"] < 10 || only["yearly"] < 73 {
			t.Errorf("until %s: %v", last, only)
		}
	}
}

// TestDecide: each rule of its own, and what the manual says in words.
func TestDecide(t *testing.T) {
	at := func(texts ...string) (times []time.Time) {
		for _, text := range texts {
			parsed, err := time.Parse("2006-01-02 15:04", text)
			if err != nil {
				t.Fatal(err)
			}
			times = append(times, parsed)
		}
		return times
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		keep  conf.Keep
		times []time.Time
		in    *time.Location
		want  string // a letter for each snapshot, the oldest first: k stays
	}{
		{"an empty policy keeps all", conf.Keep{}, at("2026-01-01 10:00", "2026-01-02 10:00"), nil, "kk"},
		{"last", conf.Keep{Last: 2}, at("2026-01-01 10:00", "2026-01-01 10:01", "2026-01-01 10:02"), nil, "-kk"},
		{"the latest of each hour", conf.Keep{Hourly: 2}, at("2026-01-01 08:00", "2026-01-01 09:00", "2026-01-01 09:59", "2026-01-01 10:00", "2026-01-01 10:30"), nil, "--k-k"},
		{"hours without a snapshot do not count", conf.Keep{Hourly: 2}, at("2026-01-01 01:00", "2026-01-02 09:00", "2026-01-09 10:00"), nil, "-kk"},
		{"weeks are from Monday to Sunday", conf.Keep{Weekly: 2}, at("2026-01-04 12:00", "2026-01-05 00:00", "2026-01-11 23:59", "2026-01-12 00:00"), nil, "--kk"},
		{"a week that two years share", conf.Keep{Weekly: 2}, at("2024-12-22 12:00", "2024-12-30 12:00", "2025-01-01 12:00", "2025-01-06 12:00"), nil, "--kk"},
		{"the oldest stays while a number is left", conf.Keep{Daily: 5}, at("2026-01-01 08:00", "2026-01-01 09:00", "2026-01-01 10:00", "2026-01-02 10:00"), nil, "k-kk"},
		{"the oldest goes when none is", conf.Keep{Daily: 2}, at("2026-01-01 08:00", "2026-01-01 09:00", "2026-01-02 10:00"), nil, "-kk"},
		{"unlimited", conf.Keep{Monthly: conf.Unlimited}, at("2026-01-01 08:00", "2026-01-31 08:00", "2026-02-01 08:00", "2026-03-01 08:00"), nil, "kkkk"},
		{"rules are joined by or", conf.Keep{Last: 1, Yearly: 2}, at("2024-01-01 08:00", "2025-05-05 08:00", "2025-06-05 08:00", "2026-03-01 08:00"), nil, "--kk"},
		{"within is before the latest one", conf.Keep{Within: conf.Span{Days: 1, Hours: 1}}, at("2020-01-01 09:00", "2020-01-01 09:01", "2020-01-02 10:00"), nil, "-kk"},
		{"within two months", conf.Keep{Within: conf.Span{Months: 2}}, at("2026-01-30 10:00", "2026-01-31 10:01", "2026-03-31 10:00"), nil, "-kk"},
		{"of times in the future those before count", conf.Keep{Within: conf.Span{Hours: 1}}, at("2026-01-01 08:00", "2026-01-01 09:30", "2026-01-01 10:00", "2099-01-01 10:00"), nil, "-kkk"},
		{"days of a zone", conf.Keep{Daily: 2}, at("2026-01-01 12:00", "2026-01-01 22:30", "2026-01-01 23:30"), berlin, "-kk"},
		{"the hour that comes twice is one", conf.Keep{Hourly: 2}, at("2026-10-24 23:30", "2026-10-25 00:30", "2026-10-25 01:30"), berlin, "k-k"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.in == nil {
				c.in = time.UTC
			}
			got := make([]byte, len(c.times))
			for _, v := range decide(takenAt(c.times...), &c.keep, time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), c.in) {
				got[v.Run-1] = '-'
				if len(v.reasons) > 0 {
					got[v.Run-1] = 'k'
				}
			}
			if string(got) != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestDecide_ClockSetBack: what was taken last is the latest, though its time is not.
func TestDecide_ClockSetBack(t *testing.T) {
	now := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	list := takenAt(now.AddDate(1, 0, 0), now)
	verdicts := decide(list, &conf.Keep{Last: 1}, now, time.UTC)
	if verdicts[0].Run != 2 || len(verdicts[0].reasons) == 0 || len(verdicts[1].reasons) > 0 {
		t.Errorf("%+v", verdicts)
	}
}

// plainly says by the words of the manual which snapshots, the latest first, stay: of a list
// whose times decrease.
func plainly(times []time.Time, k *conf.Keep) map[int]bool {
	stay := map[int]bool{}
	for _, r := range []struct {
		n      int
		layout func(t time.Time) string
	}{
		{k.Hourly, func(t time.Time) string { return t.Format("2006-01-02 15") }},
		{k.Daily, func(t time.Time) string { return t.Format("2006-01-02") }},
		{k.Weekly, func(t time.Time) string {
			for t.Weekday() != time.Monday {
				t = t.AddDate(0, 0, -1)
			}
			return t.Format("2006-01-02")
		}},
		{k.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
		{k.Yearly, func(t time.Time) string { return t.Format("2006") }},
	} {
		if r.n == 0 || len(times) == 0 {
			continue
		}
		var periods []string // the latest first
		first := map[string]int{}
		for i, at := range times {
			period := r.layout(at)
			if _, known := first[period]; !known {
				periods, first[period] = append(periods, period), i
			}
		}
		n := len(periods)
		if r.n != conf.Unlimited {
			n = min(n, r.n)
		}
		for _, period := range periods[:n] {
			stay[first[period]] = true
		}
		if r.n == conf.Unlimited || n < r.n {
			stay[len(times)-1] = true
		}
	}
	for i := range times {
		if k.Last == conf.Unlimited || i < k.Last {
			stay[i] = true
		}
		if k.Within != (conf.Span{}) && times[i].After(k.Within.Before(times[0])) {
			stay[i] = true
		}
	}
	return stay
}

// TestDecide_Plainly compares random sequences with a plain model. Deciding about what stays
// again changes nothing.
func TestDecide_Plainly(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 10_000 {
		number := func(most int) int {
			if rng.IntN(3) > 0 {
				return 0
			}
			if rng.IntN(10) == 0 {
				return conf.Unlimited
			}
			return 1 + rng.IntN(most)
		}
		k := conf.Keep{Last: number(9), Hourly: number(30), Daily: number(20), Weekly: number(9), Monthly: number(14), Yearly: number(4)}
		if rng.IntN(4) == 0 {
			k.Within = conf.Span{Years: rng.IntN(2), Months: rng.IntN(3), Days: rng.IntN(20), Hours: rng.IntN(30)}
		}
		if k.Empty() {
			continue
		}
		at := time.Date(2020+rng.IntN(6), time.Month(1+rng.IntN(12)), 1+rng.IntN(28), rng.IntN(24), rng.IntN(60), 0, 0, time.UTC)
		step := []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 30 * 24 * time.Hour}[rng.IntN(4)]
		var times []time.Time
		for range rng.IntN(60) {
			times = append(times, at)
			at = at.Add(time.Duration(1 + rng.Int64N(2*int64(step))))
		}
		now := at
		list := takenAt(times...)
		slices.Reverse(times)
		stay := plainly(times, &k)
		var left []taken
		for i, v := range decide(list, &k, now, time.UTC) {
			if (len(v.reasons) > 0) != stay[i] {
				t.Fatalf("seed %d, round %d, %+v: snapshot %d of %d at %v: reasons %v", seed, round, k, i, len(list), v.Time, v.reasons)
			}
			if len(v.reasons) > 0 {
				left = append(left, v.taken)
			}
		}
		for _, v := range decide(left, &k, now, time.UTC) {
			if len(v.reasons) == 0 {
				t.Fatalf("seed %d, round %d, %+v: %v stays at first, and goes then", seed, round, k, v.Time)
			}
		}
	}
}

// TestDecide_Picture draws the picture of docs/snapshots.md.
func TestDecide_Picture(t *testing.T) {
	monday := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	list := takenAt(each(monday, 4*7*5, func(t time.Time) time.Time { return t.Add(6 * time.Hour) })...)
	marks := map[string]string{"": ".", "last": "L", "daily": "D", "weekly": "W", "last daily weekly": "*"}
	rows := make([]strings.Builder, 4)
	verdicts := decide(list, &conf.Keep{Last: 3, Daily: 5, Weekly: 4}, monday.AddDate(1, 0, 0), time.UTC)
	slices.Reverse(verdicts)
	for i, v := range verdicts {
		row := &rows[i%4]
		switch day := i / 4; {
		case day == 0:
			fmt.Fprintf(row, "   %s ", v.Time.Format("15:04"))
		case day%7 == 0:
			row.WriteString("  ")
		default:
			row.WriteString(" ")
		}
		row.WriteString(marks[strings.Join(v.reasons, " ")])
	}
	text, err := os.ReadFile("../docs/snapshots.md")
	if err != nil {
		t.Fatal(err)
	}
	var picture strings.Builder
	for i := range rows {
		picture.WriteString(rows[i].String() + "\n")
	}
	if !strings.Contains(string(text), picture.String()) {
		t.Errorf("docs/snapshots.md has not\n%s", picture.String())
	}
}
