package clients

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestDamage checks what the e2e test relies on: the same seed gives the same
// bytes, most PDUs come out changed, and none too short for the next damage.
func TestDamage(t *testing.T) {
	make := func(seed uint64) (all [][]byte, changed int) {
		s := &session{rand: rand.New(rand.NewPCG(seed, 0))}
		for range 1000 {
			valid := s.next()
			broken := damage(s.rand, bytes.Clone(valid))
			if len(broken) < headerLength {
				t.Fatalf("%d bytes left of a PDU", len(broken))
			}
			if !bytes.Equal(valid, broken) {
				changed++
			}
			all = append(all, broken)
		}
		return all, changed
	}
	first, changed := make(7)
	second, _ := make(7)
	for i := range first {
		if !bytes.Equal(first[i], second[i]) {
			t.Fatalf("PDU %d differs between two runs of one seed", i)
		}
	}
	if changed < 900 {
		t.Errorf("only %d of 1000 PDUs were changed", changed)
	}
}

func TestPDULayout(t *testing.T) {
	b := pdu([headerLength]byte{0: opText}, []byte{0, 1, 2, 3}, []byte("a=b\x00c"))
	if len(b) != headerLength+4+8 || b[4] != 1 || b[7] != 5 || b[headerLength+4] != 'a' {
		t.Errorf("% x", b)
	}
}
