package tokens_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"odx/blockdev"
	"odx/internal/kit/logs"
	"odx/offload"
	"odx/offload/offloadtest"
	"odx/tokens"
)

// world is a store with volumes, and a model of them in which a token is a slice of
// bytes.
type world struct {
	manager *tokens.Manager
	volumes []worldVolume
	tokens  []worldToken
	hashes  []worldHash
}

type worldVolume struct {
	name        string
	volume      blockdev.Volume
	blockLength int64
	model       []byte
}

type worldHash struct {
	token, checksum *tokens.Token
	ranges          []blockdev.Range
	model           []byte
}

type worldToken struct {
	token  *tokens.Token
	source *worldVolume
	ranges []blockdev.Range
	model  []byte // its bytes, unless it follows the source
	dead   error
}

// stands returns the bytes that the token represents.
func (tok *worldToken) stands() []byte {
	if tok.token.Type() != tokens.RODTypeAccessUponReference {
		return tok.model
	}
	return tok.source.at(tok.ranges)
}

// at returns the bytes of ranges in the model.
func (v *worldVolume) at(list []blockdev.Range) []byte {
	var p []byte
	for _, r := range list {
		p = append(p, v.model[r.Offset:r.Offset+r.Length]...)
	}
	return p
}

// changed marks the change vulnerable tokens over a range of v as ended.
func (w *world) changed(v *worldVolume, off, length int64) {
	const block = blockdev.BlockLength
	for i := range w.tokens {
		tok := &w.tokens[i]
		if tok.source != v || tok.token.Type() != tokens.RODTypePointInTimeChangeVulnerable {
			continue
		}
		for _, r := range tok.ranges {
			if length > 0 && r.Length > 0 && off/block <= (r.Offset+r.Length-1)/block && r.Offset/block <= (off+length-1)/block {
				tok.dead = cmpErr(tok.dead, tokens.ErrCancelled)
			}
		}
	}
}

// worldSize is not a multiple of 4 KiB times many, so that ends matter.
const worldSize = 24 * 4096

// addVolume adds a volume that reads as zeros.
func (w *world) addVolume(name string, v blockdev.Volume, blockLength int64) {
	w.volumes = append(w.volumes, worldVolume{name, v, blockLength, make([]byte, v.Size())})
}

func drawRange(t *rapid.T, size, blockLength int64) blockdev.Range {
	blocks := size / blockLength
	first := rapid.Int64Range(0, blocks-1).Draw(t, "block")
	count := rapid.Int64Range(0, min(blocks-first, 16*4096/blockLength)).Draw(t, "blocks")
	return blockdev.Range{Offset: first * blockLength, Length: count * blockLength}
}

func drawRanges(t *rapid.T, size, blockLength int64) []blockdev.Range {
	list := make([]blockdev.Range, rapid.IntRange(1, 4).Draw(t, "ranges"))
	for i := range list {
		list[i] = drawRange(t, size, blockLength)
	}
	return list
}

func (w *world) draw(t *rapid.T) *worldVolume {
	return &w.volumes[rapid.IntRange(0, len(w.volumes)-1).Draw(t, "volume")]
}

func (w *world) write(t *rapid.T) {
	v := w.draw(t)
	r := drawRange(t, v.volume.Size(), v.blockLength)
	p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, int(r.Length))
	for i := range p {
		p[i] += byte(i >> 9)
	}
	if err := v.volume.WriteAt(ctx, p, r.Offset); err != nil {
		t.Fatal(err)
	}
	copy(v.model[r.Offset:], p)
	w.changed(v, r.Offset, r.Length)
}

func (w *world) offloadRead(t *rapid.T) {
	v := w.draw(t)
	list := drawRanges(t, v.volume.Size(), v.blockLength)
	rod := v.at(list)
	k := rapid.SampledFrom(kinds).Draw(t, "kind")
	src := tokens.Source{Volume: v.volume, LU: tokens.LU{BlockLength: int(v.blockLength)}}
	res, err := w.manager.OffloadRead(ctx, src, list, tokens.ReadOptions{Type: k.rodType})
	if len(rod) == 0 {
		if !errors.Is(err, blockdev.ErrRange) {
			t.Fatalf("empty token: %v", err)
		}
		return
	}
	if !k.pins && !w.manager.Engine().Shares(v.volume) {
		if !errors.Is(err, tokens.ErrUnsupportedType) {
			t.Fatalf("%v of a volume outside the store: %v", k.rodType, err)
		}
		return
	}
	if err != nil || res.Represented != int64(len(rod)) {
		t.Fatalf("represents %d of %d bytes, %v", res.Represented, len(rod), err)
	}
	w.tokens = append(w.tokens, worldToken{token: res.Token, source: v, ranges: list, model: rod})
}

