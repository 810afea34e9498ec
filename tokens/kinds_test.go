package tokens_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/offload/offloadtest"
	"odx/tokens"
)

// kinds are the ROD types that a token of a volume can have, and the bytes that such a
// token represents.
var kinds = []struct {
	rodType tokens.RODType
	// endedByWrite: the first write to the range ends it. follows: it represents the
	// data at the time of its use.
	endedByWrite, follows bool
	pins                  bool // keeps its data in a snapshot
	expires               bool
}{
	{rodType: tokens.RODTypePointInTimeDefault, pins: true, expires: true},
	{rodType: tokens.RODTypePointInTimePersistent, pins: true},
	{rodType: tokens.RODTypePointInTimeChangeVulnerable, endedByWrite: true, expires: true},
	{rodType: tokens.RODTypeAccessUponReference, follows: true, expires: true},
}

func TestRODType_Data(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.rodType.String(), func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			src, dst := s.NewVolume("src", volumeSize), s.NewVolume("dst", volumeSize)
			m := open(t, s, tokens.Limits{})
			old := pattern(t, src, 1)
			rs := ranges(8192, 8192, 512, 1024)
			tok := mustRead(t, m, src, rs, tokens.ReadOptions{Type: k.rodType})
			if got := tok.Type(); got != k.rodType {
				t.Fatalf("the token is a %v", got)
			}
			bytesOf := func(data []byte) []byte { return slices.Concat(data[8192:16384], data[512:1536]) }
			copied := func(want []byte) {
				t.Helper()
				mustWrite(t, m, tok, 0, dst, ranges(4096, 9216), 9216)
				if !bytes.Equal(contents(t, dst)[4096:4096+9216], bytesOf(want)) {
					t.Error("wrong data")
				}
			}
			copied(old)
			// While the range is unchanged, tokens of all types stay live.
			if err := src.WriteAt(ctx, make([]byte, 4096), 4096); err != nil {
				t.Fatal(err)
			}
			copied(old)
			if err := src.WriteAt(ctx, bytes.Repeat([]byte{0xEE}, 512), 8192); err != nil {
				t.Fatal(err)
			}
			now := contents(t, src)
			switch {
			case k.endedByWrite:
				wantRefused(t, m, tok, dst, tokens.ErrCancelled)
			case k.follows:
				copied(now)
			default:
				copied(old)
			}
			if exist, open := s.Snapshots(); open != 0 || (exist != 0) != k.pins {
				t.Errorf("%d snapshots and %d handles", exist, open)
			}
			if got := m.Stats().PinnedBytes; (got != 0) != k.pins {
				t.Errorf("%d bytes are pinned", got)
			}
			if s.Records("token/use/") != 0 {
				t.Error("records of uses are left")
			}
		})
	}
}

func TestRODType_VolumeDeleted(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.rodType.String(), func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			src, dst := s.NewVolume("src", volumeSize), s.NewVolume("dst", volumeSize)
			m := open(t, s, tokens.Limits{})
			old := pattern(t, src, 1)
			tok := mustRead(t, m, src, ranges(0, 8192), tokens.ReadOptions{Type: k.rodType})
			if err := s.DeleteVolume(ctx, "src"); err != nil {
				t.Fatal(err)
			}
			pattern(t, s.NewVolume("src", volumeSize), 2) // another of the same name
			if !k.pins {
				wantRefusedOnce(t, m, tok, dst, tokens.ErrCancelled)
				wantRefused(t, m, tok, dst, tokens.ErrCancelled)
				return
			}
			mustWrite(t, m, tok, 0, dst, ranges(0, 8192), 8192)
			if !bytes.Equal(contents(t, dst)[:8192], old[:8192]) {
				t.Error("wrong data")
			}
		})
	}
}

