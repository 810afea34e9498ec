package scsi

import (
	"context"
	"errors"
	"sync"
	"testing"

	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
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

// What was there when the last command ended is there again, but for PRGENERATION.
func TestPersistentReserve_APTPL(t *testing.T) {
	for _, kind := range []reserve.Type{0, reserve.ExclusiveAccess, reserve.WriteExclusiveAllRegistrants} {
		r := &prRecords{}
		f := newPRFixture(t, keeping(r))
		f.out(f.a, reserve.Register, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
		f.out(f.b, reserve.Register, 0, prOutList(0, 1<<63, aptpl)).wantStatus(t, good)
		if kind != 0 {
			f.must(f.a, reserve.Reserve, kind, 0x0A, 0)
		}
		f = newPRFixture(t, keeping(r))
		f.wantKeys(0x0A, 1<<63)
		if kind >= reserve.WriteExclusiveAllRegistrants {
			f.wantReservation(kind, 0)
		} else if kind != 0 {
			f.wantReservation(kind, 0x0A)
			f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, conflict)
		}
		if g, capabilities := f.generation(), f.in(reserve.ReportCapabilities); g != 0 || capabilities[3]&0x01 == 0 {
			t.Errorf("PRGENERATION %d, capabilities % x", g, capabilities)
		}
		f.must(f.b, reserve.Clear, 0, 1<<63, 0)
		newPRFixture(t, keeping(r)).wantKeys()
	}
}

// The last APTPL counts for all.
func TestPersistentReserve_NoAPTPL(t *testing.T) {
	r := &prRecords{}
	f := newPRFixture(t, keeping(r))
	f.must(f.a, reserve.Register, 0, 0, 0x0A)
	f.must(f.a, reserve.Reserve, reserve.ExclusiveAccess, 0x0A, 0)
	if r.saves != 0 {
		t.Error("saved without a request")
	}
	f.out(f.b, reserve.Register, 0, prOutList(0, 0x0B, aptpl)).wantStatus(t, good)
	again := newPRFixture(t, keeping(r))
	again.wantKeys(0x0A, 0x0B)
	again.wantReservation(reserve.ExclusiveAccess, 0x0A)
	f.out(f.b, reserve.Register, 0, prOutList(0x0B, 0x0B, 0)).wantStatus(t, good)
	newPRFixture(t, keeping(r)).wantKeys()
}

// The command fails, nothing has changed, and a restart finds what was there before.
func TestPersistentReserve_SaveFails(t *testing.T) {
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
			f.out(f.a, reserve.Register, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
			fail(r, true)
			f.out(f.a, reserve.Reserve, reserve.ExclusiveAccess, prOutList(0x0A, 0, 0)).wantSense(t, sense.KeyHardwareError, sense.ASCInternalTargetFailure)
			f.wantReservation(0, 0)
			f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
			again := newPRFixture(t, keeping(r))
			again.wantKeys(0x0A)
			again.wantReservation(0, 0)
			fail(r, false)
			f.must(f.a, reserve.Reserve, reserve.ExclusiveAccess, 0x0A, 0)
		})
	}
}

// While the store stalls, an aborted command and a waiting one end; reads continue.
func TestPersistentReserve_Abort(t *testing.T) {
	r := &prRecords{}
	f := newPRFixture(t, keeping(r))
	f.out(f.a, reserve.Register, 0, prOutList(0, 0x0A, aptpl)).wantStatus(t, good)
	stalled, goOn := make(chan struct{}), make(chan struct{})
	r.after = func() error {
		r.after = nil
		close(stalled)
		<-goOn
		return nil
	}
	ctx, abort := context.WithCancel(t.Context())
	change := func(ctx context.Context, n *Nexus, key uint64) error {
		_, err := f.lu.reservations.Change(ctx, &n.ID, prOutCDB(reserve.Reserve, reserve.ExclusiveAccess, 24), prOutList(key, 0, 0))
		return err
	}
	first := make(chan error)
	go func() { first <- change(ctx, f.a, 0x0A) }()
	<-stalled
	second := make(chan error)
	go func() { second <- change(ctx, f.b, 0x0B) }()
	f.on(f.b, cdb10(0x28, 0, 0, 1)).wantStatus(t, good)
	f.wantKeys(0x0A)
	f.target.Detach(f.target.Attach(NexusID{InitiatorName: "new", TargetName: f.target.Name()}))
	abort()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting command: %v", err)
	}
	close(goOn)
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("saving command: %v", err)
	}
	f.wantReservation(0, 0)
	newPRFixture(t, keeping(r)).wantReservation(0, 0)
}