func (w *world) offloadWrite(t *rapid.T) {
	if len(w.tokens) == 0 {
		t.Skip("no tokens")
	}
	tok := &w.tokens[rapid.IntRange(0, len(w.tokens)-1).Draw(t, "token")]
	v := w.draw(t)
	list := drawRanges(t, v.volume.Size(), v.blockLength)
	off := v.blockLength * rapid.Int64Range(0, int64(len(tok.model))/v.blockLength+1).Draw(t, "offset")
	o := tokens.WriteOptions{}
	if rapid.IntRange(0, 9).Draw(t, "completion") == 0 {
		o.Completion = tokens.DeleteToken
	}
	dst := offload.Destination{Volume: v.volume, BlockLength: int(v.blockLength)}
	n, err := w.manager.OffloadWrite(ctx, tok.token, off, dst, list, o)
	if tok.dead != nil || off >= int64(len(tok.model)) {
		if want := cmpErr(tok.dead, tokens.ErrOffset); n != 0 || !errors.Is(err, want) {
			t.Fatalf("wrote %d, %v; want %v", n, err, want)
		}
		return
	}
	// Past the end of the token, the last block that it fills in part ends in zeros.
	rod := bytes.Clone(tok.stands()[off:])
	if over := int64(len(rod)) % v.blockLength; over != 0 {
		rod = append(rod, make([]byte, v.blockLength-over)...)
	}
	var want int64
	for _, r := range list {
		k := copy(v.model[r.Offset:r.Offset+r.Length], rod[want:])
		want += int64(k)
		w.changed(v, r.Offset, int64(k))
	}
	if err != nil || n != want {
		t.Fatalf("wrote %d bytes, %v; want %d", n, err, want)
	}
	if o.Completion == tokens.DeleteToken {
		tok.dead = cmpErr(tok.dead, tokens.ErrDeleted)
	}
}