// wantRefusedOnce is for a token whose end is noticed when it is used.
func wantRefusedOnce(t *testing.T, m *tokens.Manager, tok *tokens.Token, v blockdev.Volume, want error) {
	t.Helper()
	if n, err := m.OffloadWrite(ctx, tok, 0, destination(v), ranges(0, 512), tokens.WriteOptions{}); n != 0 || !errors.Is(err, want) {
		t.Errorf("wrote %d bytes, %v; want %v", n, err, want)
	}
}

// Tokens of all types survive a restart and a crash; writes before and after it affect
// them as without it.
func TestRODType_Restart(t *testing.T) {
	for _, k := range kinds {
		for _, crash := range []bool{false, true} {
			for _, when := range []string{"no write", "write before", "write after"} {
				name := k.rodType.String() + ", " + when
				if crash {
					name += ", crash"
				}
				t.Run(name, func(t *testing.T) {
					s := offloadtest.NewStore([16]byte{1})
					src := s.NewVolume("src", volumeSize)
					old := pattern(t, src, 1)
					m, err := tokens.Open(ctx, tokens.Options{Store: s, Log: logs.Discard()})
					if err != nil {
						t.Fatal(err)
					}
					tok := mustRead(t, m, src, ranges(4096, 8192), tokens.ReadOptions{Type: k.rodType})
					write := func(v blockdev.Volume) {
						if err := v.WriteAt(ctx, bytes.Repeat([]byte{0xEE}, 512), 4096); err != nil {
							t.Fatal(err)
						}
					}
					if when == "write before" {
						write(src)
						if err := s.Flush(ctx); err != nil {
							t.Fatal(err)
						}
					}
					after := s
					if crash {
						after = s.Crash()
					}
					if err := m.Close(); err != nil {
						t.Fatal(err)
					}
					after.Restart()
					m = open(t, after, tokens.Limits{})
					src = after.Volume("src")
					dst := after.NewVolume("dst", volumeSize)
					if when == "write after" {
						write(src)
					}
					if k.endedByWrite && when != "no write" {
						wantRefused(t, m, tok, dst, tokens.ErrCancelled)
						return
					}
					want := old
					if k.follows {
						want = contents(t, src)
					}
					mustWrite(t, m, tok, 0, dst, ranges(0, 8192), 8192)
					if !bytes.Equal(contents(t, dst)[:8192], want[4096:12288]) {
						t.Error("wrong data")
					}
				})
			}
		}
	}
}

func TestRODType_PersistentExpiry(t *testing.T) {
	for _, k := range kinds {
		synctest.Test(t, func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			v := s.NewVolume("v", volumeSize)
			m, err := tokens.Open(ctx, tokens.Options{Store: s, Log: logs.Discard()})
			if err != nil {
				t.Fatal(err)
			}
			tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{Type: k.rodType})
			if i, err := m.Lookup(tok); err != nil || i.Expires.IsZero() == k.expires {
				t.Errorf("%v: expires %v, %v", k.rodType, i.Expires, err)
			}
			check := func() {
				t.Helper()
				synctest.Wait()
				if _, err := m.Lookup(tok); k.expires && !errors.Is(err, tokens.ErrExpired) || !k.expires && err != nil {
					t.Errorf("%v after its inactivity timeout: %v", k.rodType, err)
				}
			}
			time.Sleep(24 * time.Hour)
			check()
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(24 * time.Hour)
			m = open(t, s, tokens.Limits{})
			check()
			if err := m.Delete(ctx, tok.ID(), tokens.Revoked); !k.expires && err != nil {
				t.Errorf("%v cannot be deleted: %v", k.rodType, err)
			}
			if exist, _ := s.Snapshots(); exist != 0 {
				t.Errorf("%v: %d snapshots are left", k.rodType, exist)
			}
		})
	}
}

