package tokens_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"odx/backstore"
	"odx/internal/kit/logs"
	"odx/offload"
	"odx/tokens"
)

// realStore returns a token manager on an extent store in memory, with a volume of 4
// MiB.
func realStore(t *testing.T, o tokens.Options) (*tokens.Manager, *backstore.Store, *backstore.Volume) {
	t.Helper()
	s, err := backstore.Open(ctx, newDisk().options())
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.CreateVolume(ctx, "v", 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	o.Store, o.Log = offload.ExtentStore{Store: s}, logs.Discard()
	m, err := tokens.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return m, s, v
}

// overwrite gives each 4 KiB block of a range contents of its own.
func overwrite(t *testing.T, v *backstore.Volume, off, length int64, seed byte) {
	t.Helper()
	p := make([]byte, length)
	for i := range p {
		p[i] = seed + byte(i>>12)*7 + byte(i>>20)
	}
	for i := 0; i < len(p); i += 4096 {
		p[i], p[i+1] = seed, byte(i>>12)
	}
	if err := v.WriteAt(ctx, p, off); err != nil {
		t.Fatal(err)
	}
}

// until polls until a condition is met, for a while.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("not within 20 s: ", what)
		}
	}
}

// What several tokens hold together is freed when the last of them ends. One pass
// cancels as many as needed and no more, although the store's counts lag behind.
func TestManager_HeldTogether(t *testing.T) {
	const mib = 1 << 20
	m, _, v := realStore(t, tokens.Options{Limits: tokens.Limits{HeldBytes: 3*mib + mib/2, MeasurePeriod: time.Hour}})
	var toks []*tokens.Token
	make := func(priority int) {
		toks = append(toks, mustRead(t, m, v, ranges(0, mib), tokens.ReadOptions{Priority: priority}))
	}
	// Of six, the first two hold 1 MiB together, each other one 1 MiB of its own.
	overwrite(t, v, 0, mib, 1)
	make(-3)
	make(-2)
	for i := range 4 {
		overwrite(t, v, 0, mib, byte(2+i))
		make(i)
	}
	overwrite(t, v, 0, mib, 100)
	held := func() int64 {
		n, err := m.HeldBytes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	until(t, "five MiB are held", func() bool { return held() == 5*mib })
	live := func() (n int) {
		for _, tok := range toks {
			if _, err := m.Lookup(tok); err == nil {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct{ need, given, left int64 }{
		{1, mib, 4},             // both tokens that hold it together
		{mib + 1, 2 * mib, 2},   // two more
		{100 * mib, 2 * mib, 0}, // all
		{1, 0, 0},
	} {
		given, err := m.Relieve(ctx, tt.need)
		if err != nil || given != tt.given || int64(live()) != tt.left {
			t.Errorf("need %d: %d bytes given, %v, %d tokens left; want %d bytes, %d tokens", tt.need, given, err, live(), tt.given, tt.left)
		}
		if got, want := m.Stats().HeldBytes, tt.left*mib; got != want {
			t.Errorf("need %d: %d bytes counted as held, want %d", tt.need, got, want)
		}
		until(t, "the store reports the same", func() bool { return held() == tt.left*mib })
	}
}

func TestManager_LimitHeld(t *testing.T) {
	const mib = 1 << 20
	m, _, v := realStore(t, tokens.Options{Limits: tokens.Limits{HeldBytes: mib + mib/2, MeasurePeriod: 10 * time.Millisecond}})
	var toks []*tokens.Token
	for i := range 6 {
		overwrite(t, v, 0, mib, byte(i))
		toks = append(toks, mustRead(t, m, v, ranges(0, mib), tokens.ReadOptions{Priority: i / 2}))
	}
	overwrite(t, v, 0, mib, 100)
	until(t, "one token is left, and what it holds is reported", func() bool {
		return m.Stats().Live == 1 && m.Stats().HeldBytes == mib
	})
	if _, err := m.Lookup(toks[5]); err != nil {
		t.Error("the last token was cancelled: ", err)
	}
	if err := m.Delete(ctx, toks[5].ID(), tokens.Deleted); err != nil {
		t.Fatal(err)
	}
	until(t, "nothing is held", func() bool { return m.Stats().HeldBytes == 0 })
}

// An access upon reference token ends when its volume is deleted, whether it is idle,
// in use or loaded at the next start; a copy with it is aborted or finishes.
func TestManager_EndOrphans(t *testing.T) {
	for _, policy := range []tokens.RunningCopy{tokens.FinishCopy, tokens.AbortCopy} {
		m, s, v := realStore(t, tokens.Options{Policy: tokens.Policy{RunningCopy: policy}})
		overwrite(t, v, 0, 3<<20, 1)
		other, err := s.CreateVolume(ctx, "other", 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		onReference := tokens.ReadOptions{Type: tokens.RODTypeAccessUponReference}
		unused := mustRead(t, m, v, ranges(0, 4096), onReference)
		used := mustRead(t, m, v, ranges(0, 3<<20), onReference)
		elsewhere := mustRead(t, m, other, ranges(0, 4096), onReference)
		data := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
		r, err := m.OpenReader(ctx, used, tokens.ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		before := make([]byte, 4096)
		if _, err := r.ReadAt(ctx, before, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteVolume(ctx, "v"); err != nil {
			t.Fatal(err)
		}
		// A use between the deletion and EndOrphans.
		if _, err := m.OffloadWrite(ctx, unused, 0, destination(other), ranges(0, 4096), tokens.WriteOptions{}); !errors.Is(err, tokens.ErrCancelled) || errors.Is(err, backstore.ErrNotFound) {
			t.Errorf("policy %d: first use: %v", policy, err)
		}
		if err := m.EndOrphans(ctx); err != nil {
			t.Fatal(err)
		}
		for _, tok := range []*tokens.Token{unused, used} {
			if _, err := m.Lookup(tok); !errors.Is(err, tokens.ErrCancelled) {
				t.Errorf("policy %d: after the deletion: %v", policy, err)
			}
		}
		for _, tok := range []*tokens.Token{elsewhere, data} {
			if _, err := m.Lookup(tok); err != nil {
				t.Errorf("policy %d: a token that does not need the volume: %v", policy, err)
			}
		}
		after := make([]byte, 4096)
		_, err = r.ReadAt(ctx, after, 0)
		if policy == tokens.FinishCopy && (err != nil || !bytes.Equal(before, after)) || policy == tokens.AbortCopy && !errors.Is(err, tokens.ErrCancelled) {
			t.Errorf("policy %d: the use that was under way: %v", policy, err)
		}
		r.Close()
		if got := m.Stats().CancelledFor[tokens.DataGone]; got != 2 {
			t.Errorf("policy %d: %d tokens are counted as cancelled for it", policy, got)
		}
	}
}

// A volume deleted while no manager was open: the next one ends the token.
func TestManager_OrphansAtStart(t *testing.T) {
	d := newDisk()
	s, err := backstore.Open(ctx, d.options())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	o := tokens.Options{Store: offload.ExtentStore{Store: s}, Log: logs.Discard()}
	m, err := tokens.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{Type: tokens.RODTypeAccessUponReference})
	if err := errors.Join(m.Close(), s.DeleteVolume(ctx, "v")); err != nil {
		t.Fatal(err)
	}
	if m, err = tokens.Open(ctx, o); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Lookup(tok); !errors.Is(err, tokens.ErrCancelled) {
		t.Errorf("after the start: %v", err)
	}
}
