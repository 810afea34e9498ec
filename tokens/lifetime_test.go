package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/offload/offloadtest"
	"odx/tokens"
)

func TestLimits_Tokens(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := openWith(t, tokens.Options{Store: s, Limits: tokens.Limits{Tokens: 2, Tombstones: 3}, Policy: tokens.Policy{WhenFull: tokens.RefuseNew}})
	var all []*tokens.Token
	for range 6 {
		a := mustRead(t, m, v, ranges(0, 512), tokens.ReadOptions{})
		b := mustRead(t, m, v, ranges(0, 512), tokens.ReadOptions{})
		if _, err := m.OffloadRead(ctx, source(v), ranges(0, 512), tokens.ReadOptions{}); !errors.Is(err, tokens.ErrNoResources) {
			t.Fatalf("third token: %v", err)
		}
		all = append(all, a, b)
		for _, tok := range []*tokens.Token{a, b} {
			if err := m.Delete(ctx, tok.ID(), tokens.Cancelled); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(m *tokens.Manager) {
		t.Helper()
		for i, tok := range all {
			want := tokens.ErrUnknown
			if i >= len(all)-3 {
				want = tokens.ErrCancelled
			}
			wantRefused(t, m, tok, v, want)
		}
		if got := m.Stats().Tombstones; got != 3 {
			t.Errorf("%d tombstones", got)
		}
		if got := s.Records("token/dead/"); got != 3 {
			t.Errorf("%d records of tombstones", got)
		}
	}
	check(m)
	check(open(t, s, tokens.Limits{Tombstones: 3}))
	smaller := open(t, s, tokens.Limits{Tombstones: 1})
	wantRefused(t, smaller, all[len(all)-1], v, tokens.ErrCancelled)
	wantRefused(t, smaller, all[len(all)-2], v, tokens.ErrUnknown)
	if got := s.Records("token/dead/"); got != 1 {
		t.Errorf("%d records of tombstones after the limit was lowered", got)
	}
}

func TestManager_Expiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		m := open(t, s, tokens.Limits{})
		byDefault := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
		longer := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{InactivityTimeout: 100 * time.Second})
		time.Sleep(59 * time.Second)
		mustWrite(t, m, byDefault, 0, v, ranges(0, 512), 512) // the timeout starts again
		time.Sleep(59 * time.Second)
		wantRefused(t, m, longer, v, tokens.ErrExpired)
		if _, err := m.Lookup(byDefault); err != nil {
			t.Errorf("a token in use expired: %v", err)
		}
		time.Sleep(2 * time.Second)
		wantRefused(t, m, byDefault, v, tokens.ErrExpired)
		if exist, _ := s.Snapshots(); exist != 0 {
			t.Errorf("%d snapshots are pinned by expired tokens", exist)
		}
		if got := m.Stats(); got.Expired != 2 || got.Live != 0 || got.PinnedBytes != 0 {
			t.Errorf("%+v", got)
		}
	})
}

// The time between two managers counts as idle time.
func TestManager_Expiry_restart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		m, err := tokens.Open(ctx, tokens.Options{Store: s, Log: logs.Discard()})
		if err != nil {
			t.Fatal(err)
		}
		tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
		time.Sleep(50 * time.Second)
		mustWrite(t, m, tok, 0, v, ranges(0, 512), 512)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second)
		m = open(t, s, tokens.Limits{})
		synctest.Wait()
		if i, err := m.Lookup(tok); err != nil || i.Uses != 1 || time.Until(i.Expires) != 20*time.Second {
			t.Errorf("%+v, %v; want one use, and 20 s to live", i, err)
		}
		time.Sleep(21 * time.Second)
		wantRefused(t, m, tok, v, tokens.ErrExpired)
	})
}

func TestManager_Expiry_storeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		var refusals atomic.Int32
		s.FailWith(func(op string) error {
			if op == "DeleteSnapshot" && refusals.Load() < 2 {
				refusals.Add(1)
				return errors.New("not now")
			}
			return nil
		})
		m := open(t, s, tokens.Limits{})
		tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
		time.Sleep(61 * time.Second)
		if exist, _ := s.Snapshots(); exist != 1 || refusals.Load() != 1 {
			t.Errorf("%d snapshots after %d refusals", exist, refusals.Load())
		}
		time.Sleep(20 * time.Second)
		wantRefused(t, m, tok, v, tokens.ErrExpired)
		if exist, _ := s.Snapshots(); exist != 0 {
			t.Error("the snapshot was forgotten")
		}
	})
}

// blockingVolume stops in the first WriteAt until it may go on.
type blockingVolume struct {
	offloadtest.Foreign
	entered, proceed chan struct{}
}

