package formats

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"

	"odx/backstore"
)

func open(t *testing.T, dir string) *backstore.Store {
	t.Helper()
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	s, err := backstore.Open(context.Background(), backstore.Options{Dir: filepath.Join(dir, "data"), Log: logrus.NewEntry(silent), CacheBytes: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStores: every store opens, is sound, and has what was put into it.
func TestStores(t *testing.T) {
	for _, store := range Stores(t) {
		t.Run(store.Name, func(t *testing.T) {
			s := open(t, store.Unpack(t))
			defer s.Close()
			compare(t, &store, s)
		})
	}
}

// compare proves what is in a store.
func compare(t *testing.T, want *Store, s *backstore.Store) {
	t.Helper()
	if findings, err := s.Check(context.Background()); err != nil || len(findings) > 0 {
		t.Error(findings, err)
	}
	if id := fmt.Sprintf("%x", s.ID()); id != want.StoreID || s.DedupUnit() != want.DedupUnit {
		t.Errorf("store %s with units of %d bytes, want %s, %d", id, s.DedupUnit(), want.StoreID, want.DedupUnit)
	}
	all := append(s.Volumes(), s.Files()...)
	if len(all) != len(want.Spaces) {
		t.Errorf("%d volumes and files, want %d", len(all), len(want.Spaces))
	}
	for i, v := range all {
		if i == len(want.Spaces) {
			break
		}
		origin, _ := v.Origin()
		got := Space{v.Name(), v.IsFile(), v.ReadOnly(), fmt.Sprintf("%x", v.ID()), v.Size(), origin, sum(t, v)}
		if got != want.Spaces[i] {
			t.Errorf("got %+v, want %+v", got, want.Spaces[i])
		}
	}
	var records []Record
	err := s.ScanRecords(nil, func(key, value []byte) error {
		h := sha256.Sum256(value)
		records = append(records, Record{fmt.Sprintf("%q", key), hex.EncodeToString(h[:])})
		return nil
	})
	if err != nil || fmt.Sprint(records) != fmt.Sprint(want.Records) {
		t.Errorf("records %v, %v, want %v", records, err, want.Records)
	}
}

// sum returns the SHA-256 of all bytes of a volume.
func sum(t *testing.T, v *backstore.Volume) string {
	t.Helper()
	h := sha256.New()
	for off, p := int64(0), make([]byte, 1<<20); off < v.Size(); off += int64(len(p)) {
		p = p[:min(int64(len(p)), v.Size()-off)]
		if err := v.ReadAt(context.Background(), p, off); err != nil {
			t.Fatal(err)
		}
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
