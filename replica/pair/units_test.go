package pair

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/backstore"
	"odx/internal/kit/must"
)

// TestManager_Failover_Reservations: what the logical unit of the source keeps comes along where
// the failover says so: as it is when the source yields, or, by force, as the last round has
// brought it. The source keeps it until it follows.
func TestManager_Failover_Reservations(t *testing.T) {
	ctx := context.Background()
	a, b := following(t, 7, 1<<20, (*server).write)
	take := RoundOptions{Reservations: true}
	unit := func(key string, era bool, value string) UnitRecord {
		return UnitRecord{Key: key, Era: era, Value: []byte(value)}
	}
	same := func(s *server, object string, want ...UnitRecord) {
		t.Helper()
		if got := s.adopted[object]; !sameUnits(got, want) {
			t.Errorf("%s has adopted %+v, want %+v", s.name, got, want)
		}
	}

	// A round brings what is there then, each time.
	a.units = []UnitRecord{unit("reservations", false, "first"), unit("reservations", true, "current"), unit("modes", false, "saved")}
	_, err := b.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err)
	a.units = []UnitRecord{unit("reservations", false, "second"), unit("reservations", true, "current")}
	_, err = b.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err)
	known := slices.Clone(a.units)
	a.units = []UnitRecord{unit("reservations", true, "later")}
	a.off, b.dropped = true, 3
	b.kill()
	b.w.restart()
	adopted, err := b.m.Failover(ctx, "copy", true, take)
	must.Succeed(t, err)
	if adopted == nil || adopted.Dropped != 3 || adopted.Age <= 0 || adopted.Age > time.Minute {
		t.Errorf("by force: %+v", adopted)
	}
	same(b, "copy", known...)
	if left, ok, err := b.m.knownUnits(b.only().ID); err != nil || ok || len(left) > 0 {
		t.Errorf("the new source still has those of the round: %+v, %v", left, err)
	}

	// Planned, and without a word.
	a.off = false
	b.units = []UnitRecord{unit("modes", true, "now")}
	must.Succeed(t, a.failback("copy", FailbackOptions{Stay: true}))
	if a.offs != 1 {
		t.Errorf("the former source has lost power %d times", a.offs)
	}
	adopted, err = a.m.Failover(ctx, "copy", false, take)
	must.Succeed(t, err)
	if !reflect.DeepEqual(adopted, &Adopted{}) {
		t.Errorf("planned: %+v", adopted)
	}
	same(a, "web", b.units...)
	if b.offs != 1 {
		t.Errorf("the side that follows has lost power %d times", b.offs)
	}
	delete(b.adopted, "copy")
	adopted, err = b.m.Failover(ctx, "copy", false, RoundOptions{})
	if err != nil || adopted != nil || b.adopted["copy"] != nil {
		t.Errorf("without being asked for: %+v, %v", adopted, err)
	}
	must.Succeed(t, a.failback("copy", FailbackOptions{}))

	// A source that takes its role back has lost nothing.
	offs := a.offs
	_, err = a.m.Serve(ctx, "b", Request{Op: opYield, Pair: a.only().ID, From: b.id, Epoch: a.only().Epoch})
	must.Succeed(t, err)
	if s, err := a.m.Serving("web"); err != nil || s.Out == nil || !s.Yields {
		t.Errorf("a source that has yielded: %+v, %v", s, err)
	}
	must.Succeed(t, a.failover("copy", false, RoundOptions{}))
	if a.offs != offs {
		t.Error("a source that has yielded, and took its role back, has lost power")
	}

	// What no round has brought is not made up, and what cannot be kept is refused.
	must.Succeed(t, b.store.PutRecords(ctx, backstore.Record{Key: unitsKey(b.only().ID, nil)}))
	if adopted, err := b.m.Failover(ctx, "copy", true, take); !errors.Is(err, backstore.ErrNotFound) || adopted != nil || b.only().Role != Replica {
		t.Errorf("without a round: %+v, %v", adopted, err)
	}
	for _, bad := range []UnitRecord{unit("", false, "x"), unit(strings.Repeat("k", maxUnitKey+1), false, "x"), unit("k", false, "")} {
		a.units = []UnitRecord{bad}
		if _, err := b.m.Round(ctx, "copy", RoundOptions{}); !errors.Is(err, backstore.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	a.units = nil
	_, err = b.m.Round(ctx, "copy", RoundOptions{})
	must.Succeed(t, err, b.m.Forget(ctx, "copy", false))
	if n := records(t, b, unitsPrefix); n != 0 {
		t.Errorf("%d records are left of a forgotten pair", n)
	}
}

// records counts the records of a store whose keys begin so.
func records(t *testing.T, s *server, prefix string) (n int) {
	t.Helper()
	must.Succeed(t, s.store.ScanRecords([]byte(prefix), func(_, _ []byte) error {
		n++
		return nil
	}))
	return n
}

// TestRecord_Stored_Time: a time without a form in JSON is an error, and changes nothing.
func TestRecord_Stored_Time(t *testing.T) {
	ctx := context.Background()
	_, b := following(t, 8, 1<<20, (*server).write)
	before := b.only()
	for name, change := range map[string]func(r *record) error{
		"record":   func(r *record) error { return b.m.put(ctx, r) },
		"deletion": func(r *record) error { return b.m.drop(ctx, r, r.Common) },
		"protection": func(r *record) error {
			v, err := b.m.object(r)
			must.Succeed(t, err)
			return b.m.protect(ctx, v, r)
		},
		"snapshot": func(r *record) error {
			v, err := b.m.object(r)
			must.Succeed(t, err)
			return b.m.pin(ctx, v, func(uint64) *record { return r })
		},
	} {
		r := b.only()
		r.Succeeded = time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
		if err := change(r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := b.only(); !reflect.DeepEqual(got, before) {
		t.Errorf("%+v, was %+v", got, before)
	}
	if have, named := b.pins(); have != named {
		t.Errorf("%d snapshots, records name %d", have, named)
	}
}
