//go:build e2e

package peers

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	// movedIQN is the target whose LUN moves: it has the same name on both servers.
	movedIQN = kit.IQN + "-moved"
	movedMiB = 48
	// pieces is how many pieces of the LUN the writer writes, each of pieceLength bytes.
	pieces      = 1024
	pieceLength = 16 << 10
)

// host is a host with a disk on a LUN that moves: it writes and verifies without a pause, and
// logs in again where its session ends, at the portal that it knows, or else the other one.
type host struct {
	t       *testing.T
	portals []string
	s       *tokenclient.Session
	logins  int
	model   [pieces]uint64 // what each piece has; 0: what was there
	n       uint64
	// paths: a path by which the LUN cannot be reached for now is no error, as for multipath.
	paths   bool
	steps   chan struct{} // gets a value after a step, if it is empty
	longest time.Duration // of a command with its repetitions
}

func (h *host) url(portal string) string { return portal + "/" + movedIQN + "/0" }

// login logs in by the first portal that has the LUN.
func (h *host) login() {
	h.t.Helper()
	for end := time.Now().Add(patience); ; {
		for _, p := range h.portals {
			s, err := harness.Client(h.t).Open("iscsi://"+h.url(p), tokenclient.OpenOptions{})
			if err == nil {
				h.s = s
				h.logins++
				return
			}
			if time.Now().After(end) {
				h.t.Fatalf("login: %v", err)
			}
		}
	}
}

// do does a command until it has succeeded.
func (h *host) do(what string, command func() (tokenclient.Answer, error)) {
	h.t.Helper()
	began := time.Now()
	for {
		a, err := command()
		switch {
		case err == nil && a.Good():
			h.longest = max(h.longest, time.Since(began))
			return
		case err != nil, a.Status == busy: // a session that ends
			h.login()
		case a.Sense.Key == 6: // a unit attention is an event
		case h.paths && a.Sense.Key == 2 && a.Sense.ASC == 4:
			h.login()
		default:
			h.t.Fatalf("%s: %v", what, a)
		}
		if time.Since(began) > patience {
			h.t.Fatalf("%s: still %v, %v after %v", what, a, err, patience)
		}
	}
}

// step writes a piece and reads another one back.
func (h *host) step(rng *rand.Rand) {
	h.t.Helper()
	h.n++
	i, p := rng.IntN(pieces), make([]byte, pieceLength)
	const blocks = pieceLength / blockLength
	stamp(p, h.n)
	h.do("write", func() (tokenclient.Answer, error) {
		return h.s.Write(bytes.NewReader(p), uint64(i*blocks), blocks, tokenclient.WriteOptions{})
	})
	h.model[i] = h.n
	h.verify(rng.IntN(pieces))
	select {
	case h.steps <- struct{}{}:
	default:
	}
}

// goesOn waits until more was written.
func (h *host) goesOn() {
	h.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for range 50 {
		select {
		case <-h.steps:
		case <-limit.C:
			h.t.Fatalf("the host has not written for %v", patience)
		}
	}
}

func stamp(p []byte, n uint64) {
	for off := 0; off < len(p); off += 8 {
		binary.BigEndian.PutUint64(p[off:], n)
	}
}

func (h *host) verify(i int) {
	h.t.Helper()
	const blocks = pieceLength / blockLength
	var got bytes.Buffer
	h.do("read", func() (tokenclient.Answer, error) {
		got.Reset()
		return h.s.Read(&got, uint64(i*blocks), blocks)
	})
	want := make([]byte, pieceLength)
	if stamp(want, h.model[i]); h.model[i] != 0 && !bytes.Equal(got.Bytes(), want) {
		h.t.Fatalf("piece %d has write %d, want write %d", i, binary.BigEndian.Uint64(got.Bytes()), h.model[i])
	}
}

// run writes until stop is closed, then verifies all.
func (h *host) run(seed uint64, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(19, seed))
	for {
		select {
		case <-stop:
			for i := range pieces {
				h.verify(i)
			}
			return
		default:
			h.step(rng)
		}
	}
}

// moving makes two servers, of which the first has a LUN that is to move.
func moving(t *testing.T) (c *cluster.Cluster, h *host) {
	t.Helper()
	c = servers(t, mib, "a", "b")
	a, b := c.Servers[0], c.Servers[1]
	harness.Must(t, a.AddTarget(t.Context(), map[string]any{"name": movedIQN, "luns": []any{map[string]any{"lun": 0, "volume": "disk0", "size": fmt.Sprintf("%dMiB", movedMiB)}}}))
	harness.Must(t, b.AddTarget(t.Context(), map[string]any{"name": movedIQN, "redirect": map[string]any{"to": a.Portal}}))
	h = &host{t: t, portals: []string{a.Portal}, steps: make(chan struct{}, 1)}
	h.login()
	p := make([]byte, movedMiB*mib)
	random(p, 1)
	w, err := h.s.Write(bytes.NewReader(p), 0, movedMiB*perMiB, tokenclient.WriteOptions{})
	good(t, "write", w, err)
	return c, h
}

// migration is what a server says of the only one that it has.
func migration(t *testing.T, s *cluster.Server) kit.Migration {
	t.Helper()
	var list []kit.Migration
	harness.Must(t, s.Admin(t.Context(), &list, "volume", "migrate", "list"))
	if len(list) != 1 {
		t.Fatalf("server %s has %d migrations", s.Name, len(list))
	}
	return list[0]
}

