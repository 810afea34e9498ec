package copymgr

import (
	"context"
	"errors"
	"testing"

	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/target/scsi"
	"odx/tokens"
)

// TestHandover_Whole: a copy over its own source, which cannot be continued, may end; when the
// time is over it is aborted, with what it has done in its report.
func TestHandover_Whole(t *testing.T) {
	for name, tc := range map[string]struct {
		ends   bool
		status byte
	}{"ends": {true, 0x01}, "aborted": {false, 0x60}} {
		t.Run(name, func(t *testing.T) {
			b := start(t, tokens.Limits{}).hurried()
			b.fill(t, lunA, 1)
			s := b.stepMaps(4096)
			list := lid4Parameters(9, 0, 1, b.cscds(), fromLID1([]segmentOf{{kind: 2, count: 1500, sourceLBA: 8, destinationLBA: 48}})...)
			if a := b.extendedCopy(lunA, 1, list); a.code() != "GOOD" {
				t.Fatal(a.code())
			}
			s.step()
			<-s.entered
			canceled := b.canceled(lunA, 9)
			limit, cancel := context.WithCancel(ctx)
			defer cancel()
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.handOver(t, limit)
			}()
			if !tc.ends {
				cancel()
				<-canceled
			}
			b.store.FailWith(nil)
			s.proceed <- struct{}{}
			<-done
			if p := b.copyStatus(lunA, 9, 255).data; p[5] != tc.status {
				t.Errorf("report % x", p)
			}
		})
	}
}

// overlay is a view of other volumes.
type overlay struct {
	blockdev.Volume
	backing []blockdev.Volume
}

func (overlay) Pieces(context.Context, []blockdev.Range, func([]offload.Piece) error) error {
	return errors.ErrUnsupported
}
func (overlay) Map(context.Context, int64, offload.Snapshot, int64, int64) (int64, error) {
	return 0, errors.ErrUnsupported
}
func (o overlay) Backing() []blockdev.Volume { return o.backing }

// TestMove_OverwritesSource holds which segments another process cannot go on with.
func TestMove_OverwritesSource(t *testing.T) {
	store := offloadtest.NewStore([16]byte{1})
	a, b := store.NewVolume("a", unitBytes), store.NewVolume("b", unitBytes)
	over := func(backing ...blockdev.Volume) blockdev.Volume { return &overlay{a, backing} }
	self := over(a)
	for name, tc := range map[string]struct {
		source, destination blockdev.Volume
		from, to            int64
		want                bool
	}{
		"other volumes":                {a, b, 0, 0, false},
		"apart":                        {a, a, 0, 100, false},
		"overlapping, upwards":         {a, a, 0, 99, true},
		"overlapping, downwards":       {a, a, 99, 0, true},
		"apart, downwards":             {a, a, 100, 0, false},
		"a view, apart":                {self, self, 0, 100, false},
		"a view, overlapping":          {self, self, 0, 50, true},
		"view of the source":           {a, over(b, a), 0, 1000, true},
		"view of the destination":      {over(b, a), b, 0, 1000, true},
		"view of other volumes":        {over(b), a, 0, 0, false},
		"two views of the same volume": {over(a), over(b, a), 0, 1000, true},
	} {
		reach := func(v blockdev.Volume) *reached {
			lu, err := scsi.NewLogicalUnit(scsi.LUConfig{ID: [16]byte{1}, Volume: v, LogicalBlockLength: 512})
			must.Succeed(t, err)
			return &reached{unit: &logicalUnit{lu: lu}}
		}
		m := move{source: reach(tc.source), destination: reach(tc.destination)}
		if got := m.overwritesSource(tc.from, tc.to, 100); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