// A write changes data only after the end of every change vulnerable token over it is
// stored, whichever operation of the store fails.
func TestRODType_ChangeVulnerable_storeFails(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	src, dst := s.NewVolume("src", volumeSize), s.NewVolume("dst", volumeSize)
	m := open(t, s, tokens.Limits{})
	old := pattern(t, src, 1)
	tok := mustRead(t, m, src, ranges(0, 8192), tokens.ReadOptions{Type: tokens.RODTypePointInTimeChangeVulnerable})
	broken := errors.New("broken")
	s.FailWith(func(op string) error {
		if op == "PutRecords" {
			return broken
		}
		return nil
	})
	if err := src.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, broken) {
		t.Fatalf("write: %v", err)
	}
	s.FailWith(nil)
	mustWrite(t, m, tok, 0, dst, ranges(0, 8192), 8192)
	if !bytes.Equal(contents(t, dst)[:8192], old[:8192]) {
		t.Error("wrong data")
	}
	// A copy from a token to its own range ends it, and is whole.
	mustWrite(t, m, tok, 4096, src, ranges(0, 4096), 4096)
	if !bytes.Equal(contents(t, src)[:4096], old[4096:8192]) {
		t.Error("wrong data")
	}
	wantRefused(t, m, tok, dst, tokens.ErrCancelled)
}

func TestRODType_ForeignVolume(t *testing.T) {
	s, other := offloadtest.NewStore([16]byte{1}), offloadtest.NewStore([16]byte{2})
	v := offloadtest.Foreign{Volume: other.NewVolume("v", volumeSize)}
	m := open(t, s, tokens.Limits{})
	for _, k := range kinds {
		_, err := m.OffloadRead(ctx, source(v), ranges(0, 4096), tokens.ReadOptions{Type: k.rodType})
		if k.pins && err != nil || !k.pins && !errors.Is(err, tokens.ErrUnsupportedType) {
			t.Errorf("%v: %v", k.rodType, err)
		}
	}
}

func TestRODType_StoreFails(t *testing.T) {
	broken := errors.New("broken")
	for _, k := range kinds {
		for _, op := range []string{"Snapshot", "Watch", "PutRecords", "Flush"} {
			s := offloadtest.NewStore([16]byte{1})
			v := s.NewVolume("v", volumeSize)
			m := open(t, s, tokens.Limits{})
			failed := false
			s.FailWith(func(now string) error {
				if now == op && !failed {
					failed = true
					return broken
				}
				return nil
			})
			_, err := m.OffloadRead(ctx, source(v), ranges(0, 512), tokens.ReadOptions{Type: k.rodType})
			if failed != errors.Is(err, broken) {
				t.Errorf("%v, %s fails: %v", k.rodType, op, err)
			}
			s.FailWith(nil)
			if !failed {
				continue
			}
			exist, handles := s.Snapshots()
			if exist != 0 || handles != 0 || s.Records("token/live/") != 0 || len(m.List()) != 0 || s.Watches("v") != 0 {
				t.Errorf("%v, %s fails: %d snapshots, %d handles, %d records, %d watches are left",
					k.rodType, op, exist, handles, s.Records("token/live/"), s.Watches("v"))
			}
		}
	}
}

// A failed use can leave a snapshot, which the next start removes.
func TestOpen_removesTransientSnapshots(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{Type: tokens.RODTypeAccessUponReference})
	broken := errors.New("broken")
	s.FailWith(func(op string) error {
		if op == "DeleteSnapshot" {
			return broken
		}
		return nil
	})
	wantRefusedOnce(t, m, tok, v, broken)
	s.FailWith(nil)
	if exist, handles := s.Snapshots(); exist != 1 || handles != 0 {
		t.Fatalf("%d snapshots, %d handles", exist, handles)
	}
	if err := s.PutRecords(ctx, backstore.Record{Key: []byte("token/use/xyz"), Value: []byte{}}); err != nil {
		t.Fatal(err)
	}
	m = open(t, s, tokens.Limits{})
	if exist, _ := s.Snapshots(); exist != 0 || s.Records("token/use/") != 0 {
		t.Errorf("%d snapshots, %d records are left", exist, s.Records("token/use/"))
	}
	mustWrite(t, m, tok, 0, v, ranges(8192, 4096), 4096)
}
