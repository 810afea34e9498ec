package peer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/must"
	"odx/tokens"
)

// someRuns returns runs that follow each other from 0 on.
func someRuns(rng *rand.Rand, n, blocks int) (runs []backstore.Run, length int64) {
	for range n {
		r := backstore.Run{Off: length}
		switch rng.IntN(3) {
		case 0:
			r.Hole, r.Length = true, 1+rng.Int64N(1<<30)
		case 1:
			r.Length = 1 + rng.Int64N(10000)
		default:
			r.Series = uint64(rng.IntN(3))
			next := uint64(1 + rng.Int64N(1<<40))
			for range 1 + rng.IntN(blocks) {
				if rng.IntN(4) == 0 {
					next = 1 + uint64(rng.Int64N(1<<50))
				}
				r.Slots, r.CRC = append(r.Slots, next), append(r.CRC, rng.Uint32())
				next++
			}
			r.Length = int64(len(r.Slots)) * blockLength
		}
		runs, length = append(runs, r), length+r.Length
	}
	return runs, length
}

// encodeRuns returns the body of runs.
func encodeRuns(t testing.TB, runs []backstore.Run) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newRunWriter(&b)
	for _, r := range runs {
		must.Succeed(t, w.add(r))
	}
	must.Succeed(t, w.end(nil))
	return b.Bytes()
}

// collect reads a body of runs of length bytes.
func collect(body []byte, length int64) (runs []backstore.Run, err error) {
	var all []blockdev.Range
	if length > 0 {
		all = []blockdev.Range{{Length: length}}
	}
	err = new(runReader).read(bytes.NewReader(body), all, func(r backstore.Run) error {
		r.Slots, r.CRC = slices.Clone(r.Slots), slices.Clone(r.CRC)
		runs = append(runs, r)
		return nil
	})
	return runs, err
}

// TestRuns_RoundTrip: what is written is read, whatever it is; any changed byte is an error,
// and so is a body that is cut.
func TestRuns_RoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		runs, length := someRuns(rng, 1+rng.IntN(40), backstore.MaxRunBlocks)
		body := encodeRuns(t, runs)
		got, err := collect(body, length)
		must.Succeed(t, err)
		if !slices.EqualFunc(got, runs, func(a, b backstore.Run) bool {
			return a.Off == b.Off && a.Length == b.Length && a.Hole == b.Hole && a.Series == b.Series && slices.Equal(a.Slots, b.Slots) && slices.Equal(a.CRC, b.CRC)
		}) {
			t.Fatalf("%d runs came as %d others", len(runs), len(got))
		}
		for range 20 {
			bad := slices.Clone(body)
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
			if _, err := collect(bad, length); !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrDown) {
				t.Fatalf("a changed bit: %v", err)
			}
			if _, err := collect(body[:rng.IntN(len(body))], length); !errors.Is(err, ErrProtocol) {
				t.Fatalf("a cut body: %v", err)
			}
		}
		for _, other := range []int64{length - 1, length + 1, length / 2} {
			if _, err := collect(body, other); !errors.Is(err, ErrProtocol) {
				t.Fatalf("%d bytes of %d: %v", other, length, err)
			}
		}
		if _, err := collect(append(slices.Clone(body), 0), length); !errors.Is(err, ErrProtocol) {
			t.Fatalf("a byte more: %v", err)
		}
	}
}

// TestFailure_Kinds: an error of a peer is the same error here, in a body and without one.
func TestFailure_Kinds(t *testing.T) {
	for _, k := range kinds {
		if k.cause == ErrProtocol {
			continue // to the other side, it is its own fault
		}
		if err := errorOf(failureOf(k.cause)); !errors.Is(err, k.cause) {
			t.Errorf("%v came as %v", k.cause, err)
		}
		var b bytes.Buffer
		must.Succeed(t, newRunWriter(&b).end(k.cause))
		if _, err := collect(b.Bytes(), 0); !errors.Is(err, k.cause) {
			t.Errorf("%v came as %v", k.cause, err)
		}
	}
	if err := errorOf(failureOf(fmt.Errorf("copy: %w", tokens.ErrOffset))); !errors.Is(err, tokens.ErrOffset) {
		t.Errorf("an offset past the end came as %v", err)
	}
	if err := errorOf(failureOf(io.ErrNoProgress)); !errors.Is(err, ErrDown) {
		t.Errorf("another error came as %v", err)
	}
	if err := errorOf(failureOf(tokens.ErrRevoked)); errors.Is(err, tokens.ErrExpired) {
		t.Errorf("revoked is expired: %v", err)
	}
}

