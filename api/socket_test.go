package api

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"odx/admin"
)

// TestServer_ServeSocket: a server whose socket cannot be made yet, as on a full disk
// that has no inode left, makes it when it can, and can be shut down before.
func TestServer_ServeSocket(t *testing.T) {
	dir := t.TempDir()
	inTheWay := filepath.Join(dir, socketName, "file")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	early := NewServer(serving(t, s.Admin()))
	early.ServeSocket(dir)
	if err := early.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown without a socket: %v", err)
	}
	if _, err := os.Stat(inTheWay); err != nil {
		t.Errorf("what has the name of the socket: %v", err)
	}
	_, client := serve(t, dir, s)
	if _, err := client.StoreInfo(t.Context()); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("without a socket: %v, want ErrNotRunning", err)
	}
	if err := os.RemoveAll(filepath.Dir(inTheWay)); err != nil {
		t.Fatal(err)
	}
	for ticker := time.NewTicker(20 * time.Millisecond); ; {
		_, err := client.StoreInfo(t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, admin.ErrNotRunning) {
			t.Fatal(err)
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal("the socket was never made")
		}
	}
}
