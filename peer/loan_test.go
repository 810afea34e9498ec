package peer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"odx/backstore"
	"odx/internal/kit/must"
)

// someLoan returns a loan of n parts, from off on, and its length.
func someLoan(rng *rand.Rand, off int64, n int) (l backstore.Loan, length int64) {
	l.Place = []string{"", "disks"}[rng.IntN(2)]
	kind := -1
	for range n {
		next := rng.IntN(3)
		if next == kind && next != 2 {
			next = 2 // a writer joins those of one kind
		}
		kind = next
		p := backstore.Lent{Off: off + length, Length: 1 + rng.Int64N(1<<30), Hole: kind == 0}
		if kind == 2 {
			p.Segment, p.Block, p.Length = 1+rng.Uint32N(1<<30), 1+rng.Uint32N(1<<30), 0
			for range 1 + rng.IntN(700) {
				x := backstore.LentExtent{CRC: make([]uint32, 1+rng.IntN(maxUnit))}
				x.Fingerprint[rng.IntN(32)] = byte(rng.Uint32())
				for i := range x.CRC {
					x.CRC[i] = rng.Uint32()
				}
				p.Extents, p.Length = append(p.Extents, x), p.Length+int64(len(x.CRC))*blockLength
			}
		}
		l.Parts, length = append(l.Parts, p), length+p.Length
	}
	return l, length
}

// TestLoan_RoundTrip: what is written is read; any changed byte is an error, and so is a body that
// is cut, or of another range.
func TestLoan_RoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	for range 20 {
		off := rng.Int64N(1 << 40)
		loan, length := someLoan(rng, off, 1+rng.IntN(8))
		var b bytes.Buffer
		must.Succeed(t, writeLoan(&b, &loan))
		body := b.Bytes()
		got, err := readLoan(bytes.NewReader(body), off, length)
		must.Succeed(t, err)
		if !reflect.DeepEqual(got, loan) {
			t.Fatalf("%d parts read as %d", len(loan.Parts), len(got.Parts))
		}
		for _, other := range []int64{length - 1, length + 1} {
			if _, err := readLoan(bytes.NewReader(body), off, other); !errors.Is(err, ErrProtocol) {
				t.Errorf("of %d bytes read as of %d: %v", length, other, err)
			}
		}
		for range 20 {
			at := rng.IntN(len(body))
			if _, err := readLoan(bytes.NewReader(body[:at]), off, length); !errors.Is(err, ErrProtocol) {
				t.Errorf("cut at %d: %v", at, err)
			}
			bad := bytes.Clone(body)
			bad[at] ^= 1 << rng.IntN(8)
			if _, err := readLoan(bytes.NewReader(bad), off, length); err == nil {
				t.Errorf("byte %d changed: no error", at)
			}
		}
	}
}

// FuzzLoan: a loan from a peer is refused, or covers just what was asked for.
func FuzzLoan(f *testing.F) {
	loan, length := someLoan(rand.New(rand.NewPCG(1, 4)), 0, 3)
	var b bytes.Buffer
	must.Succeed(f, writeLoan(&b, &loan))
	f.Add(b.Bytes()[headerLength+frameHeader:], length)
	f.Add([]byte{loanPlace, 0, loanHole, 5}, int64(5))
	f.Fuzz(func(t *testing.T, payload []byte, length int64) {
		if len(payload) > maxRecords || length < 0 {
			return
		}
		var body bytes.Buffer
		w := newFrameWriter(&body, bodyLoan)
		if len(payload) > 0 {
			must.Succeed(t, w.content(payload))
		}
		must.Succeed(t, w.end(nil))
		loan, err := readLoan(&body, 0, length)
		if err != nil {
			return
		}
		at := int64(0)
		for _, p := range loan.Parts {
			if p.Off != at || p.Length <= 0 || (p.Segment != 0) != (len(p.Extents) > 0) {
				t.Fatalf("%+v at %d", p, at)
			}
			at += p.Length
		}
		if at != length {
			t.Fatalf("%d bytes, want %d", at, length)
		}
		var again bytes.Buffer
		must.Succeed(t, writeLoan(&again, &loan))
		if got, err := readLoan(&again, 0, length); err != nil || !reflect.DeepEqual(got, loan) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}
