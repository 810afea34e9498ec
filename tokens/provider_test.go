package tokens_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"odx/blockdev"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/tokens"
)

func hashToken(t testing.TB, m *tokens.Manager, v blockdev.Volume, r []blockdev.Range) *tokens.Token {
	t.Helper()
	return mustRead(t, m, v, r, tokens.ReadOptions{Type: tokens.RODTypeHash})
}

// A hash token works as long as the store has its bytes, and needs no record.
func TestHashToken_extentStore(t *testing.T) {
	d := newDisk()
	w := &extentWorld{options: d.options()}
	w.open(t)
	defer func() { w.close(t) }()
	data := pattern(t, w.create(t, "src", volumeSize, 512), 3)
	rs := ranges(8192, 65536, 512, 1536)
	rod := slices.Concat(data[8192:8192+65536], data[512:2048])
	tok := hashToken(t, w.manager, w.volumes[0].volume, rs)
	if n := len(w.manager.List()); n != 0 {
		t.Errorf("%d tokens are listed", n)
	}
	w.close(t)
	w.open(t)
	dst := w.create(t, "dst", volumeSize, 512)
	copied := func(want error) {
		t.Helper()
		n, err := w.manager.OffloadWrite(ctx, tok, 512, destination(dst), ranges(4096, 65536+1024), tokens.WriteOptions{})
		if !errors.Is(err, want) || want != nil && n != 0 {
			t.Fatalf("%d bytes, %v; want %v", n, err, want)
		}
		if want == nil && !bytes.Equal(contents(t, dst)[4096:4096+n], rod[512:]) {
			t.Error("wrong data")
		}
	}
	copied(nil)
	src := w.volumes[0].volume
	write := func(p []byte, off int64) {
		t.Helper()
		if err := src.WriteAt(ctx, p, off); err != nil {
			t.Fatal(err)
		}
	}
	write(data[65536:65536+4096], 65536) // the same bytes
	copied(nil)
	write(make([]byte, 512), 73216)
	copied(tokens.ErrCancelled)
	write(data[73216:73216+512], 73216) // back again
	copied(nil)
	if _, err := w.store.CloneVolume(ctx, "src", "clone"); err != nil {
		t.Fatal(err)
	}
	write(make([]byte, 512), 73216)
	copied(nil) // a clone has them
	if err := w.store.DeleteVolume(ctx, "src"); err != nil {
		t.Fatal(err)
	}
	copied(nil)
	if err := w.store.DeleteVolume(ctx, "clone"); err != nil {
		t.Fatal(err)
	}
	copied(tokens.ErrCancelled)
	w.volumes = nil
	if findings, err := w.store.Check(ctx); err != nil || len(findings) > 0 {
		t.Errorf("check of the store: %v, %v", findings, err)
	}
}

func TestHashToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := offloadtest.NewStore([16]byte{1})
		v := s.NewVolume("v", volumeSize)
		m := openWith(t, tokens.Options{Store: s, Limits: tokens.Limits{DigestBytes: 65536}, Policy: tokens.Policy{
			Groups: []tokens.Group{{Name: "g", Initiators: []tokens.Pattern{"iqn.b*"}}}}})
		pattern(t, v, 1)
		tok := hashToken(t, m, v, ranges(4096, 8192))
		if i, err := m.Lookup(tok); err != nil || i.Length != 8192 || i.Creator.Volume != "v" || time.Until(i.Expires) > 24*time.Hour {
			t.Errorf("%+v, %v", i, err)
		}
		// The locator is encrypted.
		if again := hashToken(t, m, v, ranges(4096, 8192)); bytes.Equal(again[312:476], tok[312:476]) {
			t.Error("two tokens for one range have the same locator")
		}
		for i := range tok {
			bad := *tok
			bad[i] ^= 0x40
			if n, err := m.OffloadWrite(ctx, &bad, 0, destination(v), ranges(0, 512), tokens.WriteOptions{}); n != 0 || err == nil {
				t.Errorf("byte %d changed: accepted", i)
			}
		}
		for name, tc := range map[string]struct {
			ranges []blockdev.Range
			o      tokens.ReadOptions
			v      blockdev.Volume
			want   error
		}{
			"too long":              {ranges(0, 65536+512), tokens.ReadOptions{}, v, tokens.ErrTooLong},
			"too many ranges":       {ranges(0, 512, 1024, 512, 2048, 512, 3072, 512, 4096, 512, 5120, 512, 6144, 512, 7168, 512), tokens.ReadOptions{}, v, tokens.ErrUnsupportedType},
			"no bytes":              {ranges(0, 0), tokens.ReadOptions{}, v, blockdev.ErrRange},
			"outside of the volume": {ranges(volumeSize, 512), tokens.ReadOptions{}, v, blockdev.ErrRange},
			"outside of the store":  {ranges(0, 512), tokens.ReadOptions{}, offloadtest.Foreign{Volume: v}, tokens.ErrUnsupportedType},
			"for an unknown group":  {ranges(0, 512), tokens.ReadOptions{Access: "group:none"}, v, tokens.ErrAccess},
		} {
			tc.o.Type = tokens.RODTypeHash
			if _, err := m.OffloadRead(ctx, source(tc.v), tc.ranges, tc.o); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for access, who := range map[tokens.Access][2]string{tokens.AccessInitiator: {"iqn.a", "iqn.b1"}, tokens.AccessGroup("g"): {"iqn.b1", "iqn.a"}} {
			tok := mustRead(t, m, v, ranges(4096, 8192), tokens.ReadOptions{Type: tokens.RODTypeHash, Access: access, Creator: tokens.Creator{Initiator: "iqn.a"}})
			for i, want := range []error{nil, tokens.ErrAccess} {
				_, err := m.OffloadWrite(ctx, tok, 0, destination(v), ranges(65536, 512), tokens.WriteOptions{Requester: tokens.Requester{Initiator: who[i]}})
				if !errors.Is(err, want) {
					t.Errorf("%s, used by %s: %v", access, who[i], err)
				}
			}
		}
		deleted, revoked := hashToken(t, m, v, ranges(4096, 8192)), hashToken(t, m, v, ranges(4096, 8192))
		if _, err := m.OffloadWrite(ctx, deleted, 0, destination(v), ranges(65536, 8192), tokens.WriteOptions{Completion: tokens.DeleteToken}); err != nil {
			t.Fatal(err)
		}
		if err := m.DeleteToken(ctx, revoked, tokens.Revoked); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			wantRefused(t, m, deleted, v, tokens.ErrDeleted)
			wantRefused(t, m, revoked, v, tokens.ErrRevoked)
			m = open(t, s.Crash(), tokens.Limits{})
		}
		time.Sleep(24 * time.Hour)
		wantRefused(t, m, tok, v, tokens.ErrExpired)
		other := offloadtest.NewStore([16]byte{2})
		wantRefused(t, open(t, other, tokens.Limits{}), tok, other.NewVolume("v", volumeSize), tokens.ErrRemote)
		if exist, handles := s.Snapshots(); exist != 0 || handles != 0 {
			t.Errorf("%d snapshots, %d handles", exist, handles)
		}
	})
}