// read reads through a token, past its end too.
func (w *world) read(t *rapid.T) {
	if len(w.tokens) == 0 {
		t.Skip("no tokens")
	}
	tok := &w.tokens[rapid.IntRange(0, len(w.tokens)-1).Draw(t, "token")]
	pastEnd := rapid.SampledFrom([]tokens.PastEnd{tokens.EndOfData, tokens.Zeros}).Draw(t, "past end")
	r, err := w.manager.OpenReader(ctx, tok.token, tokens.ReaderOptions{PastEnd: pastEnd})
	if tok.dead != nil {
		if !errors.Is(err, tok.dead) {
			t.Fatalf("%v, want %v", err, tok.dead)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rod := tok.stands()
	off := rapid.Int64Range(0, int64(len(rod))+5000).Draw(t, "offset")
	p := bytes.Repeat([]byte{0x5A}, rapid.IntRange(0, len(rod)+5000).Draw(t, "length"))
	want := rod[min(off, int64(len(rod))):]
	want = want[:min(len(p), len(want))]
	wantErr := error(nil)
	if len(want) < len(p) {
		if pastEnd == tokens.Zeros {
			want = append(bytes.Clone(want), make([]byte, len(p)-len(want))...)
		} else {
			wantErr = io.EOF
		}
	}
	n, err := r.ReadAt(ctx, p, off)
	if n != len(want) || err != wantErr || !bytes.Equal(p[:n], want) {
		t.Fatalf("read %d of %d bytes at %d, %v; want %d bytes, %v", n, len(p), off, err, len(want), wantErr)
	}
	for _, b := range p[n:] {
		if b != 0x5A {
			t.Fatal("bytes past the end were changed")
		}
	}
}

// hashRead makes a hash token and a checksum.
func (w *world) hashRead(t *rapid.T) {
	v := w.draw(t)
	list := drawRanges(t, v.volume.Size(), v.blockLength)
	rod := v.at(list)
	if len(rod) == 0 || !w.manager.Engine().Shares(v.volume) {
		t.Skip("no hash token")
	}
	src := tokens.Source{Volume: v.volume, LU: tokens.LU{BlockLength: int(v.blockLength)}}
	made, _, err := w.manager.OffloadReadEach(ctx, src, list, tokens.ReadOptions{}, tokens.Choice{Skip: 1})
	if err != nil || len(made) != 2 {
		t.Fatal(made, err)
	}
	w.hashes = append(w.hashes, worldHash{token: made[0].Token, checksum: made[1].Token, ranges: list, model: rod})
}

// hashCheck reads a hash token, which works if an object of the store has its bytes at
// their place, and verifies volumes with a checksum token.
func (w *world) hashCheck(t *rapid.T) {
	if len(w.hashes) == 0 {
		t.Skip("no hash tokens")
	}
	h := w.hashes[rapid.IntRange(0, len(w.hashes)-1).Draw(t, "hash token")]
	there := false
	for i := range w.volumes {
		v := &w.volumes[i]
		if !slices.ContainsFunc(h.ranges, func(r blockdev.Range) bool { return r.Offset+r.Length > v.volume.Size() }) {
			there = there || w.manager.Engine().Shares(v.volume) && bytes.Equal(v.at(h.ranges), h.model)
		}
	}
	r, err := w.manager.OpenReader(ctx, h.token, tokens.ReaderOptions{})
	if !there {
		if !errors.Is(err, tokens.ErrCancelled) {
			t.Fatalf("hash token whose bytes do not exist: %v", err)
		}
	} else {
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, len(h.model))
		if _, err := r.ReadAt(ctx, p, 0); err != nil || !bytes.Equal(p, h.model) {
			t.Fatalf("hash token: other bytes, %v", err)
		}
		r.Close()
	}
	v := w.draw(t)
	list := drawRanges(t, v.volume.Size(), v.blockLength)
	now := v.at(list)
	verdict, err := w.manager.Verify(ctx, h.checksum, offload.Destination{Volume: v.volume, BlockLength: int(v.blockLength)}, list)
	switch {
	case len(now) < len(h.model):
		if !errors.Is(err, blockdev.ErrRange) {
			t.Fatalf("verify too few bytes: %v", err)
		}
	case err != nil || (verdict == tokens.Match) != bytes.Equal(now[:len(h.model)], h.model):
		t.Fatalf("verify: %v, %v", verdict, err)
	}
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func (w *world) revoke(t *rapid.T) {
	if len(w.tokens) == 0 {
		t.Skip("no tokens")
	}
	tok := &w.tokens[rapid.IntRange(0, len(w.tokens)-1).Draw(t, "token")]
	if err := w.manager.Delete(ctx, tok.token.ID(), tokens.Revoked); !errors.Is(err, tok.dead) {
		t.Fatalf("%v, want %v", err, tok.dead)
	}
	tok.dead = cmpErr(tok.dead, tokens.ErrRevoked)
}

func (w *world) check(t *rapid.T) {
	for _, v := range w.volumes {
		p := make([]byte, v.volume.Size())
		if err := v.volume.ReadAt(ctx, p, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, v.model) {
			t.Fatalf("volume %s differs from the model from byte %d on", v.name, firstDifference(p, v.model))
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// Random operations on tokens of all types, volumes and the manager agree with the
// model, at any alignment and over restarts.
func TestManager_Random(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, other := offloadtest.NewStore([16]byte{1}), offloadtest.NewStore([16]byte{2})
		w := &world{}
		w.addVolume("512 bytes a block", s.NewVolume("a", worldSize+512), 512)
		w.addVolume("4096 bytes a block", s.NewVolume("b", worldSize), 4096)
		w.addVolume("of another store", offloadtest.Foreign{Volume: other.NewVolume("c", worldSize), BlockLength: 512}, 512)
		w.addVolume("of another store, 4096 bytes a block", offloadtest.Foreign{Volume: other.NewVolume("d", worldSize), BlockLength: 4096}, 4096)
		w.open(t, s)
		defer func() { w.close(t) }()
		t.Repeat(map[string]func(*rapid.T){
			"write":        w.write,
			"offloadRead":  w.offloadRead,
			"offloadWrite": w.offloadWrite,
			"revoke":       w.revoke,
			"read":         w.read,
			"hashRead":     w.hashRead,
			"hashCheck":    w.hashCheck,
			"restart":      func(t *rapid.T) { w.close(t); s.Restart(); w.open(t, s) },
			"mapLength":    func(t *rapid.T) { s.MapAtMost(rapid.SampledFrom([]int64{0, 512, 2560, 4096}).Draw(t, "bytes")) },
			"":             w.check,
		})
		live := 0
		for _, tok := range w.tokens {
			if tok.dead == nil && tok.token.Type().PointInTime() && tok.token.Type() != tokens.RODTypePointInTimeChangeVulnerable {
				live++
			}
		}
		if exist, open := s.Snapshots(); exist != live || open != 0 {
			t.Fatalf("%d snapshots and %d handles for %d live tokens that pin", exist, open, live)
		}
	})
}

func (w *world) open(t *rapid.T, s tokens.Store) {
	m, err := tokens.Open(ctx, tokens.Options{Store: s, Log: logs.Discard()})
	if err != nil {
		t.Fatal(fmt.Errorf("open: %w", err))
	}
	w.manager = m
}

func (w *world) close(t *rapid.T) {
	if err := w.manager.Close(); err != nil {
		t.Fatal(err)
	}
}
