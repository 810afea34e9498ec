package tokens_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

const volumeSize = 1 << 20

func open(t testing.TB, s tokens.Store, l tokens.Limits) *tokens.Manager {
	t.Helper()
	return openWith(t, tokens.Options{Store: s, Limits: l})
}

func openWith(t testing.TB, o tokens.Options) *tokens.Manager {
	t.Helper()
	if o.Log == nil {
		o.Log = logs.Discard()
	}
	m, err := tokens.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// pattern fills a volume with bytes that differ from block to block.
func pattern(t testing.TB, v blockdev.Volume, seed byte) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	for i := range p {
		p[i] = seed ^ byte(i) ^ byte(i>>9)*7
	}
	if err := v.WriteAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func contents(t testing.TB, v blockdev.Volume) []byte {
	t.Helper()
	p := make([]byte, v.Size())
	if err := v.ReadAt(ctx, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func source(v blockdev.Volume) tokens.Source {
	return tokens.Source{Volume: v, LU: tokens.LU{BlockLength: 512, TargetName: "iqn.2026-11.example.odx:a"}}
}

func destination(v blockdev.Volume) offload.Destination {
	return offload.Destination{Volume: v, BlockLength: 512}
}

func ranges(offsetLength ...int64) []blockdev.Range {
	var r []blockdev.Range
	for i := 0; i < len(offsetLength); i += 2 {
		r = append(r, blockdev.Range{Offset: offsetLength[i], Length: offsetLength[i+1]})
	}
	return r
}

func mustRead(t testing.TB, m *tokens.Manager, v blockdev.Volume, r []blockdev.Range, o tokens.ReadOptions) *tokens.Token {
	t.Helper()
	res, err := m.OffloadRead(ctx, source(v), r, o)
	if err != nil {
		t.Fatal(err)
	}
	return res.Token
}

func mustWrite(t testing.TB, m *tokens.Manager, tok *tokens.Token, off int64, v blockdev.Volume, r []blockdev.Range, want int64) {
	t.Helper()
	n, err := m.OffloadWrite(ctx, tok, off, destination(v), r, tokens.WriteOptions{})
	if err != nil || n != want {
		t.Fatalf("wrote %d bytes, %v; want %d", n, err, want)
	}
}

func wantRefused(t testing.TB, m *tokens.Manager, tok *tokens.Token, v blockdev.Volume, want error) {
	t.Helper()
	if n, err := m.OffloadWrite(ctx, tok, 0, destination(v), ranges(0, 512), tokens.WriteOptions{}); n != 0 || !errors.Is(err, want) {
		t.Errorf("wrote %d bytes, %v; want %v", n, err, want)
	}
	if _, err := m.Lookup(tok); !errors.Is(err, want) {
		t.Errorf("lookup: %v, want %v", err, want)
	}
}

func TestManager_OffloadWrite(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	src, dst := s.NewVolume("src", volumeSize), s.NewVolume("dst", volumeSize)
	m := open(t, s, tokens.Limits{})
	old := pattern(t, src, 1)
	tok := mustRead(t, m, src, ranges(4096, 8192, 512, 1024), tokens.ReadOptions{})
	pattern(t, src, 9)
	mustWrite(t, m, tok, 0, dst, ranges(0, 512, 65536, 8704), 9216)
	want := make([]byte, volumeSize)
	rod := append(bytes.Clone(old[4096:4096+8192]), old[512:512+1024]...)
	copy(want, rod[:512])
	copy(want[65536:], rod[512:])
	if !bytes.Equal(contents(t, dst), want) {
		t.Error("the destination does not hold the source as it was")
	}
}

func TestManager_OffloadWrite_length(t *testing.T) {
	for _, tc := range []struct {
		name        string
		rod         int64 // bytes of the token
		off         int64
		blockLength int
		ranges      []blockdev.Range
		want        int64
	}{
		{"all of it", 4096, 0, 512, ranges(0, 4096), 4096},
		{"no ranges", 4096, 0, 512, nil, 0},
		{"an empty range", 4096, 0, 512, ranges(512, 0), 0},
		{"from an offset", 4096, 1024, 512, ranges(0, 3072), 3072},
		{"past the end", 4096, 1024, 512, ranges(0, 8192), 3072},
		{"past the end in the second range", 4096, 0, 512, ranges(0, 512, 8192, 8192), 4096},
		{"ended by a range, more follow", 4096, 0, 512, ranges(0, 4096, 8192, 512), 4096},
		{"last block filled in part", 4608, 0, 4096, ranges(0, 16384), 8192},
		{"source block entered in the middle", 8192, 512, 512, ranges(0, 8192), 7680},
		{"nothing but part of a block", 512, 0, 4096, ranges(0, 4096), 4096},
	} {
		for _, foreign := range []int64{0, int64(tc.blockLength)} {
			s := offloadtest.NewStore([16]byte{1})
			src, vol := s.NewVolume("src", volumeSize), s.NewVolume("dst", volumeSize)
			m := open(t, s, tokens.Limits{})
			data := pattern(t, src, 1)
			want := pattern(t, vol, 2)
			var dst blockdev.Volume = vol
			if foreign > 0 {
				dst = offloadtest.Foreign{Volume: vol, BlockLength: foreign}
			}
			tok := mustRead(t, m, src, ranges(0, tc.rod), tokens.ReadOptions{})
			n, err := m.OffloadWrite(ctx, tok, tc.off, offload.Destination{Volume: dst, BlockLength: tc.blockLength}, tc.ranges, tokens.WriteOptions{})
			if err != nil || n != tc.want {
				t.Errorf("%s (foreign: %v): %d, %v; want %d", tc.name, foreign > 0, n, err, tc.want)
				continue
			}
			rod := append(bytes.Clone(data[tc.off:tc.rod]), make([]byte, tc.blockLength)...)
			for _, r := range tc.ranges {
				k := min(r.Length, n)
				copy(want[r.Offset:r.Offset+k], rod)
				rod, n = rod[k:], n-k
			}
			if !bytes.Equal(contents(t, vol), want) {
				t.Errorf("%s (foreign: %v): wrong data", tc.name, foreign > 0)
			}
		}
	}
}

func TestManager_OffloadWrite_zeroToken(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	want := pattern(t, v, 1)
	zero := new(tokens.Token)
	binary.BigEndian.PutUint32(zero[:], uint32(tokens.RODTypeBlockDeviceZero))
	if _, err := m.OffloadWrite(ctx, zero, 0, destination(v), ranges(0, 512), tokens.WriteOptions{}); !errors.Is(err, tokens.ErrInvalidLength) {
		t.Errorf("zero token without length: %v", err)
	}
	binary.BigEndian.PutUint16(zero[6:], 0x1F8)
	zero[300] = 0x55 // only type and length count
	mustWrite(t, m, zero, 1<<40, v, ranges(512, 1024, 8192, 65536), 1024+65536)
	clear(want[512:1536])
	clear(want[8192 : 8192+65536])
	if !bytes.Equal(contents(t, v), want) {
		t.Error("wrong ranges zeroed")
	}
	if len(m.List()) != 0 {
		t.Error("the zero token is listed")
	}
}

func TestManager_OffloadRead_errors(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{TokenBytes: 65536})
	for _, tc := range []struct {
		name   string
		ranges []blockdev.Range
		o      tokens.ReadOptions
		want   error
	}{
		{"more than a token may hold", ranges(0, 65536, 131072, 512), tokens.ReadOptions{}, tokens.ErrTooLong},
		{"past the end", ranges(volumeSize-512, 1024), tokens.ReadOptions{}, blockdev.ErrRange},
		{"beginning past the end", ranges(volumeSize+512, 0), tokens.ReadOptions{}, blockdev.ErrRange},
		{"overflowing", ranges(512, 1<<62), tokens.ReadOptions{}, blockdev.ErrRange},
		{"negative", ranges(-512, 512), tokens.ReadOptions{}, blockdev.ErrRange},
		{"not whole blocks", ranges(0, 100), tokens.ReadOptions{}, blockdev.ErrRange},
		{"nothing", ranges(0, 0), tokens.ReadOptions{}, blockdev.ErrRange},
		{"timeout too long", ranges(0, 512), tokens.ReadOptions{InactivityTimeout: 601 * time.Second}, tokens.ErrTimeout},
		{"zero type", ranges(0, 512), tokens.ReadOptions{Type: tokens.RODTypeBlockDeviceZero}, tokens.ErrUnsupportedType},
		{"type of another device type", ranges(0, 512), tokens.ReadOptions{Type: 0xFF000001}, tokens.ErrUnsupportedType},
	} {
		if _, err := m.OffloadRead(ctx, source(v), tc.ranges, tc.o); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if exist, open := s.Snapshots(); exist != 0 || open != 0 {
		t.Errorf("%d snapshots and %d handles are left", exist, open)
	}
}

func TestManager_OffloadWrite_errors(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	want := pattern(t, v, 1)
	tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
	for _, tc := range []struct {
		name   string
		off    int64
		ranges []blockdev.Range
		want   error
	}{
		{"offset at the end", 4096, ranges(0, 512), tokens.ErrOffset},
		{"offset past the end", 1 << 40, ranges(0, 512), tokens.ErrOffset},
		{"negative offset", -512, ranges(0, 512), tokens.ErrOffset},
		{"past the end of the volume", 0, ranges(volumeSize, 512), blockdev.ErrRange},
		{"second range bad", 0, ranges(8192, 512, volumeSize, 512), blockdev.ErrRange},
	} {
		if n, err := m.OffloadWrite(ctx, tok, tc.off, destination(v), tc.ranges, tokens.WriteOptions{Completion: tokens.DeleteToken}); n != 0 || !errors.Is(err, tc.want) {
			t.Errorf("%s: %d, %v, want %v", tc.name, n, err, tc.want)
		}
	}
	if !bytes.Equal(contents(t, v), want) {
		t.Error("a refused write wrote")
	}
	if _, err := m.Lookup(tok); err != nil {
		t.Errorf("a refused write deleted the token: %v", err)
	}
	if _, open := s.Snapshots(); open != 0 {
		t.Errorf("%d handles are left open", open)
	}
}

func TestManager_OffloadWrite_alteredToken(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	want := pattern(t, v, 1)
	tok := mustRead(t, m, v, ranges(4096, 4096), tokens.ReadOptions{})
	for i := range tok {
		bad := *tok
		bad[i] ^= 0x10
		n, err := m.OffloadWrite(ctx, &bad, 0, destination(v), ranges(0, 512), tokens.WriteOptions{})
		if n != 0 || !(errors.Is(err, tokens.ErrCorrupt) || errors.Is(err, tokens.ErrInvalidLength)) {
			t.Errorf("byte %d changed: %d, %v", i, n, err)
		}
	}
	if !bytes.Equal(contents(t, v), want) {
		t.Error("an altered token wrote")
	}
}

func TestManager_OffloadWrite_remoteToken(t *testing.T) {
	a, b := offloadtest.NewStore([16]byte{1}), offloadtest.NewStore([16]byte{2})
	va, vb := a.NewVolume("v", volumeSize), b.NewVolume("v", volumeSize)
	ma, mb := open(t, a, tokens.Limits{}), open(t, b, tokens.Limits{})
	wantRefused(t, mb, mustRead(t, ma, va, ranges(0, 512), tokens.ReadOptions{}), vb, tokens.ErrRemote)
	if ma.Engine().Shares(vb) || !ma.Engine().Shares(va) {
		t.Error("Shares does not tell the volumes of two stores apart")
	}
	// A volume of the other store is copied to, though.
	data := pattern(t, va, 3)
	mustWrite(t, ma, mustRead(t, ma, va, ranges(0, volumeSize), tokens.ReadOptions{}), 0, vb, ranges(0, volumeSize), volumeSize)
	if !bytes.Equal(contents(t, vb), data) {
		t.Error("copying to another store's volume gave other data")
	}
}

func TestManager_OffloadWrite_deleteToken(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	del := tokens.WriteOptions{Completion: tokens.DeleteToken}
	for _, tc := range []struct {
		name   string
		ranges []blockdev.Range
	}{
		{"everything written", ranges(8192, 4096)},
		{"part of it written", ranges(8192, 512)},
		{"token at its end", ranges(8192, 16384)},
		{"nothing written", ranges(0, 0)},
	} {
		tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
		if _, err := m.OffloadWrite(ctx, tok, 0, destination(v), tc.ranges, del); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		wantRefused(t, m, tok, v, tokens.ErrDeleted)
	}
	// A write that has to be continued keeps its token until it ends.
	s.MapAtMost(1024)
	m2, hurried := open(t, s, tokens.Limits{}), blockdev.StopAfter(ctx, 0)
	tok := mustRead(t, m2, v, ranges(0, 4096), tokens.ReadOptions{})
	var done int64
	for calls := 1; done < 4096; calls++ {
		n, err := m2.OffloadWrite(hurried, tok, done, destination(v), ranges(8192+done, 4096-done), del)
		if err != nil || n != 1024 || calls > 4 {
			t.Fatalf("call %d: %d, %v", calls, n, err)
		}
		done += n
	}
	wantRefused(t, m2, tok, v, tokens.ErrDeleted)
	if exist, open := s.Snapshots(); exist != 0 || open != 0 {
		t.Errorf("%d snapshots and %d handles are left", exist, open)
	}
}

func TestManager_Delete_crash(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	byUser := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
	byAdmin := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
	if _, err := m.OffloadWrite(ctx, byUser, 0, destination(v), nil, tokens.WriteOptions{Completion: tokens.DeleteToken}); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(ctx, byAdmin.ID(), tokens.Revoked); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(ctx, byAdmin.ID(), tokens.Revoked); !errors.Is(err, tokens.ErrRevoked) {
		t.Errorf("second revocation: %v", err)
	}
	after := s.Crash()
	m = open(t, after, tokens.Limits{})
	wantRefused(t, m, byUser, v, tokens.ErrDeleted)
	wantRefused(t, m, byAdmin, v, tokens.ErrRevoked)
	if exist, _ := after.Snapshots(); exist != 0 {
		t.Errorf("%d snapshots are left", exist)
	}
}

func TestManager_OffloadRead_crash(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	src := s.NewVolume("src", volumeSize)
	m := open(t, s, tokens.Limits{})
	data := pattern(t, src, 5)
	who := tokens.Creator{Initiator: "iqn.i", Target: "iqn.t", Volume: "src"}
	tok := mustRead(t, m, src, ranges(512, 8192), tokens.ReadOptions{Creator: who, Priority: 3, InactivityTimeout: 5 * time.Minute})
	before, err := m.Lookup(tok)
	if err != nil {
		t.Fatal(err)
	}
	after := s.Crash()
	m = open(t, after, tokens.Limits{})
	got, err := m.Lookup(tok)
	if err != nil {
		t.Fatal(err)
	}
	if d := got.Expires.Sub(before.Expires).Abs(); d > time.Minute {
		t.Errorf("expires %v, did %v", got.Expires, before.Expires)
	}
	got.Expires = before.Expires
	if got.Created = got.Created.Round(0); !got.Created.Equal(before.Created) || !got.LastUsed.Equal(before.LastUsed) {
		t.Errorf("made %v, used %v; was made %v, used %v", got.Created, got.LastUsed, before.Created, before.LastUsed)
	}
	got.Created, got.LastUsed = before.Created, before.LastUsed
	if got != before {
		t.Errorf("after the crash\n%+v, before\n%+v", got, before)
	}
	if got := m.Stats(); got.Live != 1 || got.PinnedBytes != 8192 {
		t.Errorf("%+v", got)
	}
	dst := after.NewVolume("dst", volumeSize)
	mustWrite(t, m, tok, 0, dst, ranges(0, 8192), 8192)
	if !bytes.Equal(contents(t, dst)[:8192], data[512:512+8192]) {
		t.Error("wrong data")
	}
}

func TestManager_OffloadRead_storeFails(t *testing.T) {
	broken := errors.New("broken")
	for _, op := range []string{"Snapshot", "Flush"} {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		m := open(t, s, tokens.Limits{})
		s.FailWith(func(now string) error {
			if now == op {
				return broken
			}
			return nil
		})
		if _, err := m.OffloadRead(ctx, source(v), ranges(0, 512), tokens.ReadOptions{}); !errors.Is(err, broken) {
			t.Errorf("%s fails: %v", op, err)
		}
		s.FailWith(nil)
		exist, open := s.Snapshots()
		if exist != 0 || open != 0 || s.Records("token/live/") != 0 || len(m.List()) != 0 {
			t.Errorf("%s fails: %d snapshots, %d handles, %d records, %d tokens are left",
				op, exist, open, s.Records("token/live/"), len(m.List()))
		}
	}
}

func TestManager_OffloadWrite_partial(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	tok := mustRead(t, m, v, ranges(0, 8192), tokens.ReadOptions{})
	s.MapAtMost(2048)
	calls := 0
	s.FailWith(func(op string) error {
		if calls++; op == "Map" && calls == 3 {
			return blockdev.ErrNoSpace
		}
		return nil
	})
	n, err := m.OffloadWrite(ctx, tok, 0, destination(v), ranges(65536, 8192), tokens.WriteOptions{Completion: tokens.DeleteToken})
	if n != 4096 || !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("%d, %v; want 4096 and no space", n, err)
	}
	s.FailWith(nil)
	if _, err := m.Lookup(tok); err != nil {
		t.Errorf("the token is gone: %v", err)
	}
}

func TestOpen_removesStages(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	s.NewVolume(".token-stage-0011", 512)
	s.NewVolume("keep", 512)
	open(t, s, tokens.Limits{})
	if v := s.Volumes(); len(v) != 1 || v[0] != "keep" {
		t.Errorf("volumes %v", v)
	}
}

func TestOpen_malformedRecords(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	tok := mustRead(t, m, v, ranges(0, 512), tokens.ReadOptions{})
	bad := []backstore.Record{
		{Key: []byte("token/live/short"), Value: []byte("{}")},
		{Key: []byte("token/live/12345678"), Value: []byte("nonsense")},
		{Key: []byte("token/dead/12345678"), Value: []byte("nonsense")},
		{Key: []byte("token/dead/xyz"), Value: []byte("{}")},
	}
	later := backstore.Record{Key: []byte("token/dead/87654321"), Value: []byte(`{"version":99}`)}
	bad = append(bad, later)
	if err := s.PutRecords(ctx, bad...); err != nil {
		t.Fatal(err)
	}
	m = open(t, s, tokens.Limits{})
	if _, err := m.Lookup(tok); err != nil {
		t.Error(err)
	}
	if value, err := s.GetRecord(later.Key); err != nil || !bytes.Equal(value, later.Value) {
		t.Errorf("the record of a later version: %q, %v", value, err)
	}
	if err := s.PutRecords(ctx, backstore.Record{Key: []byte("token/key"), Value: []byte("short")}); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Open(ctx, tokens.Options{Store: s, Log: logs.Discard()}); err == nil {
		t.Error("a store whose token key is damaged opens")
	}
}

func TestManager_Closed(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	tok := mustRead(t, m, v, ranges(0, 512), tokens.ReadOptions{})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.OffloadRead(ctx, source(v), ranges(0, 512), tokens.ReadOptions{}); !errors.Is(err, tokens.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	wantRefused(t, m, tok, v, tokens.ErrClosed)
}
