package snapshots

import (
	"cmp"
	"slices"
	"time"

	"odx/conf"
)

// verdict is what becomes of a snapshot, and why.
type verdict struct {
	taken
	// reasons are why it stays: "last", "hourly", …, "within", or "all"; empty: it goes.
	reasons []string
}

// rule is a kind of period, of which the latest snapshot is kept.
type rule struct {
	name   string
	count  int // conf.Unlimited for all
	period func(t time.Time, nth int) int
}

// rules returns the rules of what is kept, as restic's forget has them.
func rules(k *conf.Keep) []rule {
	week := func(t time.Time, _ int) int {
		year, week := t.ISOWeek()
		return year*100 + week
	}
	hour := func(t time.Time, _ int) int {
		return t.Year()*1_000_000 + int(t.Month())*10_000 + t.Day()*100 + t.Hour()
	}
	return []rule{
		{"last", k.Last, func(_ time.Time, nth int) int { return nth }},
		{"hourly", k.Hourly, hour},
		{"daily", k.Daily, func(t time.Time, _ int) int { return t.Year()*1000 + t.YearDay() }},
		{"weekly", k.Weekly, week},
		{"monthly", k.Monthly, func(t time.Time, _ int) int { return t.Year()*100 + int(t.Month()) }},
		{"yearly", k.Yearly, func(t time.Time, _ int) int { return t.Year() }},
	}
}

// decide says which of the snapshots of one volume stay; the result has the latest first. The
// order is that in which they were taken, which is that of their times unless the clock was
// set back: so the latest one always is the first, whatever the clock said then.
//
// A rule keeps the latest snapshot of each period that has one, and, while it has some of its
// number left, the oldest of all.
func decide(list []taken, k *conf.Keep, now time.Time, in *time.Location) []verdict {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b taken) int { return cmp.Or(cmp.Compare(b.Run, a.Run), b.Time.Compare(a.Time)) })
	verdicts := make([]verdict, len(list))
	for i, t := range list {
		verdicts[i].taken = t
	}
	keep := func(i int, why string) { verdicts[i].reasons = append(verdicts[i].reasons, why) }
	if k.Empty() {
		for i := range verdicts {
			keep(i, "all")
		}
		return verdicts
	}
	for _, r := range rules(k) {
		last, left := -1, r.count
		for i, t := range list {
			if left == 0 {
				break
			}
			period := r.period(t.Time.In(in), i)
			if i > 0 && period == last && i < len(list)-1 {
				continue
			}
			keep(i, r.name)
			last = period
			if left > 0 {
				left--
			}
		}
	}
	if k.Within != (conf.Span{}) {
		since := k.Within.Before(latest(list, now).In(in))
		for i, t := range list {
			if t.Time.After(since) {
				keep(i, "within")
			}
		}
	}
	return verdicts
}

// latest returns the latest time of the snapshots that is not in the future.
func latest(list []taken, now time.Time) (at time.Time) {
	for _, t := range list {
		if t.Time.After(at) && !t.Time.After(now) {
			at = t.Time
		}
	}
	return at
}