func (v *blockingVolume) WriteAt(ctx context.Context, p []byte, off int64) error {
	v.entered <- struct{}{}
	<-v.proceed
	return v.Foreign.WriteAt(ctx, p, off)
}

func TestManager_EndDuringWrite(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(t *testing.T, m *tokens.Manager, tok *tokens.Token)
		want error // of another use during the write
	}{
		{"expiry", func(*testing.T, *tokens.Manager, *tokens.Token) { time.Sleep(time.Hour) }, nil},
		{"deletion", func(t *testing.T, m *tokens.Manager, tok *tokens.Token) {
			if err := m.Delete(ctx, tok.ID(), tokens.Deleted); err != nil {
				t.Error(err)
			}
		}, tokens.ErrDeleted},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := offloadtest.NewStore([16]byte{1})
				src, vol := s.NewVolume("src", volumeSize), s.NewVolume("dst", volumeSize)
				m := open(t, s, tokens.Limits{})
				data := pattern(t, src, 1)
				tok := mustRead(t, m, src, ranges(0, 8192), tokens.ReadOptions{})
				dst := &blockingVolume{offloadtest.Foreign{Volume: vol}, make(chan struct{}), make(chan struct{})}
				done := make(chan error)
				go func() {
					n, err := m.OffloadWrite(ctx, tok, 0, destination(dst), ranges(0, 8192), tokens.WriteOptions{})
					if n != 8192 {
						t.Errorf("wrote %d bytes", n)
					}
					done <- err
				}()
				<-dst.entered
				tc.end(t, m, tok)
				if _, err := m.Lookup(tok); !errors.Is(err, tc.want) {
					t.Errorf("while the write runs: %v, want %v", err, tc.want)
				}
				close(dst.proceed)
				if err := <-done; err != nil {
					t.Error(err)
				}
				if !bytes.Equal(contents(t, vol)[:8192], data[:8192]) {
					t.Error("wrong data")
				}
				time.Sleep(time.Hour)
				if exist, open := s.Snapshots(); exist != 0 || open != 0 || s.Records("token/live/") != 0 {
					t.Errorf("%d snapshots, %d handles, %d records are left", exist, open, s.Records("token/live/"))
				}
			})
		})
	}
}

// slowVolume takes a second for each access.
type slowVolume struct{ offloadtest.Foreign }

func (v slowVolume) ReadAt(ctx context.Context, p []byte, off int64) error {
	time.Sleep(time.Second)
	return v.Foreign.ReadAt(ctx, p, off)
}

func (v slowVolume) WriteAt(ctx context.Context, p []byte, off int64) error {
	time.Sleep(time.Second)
	return v.Foreign.WriteAt(ctx, p, off)
}

func TestManager_SlowVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20
		s, other := offloadtest.NewStore([16]byte{1}), offloadtest.NewStore([16]byte{2})
		vol, vol2 := other.NewVolume("src", size), other.NewVolume("dst", size)
		m := open(t, s, tokens.Limits{})
		inTime := func() context.Context { return blockdev.StopAfter(ctx, 2500*time.Millisecond) }
		data := pattern(t, vol, 1)
		slow := slowVolume{offloadtest.Foreign{Volume: vol, BlockLength: 512}}
		res, err := m.OffloadRead(inTime(), source(slow), ranges(512, 1024, 65536, 6<<20), tokens.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(1024 + 2<<20); res.Represented != want {
			t.Fatalf("represents %d bytes, want %d", res.Represented, want)
		}
		if i, _ := m.Lookup(res.Token); i.Length != res.Represented {
			t.Errorf("%+v", i)
		}
		if v := s.Volumes(); len(v) != 0 {
			t.Errorf("left: %v", v)
		}
		pattern(t, vol, 77)
		// A piece of 1 MiB each second.
		n, err := m.OffloadWrite(inTime(), res.Token, 0, destination(slowVolume{offloadtest.Foreign{Volume: vol2}}), ranges(0, 3<<20), tokens.WriteOptions{})
		if want := res.Represented; err != nil || n != want {
			t.Errorf("wrote %d, %v; want %d", n, err, want)
		}
		want := append(bytes.Clone(data[512:1536]), data[65536:65536+2<<20]...)
		if !bytes.Equal(contents(t, vol2)[:n], want) {
			t.Error("wrong data")
		}
	})
}

func TestLimits_Validation(t *testing.T) {
	for _, l := range []tokens.Limits{
		{Tokens: -1},
		{MinInactivity: 2 * time.Minute},
		{MaxInactivity: 30 * time.Second},
		{MinInactivity: -1},
	} {
		if _, err := tokens.Open(ctx, tokens.Options{Store: offloadtest.NewStore([16]byte{1}), Log: logs.Discard(), Limits: l}); err == nil {
			t.Errorf("%+v: no error", l)
		}
	}
}