func TestManager_Verify(t *testing.T) {
	d := newDisk()
	w := &extentWorld{options: d.options()}
	w.open(t)
	defer func() { w.close(t) }()
	m := w.manager
	src, dst := w.create(t, "src", volumeSize, 512), w.create(t, "dst", volumeSize, 512)
	plain := offloadtest.Foreign{Volume: offloadtest.NewStore([16]byte{2}).NewVolume("plain", volumeSize), BlockLength: 4096}
	data := pattern(t, src, 3)
	made, n, err := m.OffloadReadEach(ctx, source(src), ranges(8192, 66048, 512, 1024), tokens.ReadOptions{}, tokens.Choice{Providers: []tokens.ProviderID{tokens.ProviderChecksum, tokens.ProviderData}})
	if err != nil || n != 67072 || len(made) != 2 || made[0].Provider != tokens.ProviderData {
		t.Fatalf("%v, %d, %v", made, n, err)
	}
	tok, sum := made[0].Token, made[1].Token
	pattern(t, src, 9) // the checksum is of the data as of the token
	for _, tc := range []struct {
		name  string
		dst   offload.Destination
		first int64
		last  int64 // a byte of the last block that the token fills in part
	}{
		{"shared blocks", destination(dst), 12288, 0},
		{"shifted", destination(dst), 512, 0},
		{"outside the store, larger blocks", offload.Destination{Volume: plain, BlockLength: 4096}, 4096, 4096 + 67072},
	} {
		r := ranges(tc.first, 68*1024)
		if tc.last != 0 {
			r = ranges(tc.first, 17*4096)
		}
		if _, err := m.OffloadWrite(ctx, tok, 0, tc.dst, r, tokens.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		check := func(want tokens.Verdict) {
			t.Helper()
			if v, err := m.Verify(ctx, sum, tc.dst, r); err != nil || v != want {
				t.Errorf("%s: %v, %v; want %v", tc.name, v, err, want)
			}
		}
		check(tokens.Match)
		block := make([]byte, tc.dst.BlockLength)
		if err := tc.dst.Volume.ReadAt(ctx, block, tc.first); err != nil {
			t.Fatal(err)
		}
		flip := func() {
			t.Helper()
			block[7] ^= 1
			if err := tc.dst.Volume.WriteAt(ctx, block, tc.first); err != nil {
				t.Fatal(err)
			}
		}
		flip()
		check(tokens.Mismatch)
		flip()
		check(tokens.Match)
	}
	// A copy that was written as data, not by token, verifies as well.
	rod := append(bytes.Clone(data[8192:8192+66048]), data[512:1536]...)
	if err := dst.WriteAt(ctx, rod, 512<<10); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Verify(ctx, sum, destination(dst), ranges(512<<10, 67072)); err != nil || v != tokens.Match {
		t.Errorf("written as data: %v, %v", v, err)
	}
	for name, tc := range map[string]struct {
		tok    *tokens.Token
		ranges []blockdev.Range
		want   error
	}{
		"too few bytes":   {sum, ranges(0, 66560), blockdev.ErrRange},
		"no checksum":     {tok, ranges(0, 67072), tokens.ErrUnsupportedType},
		"outside":         {sum, ranges(volumeSize, 512), blockdev.ErrRange},
		"changed on way":  {func() *tokens.Token { c := *sum; c[290] ^= 1; return &c }(), ranges(0, 67072), tokens.ErrCorrupt},
		"not of any size": {new(tokens.Token), ranges(0, 67072), tokens.ErrInvalidLength},
	} {
		if _, err := m.Verify(ctx, tc.tok, destination(dst), tc.ranges); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantRefused(t, m, sum, dst, tokens.ErrUnsupportedType)
	w.volumes = nil
}

func TestManager_OffloadReadEach(t *testing.T) {
	data, hash, sum := tokens.ProviderData, tokens.ProviderHash, tokens.ProviderChecksum
	ids := func(id ...tokens.ProviderID) []tokens.ProviderID { return id }
	for _, tc := range []struct {
		name    string
		choice  tokens.Choice
		foreign bool
		want    []tokens.ProviderID
		err     error
	}{
		{"all", tokens.Choice{}, false, ids(data, hash, sum), nil},
		{"by name", tokens.Choice{Providers: ids(sum, data)}, false, ids(data, sum), nil},
		{"the best", tokens.Choice{Count: 1}, false, ids(data), nil},
		{"skip one", tokens.Choice{Skip: 1}, false, ids(hash, sum), nil},
		{"skip one, take one", tokens.Choice{Skip: 1, Count: 1}, false, ids(hash), nil},
		{"skip two", tokens.Choice{Skip: 2}, false, ids(sum), nil},
		{"skip all", tokens.Choice{Skip: 3}, false, nil, tokens.ErrUnsupportedType},
		{"those that can", tokens.Choice{}, true, ids(data, sum), nil},
		{"skip counts those that can", tokens.Choice{Skip: 1}, true, ids(sum), nil},
		{"one that cannot", tokens.Choice{Providers: ids(hash)}, true, nil, tokens.ErrUnsupportedType},
		{"nobody", tokens.Choice{Providers: ids(77)}, false, nil, tokens.ErrUnsupportedType},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			own := s.NewVolume("v", volumeSize)
			bytesOf := pattern(t, own, 1)
			var v blockdev.Volume = own
			if tc.foreign {
				v = offloadtest.Foreign{Volume: own}
			}
			m := open(t, s, tokens.Limits{})
			made, n, err := m.OffloadReadEach(ctx, source(v), ranges(512, 8192), tokens.ReadOptions{}, tc.choice)
			var got []tokens.ProviderID
			for _, p := range made {
				got = append(got, p.Provider)
				dst := s.NewVolume(fmt.Sprint(p.Provider), 8192)
				if p.Provider == sum {
					continue
				}
				mustWrite(t, m, p.Token, 0, dst, ranges(0, 8192), 8192)
				if !bytes.Equal(contents(t, dst), bytesOf[512:8704]) {
					t.Error("wrong data")
				}
			}
			if !errors.Is(err, tc.err) || !slices.Equal(got, tc.want) || err == nil && n != 8192 {
				t.Errorf("%v, %d bytes, %v; want %v, %v", got, n, err, tc.want, tc.err)
			}
			if exist, handles := s.Snapshots(); handles != 0 || exist > 1 {
				t.Errorf("%d snapshots, %d handles", exist, handles)
			}
		})
	}
	var names []string
	for _, p := range tokens.Providers() {
		names = append(names, p.Name)
	}
	if strings.Join(names, " ") != "data hash checksum" {
		t.Errorf("providers %q", names)
	}
}

