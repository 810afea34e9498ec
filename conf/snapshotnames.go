package conf

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// SnapshotNames says what the snapshots of a policy are called: a text with the fields
//
//	%v  the name of the volume, shortened where the whole would be too long; of a file its
//	    path, whose extension comes at the end
//	%p  the name of the policy
//	%n  the number of the run
//	%Y %m %d %H %M %S  the time of the run in the time zone of the policy
type SnapshotNames string

// DefaultSnapshotNames is the default of SnapshotPolicy.Names.
const DefaultSnapshotNames SnapshotNames = "%v-%p-%Y%m%d-%H%M%S"

// The lengths of names in bytes: of volumes, as CheckVolumeName has it, and of files; and
// the least room for %v.
const (
	maxVolumeName = 64
	maxFileName   = 255
	minNameRoom   = 8
	// numberRoom is what %n is counted as: a run each minute for 20,000 years.
	numberRoom = 10
	// suffixRoom is for what distinguishes a name that is taken.
	suffixRoom = 4
)

// SnapshotOf is what the name of a snapshot is made of.
type SnapshotOf struct {
	// Volume is a volume, or a file with "file:" before its name.
	Volume, Policy string
	Run            uint64
	At             time.Time
	// Try distinguishes names: it is 1 at first, and counts the names that are taken.
	Try int
}

// Name returns the name of a snapshot, of a file without "file:".
func (t SnapshotNames) Name(of SnapshotOf) string {
	name, isFile := strings.CutPrefix(of.Volume, "file:")
	limit, end := maxVolumeName, ""
	if isFile {
		limit, end = maxFileName, path.Ext(name)
		if len(end) == len(path.Base(name)) || len(end) > minNameRoom {
			end = "" // the name begins with a dot, or it is none
		}
		name = strings.TrimSuffix(name, end)
	}
	if of.Try > 1 {
		end = "." + strconv.Itoa(of.Try) + end
	}
	if room := limit - len(t.expand(of, "")) - len(end); len(name) > room {
		name = name[:max(room, 0)]
	}
	return t.expand(of, name) + end
}

// expand returns the text with its fields filled in.
func (t SnapshotNames) expand(of SnapshotOf, volume string) string {
	var b strings.Builder
	for i := 0; i < len(t); i++ {
		if t[i] != '%' || i+1 == len(t) {
			b.WriteByte(t[i])
			continue
		}
		i++
		switch t[i] {
		case 'v':
			b.WriteString(volume)
		case 'p':
			b.WriteString(of.Policy)
		case 'n':
			b.WriteString(strconv.FormatUint(of.Run, 10))
		default:
			if layout := timeFields[t[i]]; layout != "" {
				b.WriteString(of.At.Format(layout))
			}
		}
	}
	return b.String()
}

// timeFields are the fields of a time, and their layouts.
var timeFields = map[byte]string{'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05"}

// check returns what is wrong with the text for a policy.
func (t SnapshotNames) check(policy string, volumes []string) error {
	has := map[byte]int{}
	for i := 0; i < len(t); i++ {
		if t[i] != '%' {
			continue
		}
		if i++; i == len(t) || !strings.ContainsRune("vpnYmdHMS", rune(t[i])) {
			return fmt.Errorf("invalid name %.70q: after %% comes one of v, p, n, Y, m, d, H, M and S", string(t))
		}
		has[t[i]]++
	}
	several := len(volumes) > 1 || len(volumes) == 1 && strings.HasSuffix(volumes[0], "*")
	switch {
	case has['v'] > 1:
		return fmt.Errorf("%.70q has %%v more than once", string(t))
	case has['v'] == 0 && several:
		return fmt.Errorf("%.70q has no %%v, which distinguishes the snapshots of several volumes", string(t))
	case has['n'] == 0 && (has['Y'] == 0 || has['m'] == 0 || has['d'] == 0 || has['H'] == 0 || has['M'] == 0):
		return fmt.Errorf("%.70q does not distinguish the runs; use %%n, or all of %%Y, %%m, %%d, %%H and %%M", string(t))
	}
	of := SnapshotOf{Policy: policy, Run: 1, At: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	room := maxVolumeName - len(t.expand(of, "")) - has['n']*(numberRoom-1) - suffixRoom
	if has['v'] > 0 && room < minNameRoom || room < 0 {
		return fmt.Errorf("%.70q is too long: names have at most %d bytes, and %d of them are to be left for the volume; shorten it, or the name of the policy", string(t), maxVolumeName, minNameRoom)
	}
	if err := CheckVolumeName(t.expand(of, "v")); err != nil {
		return fmt.Errorf("%.70q gives names that are none: %w", string(t), err)
	}
	return nil
}

// snapshotNames reads what the snapshots of a policy are called.
func (c *checker) snapshotNames(key string, value *string, p *SnapshotPolicy) SnapshotNames {
	t := DefaultSnapshotNames
	if value != nil {
		t = SnapshotNames(*value)
	}
	if err := t.check(p.Name, p.Volumes); err != nil {
		c.add(key, "%v", err)
	}
	return t
}
