// Package oldstores has small real stores of every format, each made by a program that
// wrote it, and what was in them. They cannot be made again: later programs write later
// formats.
//
// All were made by commands and initiators: volumes, snapshots and clones, files, a
// VHDX with a child, live and ended tokens, persistent reservations, saved mode pages,
// a mirror. In "clean" the server had ended, in "dirty" it was killed, with records of
// every kind in the journal; in "checkpoint" a checkpoint was durable and had not yet
// been applied to the metadata.
package oldstores

import (
	"archive/tar"
	"compress/gzip"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata
var testdata embed.FS

// Store is what is known of a store.
type Store struct {
	Name      string
	StoreID   string   `json:"store_id"`
	DedupUnit int      `json:"dedup_unit"` // bytes
	Objects   []Object `json:"spaces"`
	Records   []Record `json:"records"`
	Tokens    []Token  `json:"tokens"`
	// Disks are the SHA-256 of what virtual disks show, by file.
	Disks map[string]string `json:"disks"`
}

// Object is a volume or a file.
type Object struct {
	Name     string `json:"name"`
	File     bool   `json:"file"`
	ReadOnly bool   `json:"read_only"`
	ID       string `json:"id"`
	Size     int64  `json:"size"`
	Origin   string `json:"origin"`
	SHA256   string `json:"sha256"` // of its bytes
}

// Record is a record of the store.
type Record struct {
	Key    string `json:"key"`    // quoted
	SHA256 string `json:"sha256"` // of its value
}

// Token is a token.
type Token struct {
	Name   string `json:"name"`
	Token  []byte `json:"token"`
	SHA256 string `json:"sha256"` // of what it stands for; empty: it was revoked
}

// Stores returns all stores.
func Stores(t testing.TB) []Store {
	t.Helper()
	entries, err := testdata.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var stores []Store
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		text, err := testdata.ReadFile("testdata/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		s := Store{Name: name}
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stores = append(stores, s)
	}
	return stores
}

// Unpack puts a store into a new directory, in its directory "data", with the
// configuration "odx.yaml" it was served with next to it.
func (s *Store) Unpack(t testing.TB) (dir string) {
	t.Helper()
	f, err := testdata.Open("testdata/" + s.Name + ".tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err == nil {
			err = unpackOne(filepath.Join(dir, filepath.FromSlash(h.Name)), h, r)
		}
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
	}
}

func unpackOne(path string, h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, 0o700)
	case tar.TypeReg, tar.TypeGNUSparse:
	default:
		return fmt.Errorf("%s: entry of type %c", h.Name, h.Typeflag)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = writeSparse(f, r)
	return errors.Join(err, f.Truncate(h.Size), f.Close())
}

// writeSparse writes what r has, without pieces that are all zeros.
func writeSparse(f *os.File, r io.Reader) error {
	piece, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); ; {
		n, err := io.ReadFull(r, piece)
		if n > 0 && string(piece[:n]) != string(zeros[:n]) {
			if _, err := f.WriteAt(piece[:n], off); err != nil {
				return err
			}
		}
		off += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