// If one of several tokens cannot be made, none is left.
func TestManager_OffloadReadEach_fails(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{DigestBytes: 4096})
	_, _, err := m.OffloadReadEach(ctx, source(v), ranges(0, 8192), tokens.ReadOptions{}, tokens.Choice{Providers: []tokens.ProviderID{tokens.ProviderData, tokens.ProviderChecksum}})
	if !errors.Is(err, tokens.ErrTooLong) || len(m.List()) != 0 {
		t.Errorf("%v, %d tokens", err, len(m.List()))
	}
	// Without being named, a provider that cannot is passed over.
	made, _, err := m.OffloadReadEach(ctx, source(v), ranges(0, 8192), tokens.ReadOptions{}, tokens.Choice{})
	if err != nil || len(made) != 1 || made[0].Provider != tokens.ProviderData {
		t.Errorf("%v, %v", made, err)
	}
}

func TestReader_ReadAt(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	data := pattern(t, v, 1)
	tok := mustRead(t, m, v, ranges(4608, 8192, 512, 1024), tokens.ReadOptions{})
	rod := append(bytes.Clone(data[4608:12800]), data[512:1536]...)
	pattern(t, v, 9)
	for _, tc := range []struct {
		name    string
		pastEnd tokens.PastEnd
		off     int64
		length  int
		want    []byte
		err     error
	}{
		{"all", tokens.EndOfData, 0, 9216, rod, nil},
		{"across ranges", tokens.EndOfData, 8000, 500, rod[8000:8500], nil},
		{"over the end", tokens.EndOfData, 9000, 500, rod[9000:], io.EOF},
		{"at the end", tokens.EndOfData, 9216, 10, nil, io.EOF},
		{"past the end", tokens.EndOfData, math.MaxInt64, 10, nil, io.EOF},
		{"nothing at the end", tokens.EndOfData, 9216, 0, nil, nil},
		{"over the end with zeros", tokens.Zeros, 9000, 500, append(bytes.Clone(rod[9000:]), make([]byte, 284)...), nil},
		{"past the end with zeros", tokens.Zeros, 1 << 40, 10, make([]byte, 10), nil},
		{"before the beginning", tokens.Zeros, -1, 10, nil, blockdev.ErrRange},
	} {
		r, err := m.OpenReader(ctx, tok, tokens.ReaderOptions{PastEnd: tc.pastEnd})
		if err != nil || r.Length() != 9216 {
			t.Fatal(err)
		}
		p := bytes.Repeat([]byte{0xAA}, tc.length)
		n, err := r.ReadAt(ctx, p, tc.off)
		if !errors.Is(err, tc.err) || !bytes.Equal(p[:n], tc.want) {
			t.Errorf("%s: %d bytes, %v", tc.name, n, err)
		}
		r.Close()
	}
	zero := new(tokens.Token)
	copy(zero[:], []byte{0xFF, 0xFF, 0, 1, 0, 0, 1, 0xF8})
	r, err := m.OpenReader(ctx, zero, tokens.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := []byte{1, 2, 3}
	if n, err := r.ReadAt(ctx, p, 1<<50); n != 3 || err != nil || !bytes.Equal(p, make([]byte, 3)) {
		t.Errorf("zero token: %d, %v, % x", n, err, p)
	}
	r.Close()
	if _, err := m.OpenReader(ctx, new(tokens.Token), tokens.ReaderOptions{}); !errors.Is(err, tokens.ErrInvalidLength) {
		t.Errorf("no token: %v", err)
	}
	if _, handles := s.Snapshots(); handles != 0 {
		t.Errorf("%d handles are left", handles)
	}
}

// An open reader keeps its token from expiring; when the token ends, the reader
// continues or fails, as the policy says.
func TestReader_TokenEnds(t *testing.T) {
	for _, policy := range []tokens.RunningCopy{tokens.FinishCopy, tokens.AbortCopy} {
		synctest.Test(t, func(t *testing.T) {
			s := offloadtest.NewStore([16]byte{1})
			v := s.NewVolume("v", volumeSize)
			m := openWith(t, tokens.Options{Store: s, Policy: tokens.Policy{RunningCopy: policy}})
			tok := mustRead(t, m, v, ranges(0, 4096), tokens.ReadOptions{})
			reading, stop := context.WithCancel(ctx)
			defer stop()
			r, err := m.OpenReader(reading, tok, tokens.ReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			p := make([]byte, 4096)
			if _, err := r.ReadAt(ctx, p, 0); err != nil {
				t.Error(err)
			}
			if err := m.Delete(ctx, tok.ID(), tokens.Revoked); err != nil {
				t.Fatal(err)
			}
			if _, err := r.ReadAt(ctx, p, 0); policy == tokens.FinishCopy && err != nil || policy == tokens.AbortCopy && !errors.Is(err, tokens.ErrRevoked) {
				t.Errorf("policy %d: %v", policy, err)
			}
			r.Close()
			if exist, handles := s.Snapshots(); exist != 0 || handles != 0 {
				t.Errorf("%d snapshots, %d handles", exist, handles)
			}
		})
	}
}

// Errors of the store are returned and leave nothing.
func TestDigestTokens_storeFails(t *testing.T) {
	s := offloadtest.NewStore([16]byte{1})
	v := s.NewVolume("v", volumeSize)
	m := open(t, s, tokens.Limits{})
	tok := hashToken(t, m, v, ranges(0, 4096))
	broken := errors.New("broken")
	fail := func(op string) {
		s.FailWith(func(now string) error {
			if now == op {
				return broken
			}
			return nil
		})
	}
	for _, op := range []string{"Snapshot", "DeleteSnapshot"} {
		fail(op)
		if _, err := m.OpenReader(ctx, tok, tokens.ReaderOptions{}); !errors.Is(err, broken) {
			t.Errorf("use, %s fails: %v", op, err)
		}
		if _, err := m.OffloadRead(ctx, source(v), ranges(0, 512), tokens.ReadOptions{Type: tokens.RODTypeChecksum}); !errors.Is(err, broken) {
			t.Errorf("checksum, %s fails: %v", op, err)
		}
	}
	fail("PutRecords")
	if err := m.DeleteToken(ctx, tok, tokens.Deleted); !errors.Is(err, broken) {
		t.Errorf("deletion: %v", err)
	}
	fail("HeldBytes")
	if _, err := m.HeldBytes(ctx); !errors.Is(err, broken) || s.Full(ctx, 4096) {
		t.Errorf("measuring: %v", err)
	}
	s.FailWith(nil)
	mustWrite(t, m, tok, 0, v, ranges(8192, 4096), 4096)
	m = open(t, s, tokens.Limits{}) // removes the snapshots of the uses that failed
	if exist, handles := s.Snapshots(); exist != 0 || handles != 0 || s.Records("token/use/") != 0 {
		t.Errorf("%d snapshots, %d handles are left", exist, handles)
	}
	if err := m.DeleteToken(ctx, tok, tokens.Deleted); err != nil {
		t.Error(err)
	}
}

// Copy copies any range of the token to any volume, and nothing outside of it.
func TestReader_Copy(t *testing.T) {
	s, other := offloadtest.NewStore([16]byte{1}), offloadtest.NewStore([16]byte{2})
	src := s.NewVolume("src", volumeSize)
	m := open(t, s, tokens.Limits{})
	data := pattern(t, src, 1)
	tok := mustRead(t, m, src, ranges(8192, 16384), tokens.ReadOptions{})
	pattern(t, src, 2)
	r, err := m.OpenReader(ctx, tok, tokens.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, dst := range []blockdev.Volume{s.NewVolume("dst", volumeSize), offloadtest.Foreign{Volume: other.NewVolume("dst", volumeSize), BlockLength: 512}} {
		want, moved := pattern(t, dst, 3), int64(0)
		if err := r.Copy(ctx, 512, dst, 4096, 15872, func(n int64) { moved += n }); err != nil || moved != 15872 {
			t.Errorf("%d bytes, %v", moved, err)
		}
		copy(want[4096:], data[8192+512:8192+16384])
		if !bytes.Equal(contents(t, dst), want) {
			t.Error("wrong data")
		}
		for _, part := range [][2]int64{{-1, 1}, {0, 16385}, {16384, 1}, {1 << 62, 1 << 62}} {
			if err := r.Copy(ctx, part[0], dst, 0, part[1], func(int64) {}); !errors.Is(err, blockdev.ErrRange) {
				t.Errorf("%d bytes at %d: %v", part[1], part[0], err)
			}
		}
	}
	var zero tokens.Token
	binary.BigEndian.PutUint32(zero[:], uint32(tokens.RODTypeBlockDeviceZero))
	binary.BigEndian.PutUint16(zero[6:], 0x01F8)
	zeros, err := m.OpenReader(ctx, &zero, tokens.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer zeros.Close()
	if err := zeros.Copy(ctx, 0, src, 0, 512, func(int64) {}); !errors.Is(err, tokens.ErrUnsupportedType) {
		t.Errorf("zeros: %v", err)
	}
}
