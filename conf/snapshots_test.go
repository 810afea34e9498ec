package conf

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func policies(t *testing.T, text string) []SnapshotPolicy {
	t.Helper()
	return parsed(t, minimal+"snapshots:\n"+text).Snapshots
}

func TestParse_Snapshots(t *testing.T) {
	got := policies(t, `
  - {name: hourly, volumes: [a, "b*", "file:img/*", "file:x.vhdx", "*"], every: 2d}
  - name: nightly
    volumes: [a]
    at: ["30 2 * * *", "@weekly"]
    time_zone: Europe/Berlin
    keep: {last: 1, hourly: 2, daily: 3, weekly: 4, monthly: 5, yearly: unlimited, within: 2y5m7d3h}
    names: "%v.%n"
    max_snapshots: 7
    together: true
    pause: true
    before: {command: [freeze, "a b"], time_limit: 5s, on_failure: continue}
    after: {command: [thaw]}
`)
	hooks := HookDirectory(parsed(t, minimal).File)
	first, second := got[0], got[1]
	if first.Schedule.Every != 48*time.Hour || !first.Keep.Empty() || first.Names != DefaultSnapshotNames || first.MaxSnapshots != DefaultMaxSnapshots ||
		first.Before != nil || first.Paused || first.Together || len(first.Volumes) != 5 || first.Schedule.Location() != time.UTC {
		t.Errorf("defaults: %+v", first)
	}
	want := Keep{1, 2, 3, 4, 5, Unlimited, Span{2, 5, 7, 3}}
	before, after := &Hook{[]string{hooks + "/freeze", "a b"}, 5 * time.Second, true}, &Hook{[]string{hooks + "/thaw"}, DefaultHookLimit, false}
	if second.Keep != want || second.MaxSnapshots != 7 || !second.Together || !second.Paused || second.Schedule.Location().String() != "Europe/Berlin" ||
		!reflect.DeepEqual(second.Before, before) || !reflect.DeepEqual(second.After, after) || second.Key != "snapshots[1]" {
		t.Errorf("got %+v, before %+v, after %+v", second, second.Before, second.After)
	}
}

// TestParse_Snapshots_Effective: what is printed is the same configuration.
func TestParse_Snapshots_Effective(t *testing.T) {
	cfg := parsed(t, full(t))
	text, err := cfg.Effective()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseEffective(cfg.File, text)
	if err != nil {
		t.Fatal(err)
	}
	changes := slices.DeleteFunc(Diff(cfg, again), func(c Change) bool { return !strings.HasPrefix(c.Key, "snapshots") })
	if len(changes) > 0 || len(again.Snapshots) != len(cfg.Snapshots) || len(cfg.Snapshots) == 0 {
		t.Errorf("%d policies, changes %v", len(again.Snapshots), changes)
	}
	for i := range cfg.Snapshots {
		if a, b := cfg.Snapshots[i], again.Snapshots[i]; !reflect.DeepEqual(a.Keep, b.Keep) || !reflect.DeepEqual(a.Before, b.Before) || !slices.Equal(a.Volumes, b.Volumes) {
			t.Errorf("%+v\nis %+v", a, b)
		}
	}
}

