package target

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/owner"
)

// A server whose store is not its own any more ends its sessions, answers nothing to new
// ones, and says so. What it acknowledged is found by the next owner.
func TestService_LosesItsStore(t *testing.T) {
	cfg := parse(t, t.TempDir(), fmt.Sprintf(disks, `"127.0.0.1:0"`))
	s, err := Start(t.Context(), cfg, logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	c := session(t, s, "iqn.2026-11.example:one")
	defer c.Close()
	block := random(1, 512)
	write := []byte{0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	if err := run(t, c, write, block); err != nil {
		t.Fatal(err)
	}
	// What leads to its files is another store's from now on.
	away := cfg.DataDir + "-away"
	if err := errors.Join(os.Rename(cfg.DataDir, away), os.Mkdir(cfg.DataDir, 0o700)); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.Failed():
		if !errors.Is(err, owner.ErrLost) {
			t.Errorf("failed: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the loss is not noticed")
	}
	if err := run(t, c, make([]byte, 6), nil); err == nil {
		t.Error("a session that was open is answered")
	}
	if again, err := tryDial(t, s.LUNs()[0].URLs[0], "iqn.2026-11.example:two"); err == nil {
		again.Close()
		t.Error("a login is answered")
	}
	if err := s.Stop(t.Context()); !errors.Is(err, owner.ErrLost) {
		t.Errorf("stop: %v", err)
	}
	if names, err := os.ReadDir(cfg.DataDir); err != nil || len(names) > 0 {
		t.Errorf("%v, %v, want nothing in the directory of the other store", names, err)
	}

	if err := errors.Join(os.Remove(cfg.DataDir), os.Rename(away, cfg.DataDir)); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	c = session(t, s, "iqn.2026-11.example:one")
	defer c.Close()
	read := &client.Command{CDB: []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, In: make([]byte, 512)}
	if err := c.Do(t.Context(), read); err != nil || string(read.In) != string(block) {
		t.Errorf("%v, equal %v", err, string(read.In) == string(block))
	}
	if epoch := s.store.Epoch(); epoch != 2 {
		t.Errorf("epoch %d", epoch)
	}
}
