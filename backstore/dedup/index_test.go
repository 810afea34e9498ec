package dedup

import (
	"encoding/binary"
	"testing"

	"odx/backstore/extent"
)

func fingerprint(n uint64) *extent.Fingerprint {
	var fp extent.Fingerprint
	binary.LittleEndian.PutUint64(fp[:], n*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(fp[8:], n)
	return &fp
}

func TestIndex_Lookup(t *testing.T) {
	x := New(1 << 20)
	for n := uint64(1); n <= 1000; n++ {
		x.Insert(fingerprint(n), extent.ID(n))
	}
	for n := uint64(1); n <= 1000; n++ {
		if got := x.Lookup(fingerprint(n)); got != extent.ID(n) {
			t.Errorf("Lookup(%d) = %d", n, got)
		}
	}
	if got := x.Lookup(fingerprint(5000)); got != 0 {
		t.Errorf("Lookup of a fingerprint that was not inserted = %d, want 0", got)
	}
}

func TestIndex_InsertReplaces(t *testing.T) {
	x := New(1)
	x.Insert(fingerprint(1), 10)
	x.Insert(fingerprint(1), 11)
	if got := x.Lookup(fingerprint(1)); got != 11 {
		t.Errorf("Lookup = %d, want the newer 11", got)
	}
}

func TestIndex_EvictionKeepsHits(t *testing.T) {
	x := New(1)
	x.Insert(fingerprint(0), 1)
	for n := uint64(1); n < 100_000; n++ {
		x.Insert(fingerprint(n), extent.ID(n+1))
		if x.Lookup(fingerprint(0)) != 1 {
			t.Fatalf("entry with hits evicted after %d inserts, capacity %d", n, x.Entries())
		}
	}
}

func BenchmarkIndex_Lookup(b *testing.B) {
	x := New(64 << 20)
	fp := fingerprint(3)
	x.Insert(fp, 3)
	b.ReportAllocs()
	for b.Loop() {
		if x.Lookup(fp) != 3 {
			b.Fatal("entry evicted")
		}
	}
}