func TestDiff_Snapshots(t *testing.T) {
	a := parsed(t, minimal+"snapshots: [{name: h, volumes: [a], every: 60m}, {name: gone, volumes: [a], every: 1h}]\n")
	b := parsed(t, minimal+"snapshots: [{name: h, volumes: [a], every: 1h, keep: {last: 3}, pause: true}]\n")
	var got []string
	for _, c := range Diff(a, b) {
		if c.Class != AtOnce {
			t.Errorf("%s: %v", c.Key, c.Class)
		}
		got = append(got, c.Key)
	}
	if want := []string{"snapshots[h].keep", "snapshots[h].pause", "snapshots[gone]"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPauseSnapshots(t *testing.T) {
	text := minimal + "snapshots:\n  # of the database\n  - name: h\n    volumes: [a]\n    every: 1h # always\n"
	paused, err := Apply("odx.yaml", []byte(text), PauseSnapshots{"h", true})
	if err != nil || !strings.Contains(string(paused), "    pause: true\n") || !strings.Contains(string(paused), "# of the database") {
		t.Fatalf("%s%v", paused, err)
	}
	resumed, err := Apply("odx.yaml", paused, PauseSnapshots{"h", false})
	if err != nil || string(resumed) != text {
		t.Errorf("%s%v", resumed, err)
	}
	if again, err := Apply("odx.yaml", resumed, PauseSnapshots{"h", false}); err != nil || string(again) != text {
		t.Errorf("%s%v", again, err)
	}
	for _, in := range []string{text, minimal} {
		if _, err := Apply("odx.yaml", []byte(in), PauseSnapshots{"other", true}); err == nil || !strings.Contains(err.Error(), "policy other") {
			t.Errorf("an unknown policy: %v", err)
		}
	}
}

// parseSchedule returns the schedule of an interval, or of times in a zone.
func parseSchedule(every time.Duration, at []string, zone string) (Schedule, error) {
	s := Schedule{Every: every, At: at, Zone: zone}
	var err error
	if s.location, err = parseZone(zone); err != nil {
		return s, err
	}
	for _, text := range at {
		t, err := parseTime(text)
		if err != nil {
			return s, err
		}
		s.times = append(s.times, t)
	}
	if (every > 0) == (len(at) > 0) {
		return s, errors.New("give one of every and at")
	}
	return s, nil
}

func TestSchedule_Next(t *testing.T) {
	for _, c := range []struct {
		name  string
		every time.Duration
		at    string
		zone  string
		from  string
		want  []string
	}{
		{"quarters of an hour", 15 * time.Minute, "", "UTC", "2026-01-01T00:00:00Z", []string{"2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"}},
		{"days are those of UTC", 24 * time.Hour, "", "Europe/Berlin", "2026-01-01T12:00:00Z", []string{"2026-01-02T01:00:00+01:00", "2026-01-03T01:00:00+01:00"}},
		{"before 1970", time.Hour, "", "UTC", "1969-12-31T22:30:00Z", []string{"1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"}},
		{"a night", 0, "30 2 * * *", "Europe/Berlin", "2026-06-01T00:00:00Z", []string{"2026-06-01T02:30:00+02:00", "2026-06-02T02:30:00+02:00"}},
		{"an hour that is left out", 0, "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"an hour that comes twice", 0, "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"in the hour that comes again", 0, "30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", []string{"2026-10-26T02:30:00+01:00"}},
		{"each hour, one of which comes twice", 0, "0 * * * *", "Europe/Berlin", "2026-10-25T01:30:00+02:00", []string{"2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		{"several in an hour that is left out", 0, "*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"each hour, one of which is left out", 0, "30 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", []string{"2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"}},
		{"a day that is left out", 0, "0 12 * * *", "Pacific/Apia", "2011-12-29T13:00:00-10:00", []string{"2011-12-31T00:00:00+14:00", "2011-12-31T12:00:00+14:00"}},
		{"half an hour that comes twice", 0, "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00+11:00", []string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		{"a day that is left out at midnight", 0, "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", []string{"2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"}},
		{"the first, or a Monday", 0, "0 0 1 * 1", "UTC", "2026-03-25T00:00:00Z", []string{"2026-03-30T00:00:00Z", "2026-04-01T00:00:00Z"}},
		{"a leap day", 0, "0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		{"two lists", 0, "0 3 * * *|0 2 * * *", "UTC", "2026-01-01T00:00:00Z", []string{"2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"}},
		{"a name", 0, "@weekly", "UTC", "2026-01-01T00:00:00Z", []string{"2026-01-04T00:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var at []string
			if c.at != "" {
				at = strings.Split(c.at, "|")
			}
			s, err := parseSchedule(c.every, at, c.zone)
			if err != nil {
				t.Fatal(err)
			}
			now, err := time.Parse(time.RFC3339, c.from)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if now = s.Next(now); now.Format(time.RFC3339) != want {
					t.Fatalf("%s, want %s", now.Format(time.RFC3339), want)
				}
			}
		})
	}
}

// TestSchedule_Next_Increases: the next time is later, whatever the clock does there, and no
// time is between the two.
func TestSchedule_Next_Increases(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "UTC"} {
		for _, at := range []string{"*/7 * * * *", "0 0 * * *", "30 1-3 * * *", "59 23 31 12 *", "0 2 * * 0"} {
			s, err := parseSchedule(0, []string{at}, zone)
			if err != nil {
				t.Fatal(err)
			}
			for now := time.Date(2011, 12, 28, 0, 0, 0, 0, time.UTC); now.Before(time.Date(2012, 11, 15, 0, 0, 0, 0, time.UTC)); now = now.Add(11*time.Hour + 13*time.Minute) {
				next := s.Next(now)
				if !next.After(now) || next.Sub(now) > 370*24*time.Hour {
					t.Fatalf("%s in %s: after %v comes %v", at, zone, now, next)
				}
				if between := s.Next(now.Add(next.Sub(now) / 2)); !between.Equal(next) {
					t.Fatalf("%s in %s: between %v and %v is %v", at, zone, now, next, between)
				}
			}
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, text := range []string{"30 2 * * *", "@daily", "*/7 1-5/2 1,15 jan-mar mon#1", "0 0 29 2 *", "H * * * *", "CRON_TZ=x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSchedule(0, []string{text}, "Europe/Berlin")
		if err != nil {
			return
		}
		now := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
		for range 3 {
			next := s.Next(now)
			if next.IsZero() {
				return
			}
			if !next.After(now) {
				t.Fatalf("%q: after %v comes %v", text, now, next)
			}
			now = next
		}
	})
}

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]Span{
		"2y5m7d3h": {2, 5, 7, 3}, "7d": {Days: 7}, "1m": {Months: 1}, "48h": {Hours: 48}, "1y3h": {Years: 1, Hours: 3},
		"": {}, "0d": {}, "1w": {}, "3h7d": {}, "-1d": {}, "1d ": {}, "1": {}, "9999999h": {},
	} {
		got, err := ParseSpan(text)
		if got != want || (err != nil) != (want == Span{}) || err == nil && got.String() != text {
			t.Errorf("%q: %+v, %q, %v", text, got, got, err)
		}
	}
	at := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	if got := (Span{2, 5, 7, 3}).Before(at); !got.Equal(time.Date(2023, 10, 24, 9, 0, 0, 0, time.UTC)) {
		t.Errorf("2y5m7d3h before %v is %v", at, got)
	}
}

func TestSnapshotNames_Name(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	long := strings.Repeat("v", maxVolumeName)
	for _, c := range []struct {
		names  SnapshotNames
		volume string
		try    int
		want   string
	}{
		{DefaultSnapshotNames, "db", 1, "db-hourly-20260102-030405"},
		{DefaultSnapshotNames, "db", 2, "db-hourly-20260102-030405.2"},
		{DefaultSnapshotNames, long, 1, strings.Repeat("v", 41) + "-hourly-20260102-030405"},
		{DefaultSnapshotNames, long, 12, strings.Repeat("v", 38) + "-hourly-20260102-030405.12"},
		{DefaultSnapshotNames, "file:images/base.vhdx", 1, "images/base-hourly-20260102-030405.vhdx"},
		{DefaultSnapshotNames, "file:images/base.vhdx", 2, "images/base-hourly-20260102-030405.2.vhdx"},
		{DefaultSnapshotNames, "file:a/b.with-a-long-end", 1, "a/b.with-a-long-end-hourly-20260102-030405"},
		{"%n.%p", "db", 1, "17.hourly"},
	} {
		got := c.names.Name(SnapshotOf{c.volume, "hourly", 17, at, c.try})
		if got != c.want {
			t.Errorf("%s of %s, try %d: %s, want %s", c.names, c.volume, c.try, got, c.want)
		}
		if !strings.HasPrefix(c.volume, "file:") && CheckVolumeName(got) != nil {
			t.Errorf("%s is no name of a volume", got)
		}
	}
}

// TestSnapshotNames_Valid: what the check lets pass gives names that are valid for every
// volume and every time.
func TestSnapshotNames_Valid(t *testing.T) {
	for _, names := range []SnapshotNames{"%v-%p-%Y%m%d-%H%M%S", "%v%n", "a%n", "%p.%n.%v", "%Y%m%d%H%M%v"} {
		for _, policy := range []string{"p", strings.Repeat("p", 20), strings.Repeat("p", 64)} {
			if names.check(policy, []string{"v"}) != nil {
				continue
			}
			for _, volume := range []string{"v", strings.Repeat("v", 64), "file:" + strings.Repeat("d/", 100) + strings.Repeat("v", 54) + ".x"} {
				for _, try := range []int{1, 999} {
					got := names.Name(SnapshotOf{volume, policy, 9_999_999_999, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), try})
					if strings.HasPrefix(volume, "file:") && (len(got) > maxFileName || !isFileName(got)) {
						t.Errorf("%s: %s is no name of a file", names, got)
					} else if !strings.HasPrefix(volume, "file:") && CheckVolumeName(got) != nil {
						t.Errorf("%s: %s is no name of a volume", names, got)
					}
				}
			}
		}
	}
}
