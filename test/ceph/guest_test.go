//go:build rados

package ceph_test

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
	"odx/internal/kit/must"
)

//go:embed guest.sh
var guestScript string

// guestLimit is how long the guest may take, on a busy machine.
const guestLimit = 3 * time.Minute

// guestMoves are the ways in which TestShards_LinuxInitiator has a shard moved.
var guestMoves = flag.String("guest-moves", "drain move", "how TestShards_LinuxInitiator moves a shard, one after the other: drain, move and handover, of which move is back")

// TestShards_LinuxInitiator moves a shard, and moves it back, under fio in the Linux guest, whose
// initiator has discovered the target and logged in at a node, and was sent to the shard: fio finds
// no error, and the store is sound.
func TestShards_LinuxInitiator(t *testing.T) {
	harness.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	harness.Program(t, "apt-get", "apt")
	ctx, cancel := context.WithTimeout(t.Context(), guestLimit)
	defer cancel()
	image, err := guest.Build(ctx)
	if err != nil {
		harness.Missing(t, err.Error())
	}
	s := newSharers(t, "a", "b")
	s.start("a", "b")
	s.await(map[string]int{"a": 3, "b": 3})
	owners := s.owners()
	shard := slices.Index(owners[:], "a")

	// The machine reaches what its emulator does.
	script := fmt.Sprintf("PORTAL=%s IQN=%s MOVES=%q\n%s", s.nodes["a"].portal, s.target(shard), *guestMoves, guestScript)
	var m *guest.Machine
	must.Succeed(t, s.client.Do(func() (err error) {
		m, err = image.Start(ctx, script, guest.Setup{
			With:   []guest.Layer{guest.Fio},
			Answer: func(question string) (string, error) { return s.guestAsks(question, shard) },
		})
		return err
	}))
	r, err := m.Wait()
	t.Log(r.Output)
	must.Succeed(t, err)
	if r.Status != 0 {
		t.Errorf("the script ended with exit status %d", r.Status)
	}
	t.Log(s.command(s.owners()[shard], "store", "check", "--shard", strconv.Itoa(shard)))
}

// guestAsks does what the guest asks for, and returns the portal of a shard.
func (s *sharers) guestAsks(question string, shard int) (string, error) {
	commands := map[string][][]string{
		"drain":    {{"drain", "a"}, {"undrain", "a"}},
		"move":     {{"move", strconv.Itoa(shard), "a"}},
		"handover": {{"handover", "--node", "a"}},
	}[question]
	if commands == nil && question != "at" {
		return "", fmt.Errorf("what is %q?", question)
	}
	for _, c := range commands {
		if out, err := s.nodes["a"].run(append([]string{"cluster"}, c...)...); err != nil {
			return "", fmt.Errorf("%v: %w: %s", c, err, strings.TrimSpace(out))
		}
	}
	f, err := s.facts.Load()
	if err != nil {
		return "", err
	}
	n := s.nodes[f.Owners[shard].Node]
	if n == nil {
		return "", fmt.Errorf("no node has shard %d", shard)
	}
	return fmt.Sprintf("%s:%d", n.host.Address, 3261+shard), nil
}
