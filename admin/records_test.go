package admin

import (
	"bytes"
	"context"
	"testing"

	"odx/backstore"
)

func TestUnitRecordsOutliveTheStore(t *testing.T) {
	ctx := context.Background()
	o := backstore.Options{Dir: t.TempDir()}
	open := func() *backstore.Store {
		s, err := backstore.Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b := [16]byte{1}, [16]byte{2}
	s := open()
	for _, id := range [][16]byte{a, b} {
		r := NewUnitRecords(s, id)
		if v, err := r.Load("modes"); v != nil || err != nil {
			t.Fatalf("nothing was saved, but there is %x, %v", v, err)
		}
		if err := r.Save(ctx, "modes", []byte{id[0], 42}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if v, err := NewUnitRecords(s, a).Load("modes"); err != nil || !bytes.Equal(v, []byte{1, 42}) {
		t.Errorf("%x, %v", v, err)
	}
	if err := forgetUnit(ctx, s, a); err != nil {
		t.Fatal(err)
	}
	if v, err := NewUnitRecords(s, a).Load("modes"); err != nil || v != nil {
		t.Errorf("forgotten: %x, %v", v, err)
	}
	r := NewUnitRecords(s, b)
	if v, err := r.Load("modes"); err != nil || !bytes.Equal(v, []byte{2, 42}) {
		t.Errorf("of the other unit: %x, %v", v, err)
	}
	if err := r.Save(ctx, "modes", nil); err != nil {
		t.Fatal(err)
	}
	if v, err := r.Load("modes"); err != nil || v != nil {
		t.Errorf("removed: %x, %v", v, err)
	}
}