// FuzzRuns: a body of runs from a peer is refused or gives runs that cover just what was asked
// for, with one name for each block.
func FuzzRuns(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 4 {
		runs, length := someRuns(rng, 5, 20) // small, so that most of the time is not spent with copies of them
		f.Add(encodeRuns(f, runs), length)
	}
	f.Fuzz(func(t *testing.T, body []byte, length int64) {
		if length < 0 || length > maxWindow {
			return
		}
		for _, body := range [][]byte{body, sealed(bodyRuns, body)} {
			runs, err := collect(body, length)
			if err != nil {
				continue
			}
			var at int64
			for _, r := range runs {
				if r.Off != at || r.Length <= 0 || r.Named() && (int64(len(r.Slots))*blockLength != r.Length || len(r.CRC) != len(r.Slots)) {
					t.Fatalf("run %+v at %d", r, at)
				}
				at += r.Length
			}
			if at != length {
				t.Fatalf("%d bytes of %d", at, length)
			}
		}
	})
}

// sealed returns p as the content of a body, so that the decoder sees behind the checksums.
func sealed(kind byte, p []byte) []byte {
	var b bytes.Buffer
	w := newFrameWriter(&b, kind)
	if len(p) > 0 && len(p) <= maxRecords {
		_ = w.content(p)
	}
	_ = w.end(nil)
	return b.Bytes()
}

// FuzzBytes: a body of bytes from a peer is refused or fills the buffer.
func FuzzBytes(f *testing.F) {
	f.Add(sealed(bodyBytes, []byte("some bytes")), 10)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		if n < 0 || n > 1<<16 {
			return
		}
		for _, body := range [][]byte{body, sealed(bodyBytes, body)} {
			if err := readBytes(bytes.NewReader(body), make([]byte, n)); err == nil && len(body) < n {
				t.Fatalf("%d bytes out of %d", n, len(body))
			}
		}
	})
}

// FuzzDifferences: a body of differences from a peer is refused, or they are in order and
// inside what was asked for.
func FuzzDifferences(f *testing.F) {
	var b bytes.Buffer
	w := newDifferenceWriter(&b, 100)
	must.Succeed(f, w.add(backstore.Difference{Range: blockdev.Range{Offset: 4096, Length: 4096}, Hole: true}), w.end(nil))
	f.Add(b.Bytes(), int64(100), int64(1<<20))
	f.Fuzz(func(t *testing.T, body []byte, off, length int64) {
		if off < 0 || length < 0 || length > maxWindow || off > maxWindow {
			return
		}
		for _, body := range [][]byte{body, sealed(bodyDifferences, body)} {
			at := off
			_ = readDifferences(bytes.NewReader(body), off, length, func(d backstore.Difference) error {
				if d.Offset < at || d.Length <= 0 || d.End() > off+length {
					t.Fatalf("difference %+v at %d", d, at)
				}
				at = d.End()
				return nil
			})
		}
	})
}

// FuzzFingerprintRequest: a request for fingerprints is refused, or its unit is one that a store can
// have; what is accepted reads the same when it is written.
func FuzzFingerprintRequest(f *testing.F) {
	f.Add(fingerprintRequest([32]byte{1, 2}, 8192))
	f.Add(fingerprintRequest([32]byte{3}, 3*4096))
	f.Fuzz(func(t *testing.T, body []byte) {
		key, unit, err := parseFingerprintRequest(bytes.NewReader(body))
		if err != nil {
			if !errors.Is(err, blockdev.ErrInvalid) {
				t.Fatalf("%v has no kind", err)
			}
			return
		}
		if unit < 4096 || unit > 65536 || unit&(unit-1) != 0 {
			t.Fatalf("unit of %d bytes", unit)
		}
		if again := fingerprintRequest(key, int(unit)); !bytes.Equal(again, body[:len(again)]) {
			t.Fatalf("%x is written as %x", body, again)
		}
	})
}

// FuzzRanges: a request for ranges is refused, or they are inside what is held and within the
// bounds.
func FuzzRanges(f *testing.F) {
	var b bytes.Buffer
	must.Succeed(f, writeRanges(&b, []blockdev.Range{{Offset: 4096, Length: 4096}, {Offset: 0, Length: 1}}))
	f.Add(b.Bytes(), int64(1<<20))
	f.Fuzz(func(t *testing.T, body []byte, size int64) {
		if size < 0 {
			return
		}
		for _, body := range [][]byte{body, sealed(bodyRanges, body)} {
			ranges, total, err := parseRanges(bytes.NewReader(body), size, maxReadBytes)
			if err != nil {
				continue
			}
			if sum(ranges) != total || total > maxReadBytes || len(ranges) > MaxRanges {
				t.Fatalf("%d ranges of %d bytes", len(ranges), total)
			}
			for _, r := range ranges {
				if !r.In(size) {
					t.Fatalf("range %+v of %d bytes", r, size)
				}
			}
		}
	})
}
