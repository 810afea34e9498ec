package scsi

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// prRecords are Records in memory.
type prRecords struct {
	mu     sync.Mutex
	values map[string][]byte
	saves  int
	// before, if set, is called by each Save before anything else; after, when
	// the value is there.
	before, after func() error
}

func (r *prRecords) Load(key string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.values[key], nil
}

func (r *prRecords) Save(_ context.Context, key string, value []byte) error {
	if r.before != nil {
		if err := r.before(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	if r.values == nil {
		r.values = map[string][]byte{}
	}
	r.values[key] = value
	r.saves++
	r.mu.Unlock()
	if r.after != nil {
		return r.after()
	}
	return nil
}

func keeping(r Records) func(*LUConfig) { return func(c *LUConfig) { c.Records = r } }

const aptpl = 0x01

// TestReservationsOutliveRestart: what was there when the last command ended is
// there again, but for PRGENERATION.
func TestReservationsOutliveRestart(t *testing.T) {
	for _, kind := range []reservationType{0, typeExclusiveAccess, typeWriteExclusiveAllRegistrants} {
		r := &prRecords{}
		f := newPRFixture(t, keeping(r))
		f.out(f.a, prOutRegister, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
		f.out(f.b, prOutRegister, 0, prOutList(0, 1<<63, aptpl)).wantStatus(t, good)
		if kind != 0 {
			f.must(f.a, prOutReserve, kind, 0x0A, 0)
		}
		f = newPRFixture(t, keeping(r))
		f.wantKeys(0x0A, 1<<63)
		if kind.allRegistrants() {
			f.wantReservation(kind, 0)
		} else if kind != 0 {
			f.wantReservation(kind, 0x0A)
			f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, conflict)
		}
		if s := f.lu.persistent.Load(); s.generation != 0 || !s.aptpl {
			t.Errorf("PRGENERATION %d, PTPL_A %t", s.generation, s.aptpl)
		}
		f.must(f.b, prOutClear, 0, 1<<63, 0)
		newPRFixture(t, keeping(r)).wantKeys()
	}
}

// TestReservationsThatNeedNotOutliveRestart: the last APTPL counts for all.
func TestReservationsThatNeedNotOutliveRestart(t *testing.T) {
	r := &prRecords{}
	f := newPRFixture(t, keeping(r))
	f.must(f.a, prOutRegister, 0, 0, 0x0A)
	f.must(f.a, prOutReserve, typeExclusiveAccess, 0x0A, 0)
	if r.saves != 0 {
		t.Error("saved, though nobody asked for it")
	}
	f.out(f.b, prOutRegister, 0, prOutList(0, 0x0B, aptpl)).wantStatus(t, good)
	again := newPRFixture(t, keeping(r))
	again.wantKeys(0x0A, 0x0B)
	again.wantReservation(typeExclusiveAccess, 0x0A)
	f.out(f.b, prOutRegister, 0, prOutList(0x0B, 0x0B, 0)).wantStatus(t, good)
	newPRFixture(t, keeping(r)).wantKeys()
}

// TestReservationThatCannotBeKept: the command fails, nothing has changed, and a
// restart finds what was there before.
func TestReservationThatCannotBeKept(t *testing.T) {
	broken := errors.New("disk full")
	for name, fail := range map[string]func(r *prRecords, on bool){
		"before it is stored": func(r *prRecords, on bool) {
			r.before = nil
			if on {
				r.before = func() error { return broken }
			}
		},
		"after it is stored": func(r *prRecords, on bool) {
			r.after = nil
			if on {
				r.after = func() error { r.after = nil; return broken }
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &prRecords{}
			f := newPRFixture(t, keeping(r))
			f.out(f.a, prOutRegister, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
			fail(r, true)
			f.out(f.a, prOutReserve, typeExclusiveAccess, prOutList(0x0A, 0, 0)).wantSense(t, KeyHardwareError, ASCInternalTargetFailure)
			f.wantReservation(0, 0)
			f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
			again := newPRFixture(t, keeping(r))
			again.wantKeys(0x0A)
			again.wantReservation(0, 0)
			fail(r, false)
			f.must(f.a, prOutReserve, typeExclusiveAccess, 0x0A, 0)
		})
	}
}

// TestAbortedReservationChangesNothing: a store that stalls lets an aborted
// command, and whoever waits behind it, go; reading goes on all the time.
func TestAbortedReservationChangesNothing(t *testing.T) {
	r := &prRecords{}
	f := newPRFixture(t, keeping(r))
	f.out(f.a, prOutRegister, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
	stalled, goOn := make(chan struct{}), make(chan struct{})
	r.after = func() error {
		r.after = nil
		close(stalled)
		<-goOn
		return nil
	}
	ctx, abort := context.WithCancel(t.Context())
	reserve := func(ctx context.Context, n *Nexus, key uint64) error {
		_, err := f.lu.changeReservations(ctx, n, &prOut{action: prOutReserve, kind: typeExclusiveAccess, key: key})
		return err
	}
	first := make(chan error)
	go func() { first <- reserve(ctx, f.a, 0x0A) }()
	<-stalled
	second := make(chan error)
	go func() { second <- reserve(ctx, f.b, 0x0B) }()
	f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
	f.wantKeys(0x0A)
	f.target.Detach(f.target.Attach(NexusID{InitiatorName: "new", TargetName: f.target.Name()}))
	abort()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that waited: %v", err)
	}
	close(goOn)
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that was saved: %v", err)
	}
	f.wantReservation(0, 0)
	newPRFixture(t, keeping(r)).wantReservation(0, 0)
}

func TestBadReservationsRecord(t *testing.T) {
	const nexus = `{"initiator":"iqn.a","isid":[0,0,0,0,0,1],"target":"iqn.t","portal_group_tag":1}`
	reg := func(key string) string { return `{"key":` + key + `,"nexus":` + nexus + `}` }
	for name, record := range map[string]string{
		"no JSON":                    `reserved!`,
		"another version":            `{"version":2,"registrations":[` + reg("1") + `]}`,
		"no registration":            `{"version":1,"registrations":[]}`,
		"key 0":                      `{"version":1,"registrations":[` + reg("0") + `]}`,
		"registered twice":           `{"version":1,"registrations":[` + reg("1") + `,` + reg("2") + `]}`,
		"no such type":               `{"version":1,"type":2,"holder":` + nexus + `,"registrations":[` + reg("1") + `]}`,
		"no holder":                  `{"version":1,"type":1,"registrations":[` + reg("1") + `]}`,
		"a holder of nothing":        `{"version":1,"holder":` + nexus + `,"registrations":[` + reg("1") + `]}`,
		"a holder among all":         `{"version":1,"type":8,"holder":` + nexus + `,"registrations":[` + reg("1") + `]}`,
		"a holder not registered":    `{"version":1,"type":1,"holder":{"initiator":"b"},"registrations":[` + reg("1") + `]}`,
		"a key of more than 64 bits": `{"version":1,"registrations":[` + reg("18446744073709551616") + `]}`,
	} {
		r := &prRecords{values: map[string][]byte{reservationsRecord: []byte(record)}}
		if _, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096), Records: r}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	ok := `{"version":1,"type":1,"holder":` + nexus + `,"registrations":[` + reg("18446744073709551615") + `]}`
	r := &prRecords{values: map[string][]byte{reservationsRecord: []byte(ok)}}
	if _, err := NewLogicalUnit(LUConfig{Volume: newMemVolume(4096), Records: r}); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
