package reserve

import (
	"testing"

	"odx/internal/kit/must"
	"odx/target/scsi/nexus"
)

// TestFit: registrations with target ports that are not there are dropped; a reservation goes with
// its holder, and with all registrants.
func TestFit(t *testing.T) {
	of := func(initiator, target string, tag uint16) nexus.ID {
		return nexus.ID{InitiatorName: initiator, TargetName: target, TargetPortalGroupTag: tag}
	}
	one, two, other := of("i1", "t", 1), of("i1", "t", 2), of("i2", "u", 1)
	for _, tt := range []struct {
		name          string
		kind          Type
		holder        nexus.ID
		fits          func(string, uint16) bool
		left, dropped int
		kept          Type
	}{
		{"all fit", WriteExclusive, one, func(string, uint16) bool { return true }, 3, 0, WriteExclusive},
		{"another tag", WriteExclusive, one, func(_ string, tag uint16) bool { return tag == 1 }, 2, 1, WriteExclusive},
		{"the holder has another tag", ExclusiveAccess, two, func(_ string, tag uint16) bool { return tag == 1 }, 2, 1, 0},
		{"another target", WriteExclusiveAllRegistrants, nexus.ID{}, func(target string, _ uint16) bool { return target == "t" }, 2, 1, WriteExclusiveAllRegistrants},
		{"none fits", WriteExclusiveAllRegistrants, nexus.ID{}, func(string, uint16) bool { return false }, 0, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &state{kind: tt.kind, holder: tt.holder, aptpl: true, generation: 7}
			for i, n := range []nexus.ID{one, two, other} {
				s.registrations = append(s.registrations, registration{n, uint64(i + 1)})
			}
			for _, era := range []bool{false, true} {
				write, read := (*state).encode, decode
				if era {
					write, read = (*state).encodeCurrent, decodeCurrent
				}
				data, err := write(s)
				must.Succeed(t, err)
				kept, dropped, err := Fit(data, era, tt.fits)
				if err != nil || dropped != tt.dropped || (kept == nil) != (tt.left == 0) {
					t.Fatalf("era %t: %s, %d dropped, %v", era, kept, dropped, err)
				}
				if kept == nil {
					continue
				}
				got, err := read(kept)
				must.Succeed(t, err)
				if len(got.registrations) != tt.left || got.kind != tt.kept || era && got.generation != 7 {
					t.Errorf("era %t: %+v", era, got)
				}
			}
		})
	}
	if _, _, err := Fit([]byte("{"), false, nil); err == nil {
		t.Error("a record that is none is accepted")
	}
}