// settled requires that no server keeps anything of a migration.
func settled(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, s := range c.Servers {
		unpinned(t, s, time.Minute)
		var list []any
		harness.Must(t, s.Admin(t.Context(), &list, "replicate", "list"))
		var info struct {
			Snapshots int `json:"snapshots"`
		}
		harness.Must(t, s.Admin(t.Context(), &info, "store", "info"))
		if len(list) != 0 || info.Snapshots != 0 {
			t.Errorf("server %s has %d pairs and %d snapshots", s.Name, len(list), info.Snapshots)
		}
		sound(t, s)
	}
}

// TestMigrate: a LUN moves to another server while libiscsi writes and verifies, which is
// redirected there: it logs in once more, and no command fails. The LUN is the same disk, and
// a token from before is good there.
func TestMigrate(t *testing.T) {
	c, h := moving(t)
	a, b := c.Servers[0], c.Servers[1]
	before := identity(t, "iscsi://"+h.url(a.Portal))
	token, err := h.s.Token(tokenclient.Range{LBA: pieces * pieceLength / blockLength, Blocks: 4 * perMiB})
	harness.Must(t, err)
	stop, writing := make(chan struct{}), sync.WaitGroup{}
	writing.Go(func() { h.run(1, stop) })
	harness.Must(t, a.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "start", "disk0", "b:disk1", "--portal", b.Portal))
	awaitLog(t, a, 0, patience, "migration: the LUN has moved")
	m := migration(t, a)
	if m.State != "moved" {
		t.Errorf("the migration is %s", m.State)
	}
	h.goesOn()
	close(stop)
	writing.Wait()
	t.Logf("%d writes; %d rounds; commands were held for %.0f ms; the longest command took %v with its repetitions; %d logins", h.n, m.Rounds, m.CutSeconds*1000, h.longest, h.logins)
	if h.logins != 2 {
		t.Errorf("the host has logged in %d times, want twice", h.logins)
	}
	// The transport ends a session 2 s after it has asked the initiator to log out.
	if m.CutSeconds > 1 || h.longest > 4*time.Second {
		t.Errorf("commands were held for %g s, and the longest took %v", m.CutSeconds, h.longest)
	}
	if after := identity(t, "iscsi://"+h.url(b.Portal)); after != before {
		t.Errorf("the disk was %s, and is %s", before, after)
	}
	_, err = h.s.Spend(token, tokenclient.Range{LBA: 40 * perMiB, Blocks: 4 * perMiB})
	harness.Must(t, err)
	want := make([]byte, movedMiB*mib)
	random(want, 1)
	var got bytes.Buffer
	r, err := h.s.Read(&got, 40*perMiB, 4*perMiB)
	good(t, "read", r, err)
	if !bytes.Equal(got.Bytes(), want[pieces*pieceLength:pieces*pieceLength+4*mib]) {
		t.Error("a token from before the move stands for other data")
	}
	harness.Must(t, a.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "finish", "disk0"))
	for _, name := range volumes(t, a) {
		if name == "disk0" {
			t.Error("the source has the volume yet")
		}
	}
	var tokens []struct {
		ID string `json:"id"`
	}
	harness.Must(t, a.Admin(t.Context(), &tokens, "token", "list"))
	for _, token := range tokens {
		harness.Must(t, a.Admin(t.Context(), nil, "token", "delete", token.ID))
	}
	settled(t, c)
}

// TestMigrate_Faults: a LUN moves to and fro while either server is killed, or the network
// drops all packets, at any time. The host, which knows both portals, finds all that it has
// written, at one of them.
func TestMigrate_Faults(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 8))
	c, h := moving(t)
	from, to := c.Servers[0], c.Servers[1]
	h.portals, h.paths = []string{from.Portal, to.Portal}, true
	stop, writing := make(chan struct{}), sync.WaitGroup{}
	writing.Go(func() { h.run(2, stop) })
	volume := "disk0"
	for i := range max(1, *faults/2) {
		for kind, fault := range []func(){
			func() { killMoving(t, to) },
			func() { cutFor(t, 2*time.Second, from.Host.Drop, from.Host.Pass) },
			func() { killMoving(t, from) }, // last: what it keeps for a server that is gone ends with it
		} {
			what := fmt.Sprintf("round %d, fault %d", i, kind)
			next := fmt.Sprintf("disk%d", 10*i+kind+1)
			harness.Must(t, from.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "start", volume, to.Name+":"+next, "--portal", to.Portal))
			begun, at := counted(t, to), rng.Int64N(3*movedMiB/2*mib)
			until(t, patience, what+": it has come so far", func() bool { return counted(t, to) >= begun+at || migration(t, from).State == "moved" })
			state := migration(t, from).State
			fault()
			until(t, patience, what+": the LUN has moved", func() bool {
				if t.Failed() {
					t.FailNow()
				}
				return migration(t, from).State == "moved"
			})
			m := migration(t, from)
			t.Logf("%s after %d bytes, while it was %s: %d rounds, commands held for %.0f ms; %d logins", what, at, state, m.Rounds, m.CutSeconds*1000, h.logins)
			h.goesOn()
			harness.Must(t, from.Admin(t.Context(), new(kit.Migration), "volume", "migrate", "finish", volume))
			from, to, volume = to, from, next
		}
	}
	close(stop)
	writing.Wait()
	t.Logf("%d writes, %d logins, the longest command took %v with its repetitions", h.n, h.logins, h.longest)
	settled(t, c)
}

// killMoving kills a server and starts it with the configuration that it has left.
func killMoving(t *testing.T, s *cluster.Server) {
	t.Helper()
	harness.Must(t, s.Kill(), s.KeepTargets(), s.Restart(t.Context()))
}
