//go:build e2e

package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	replicaMiB  = 32
	replicaRate = 80e6 // bits a second of the link while a fault comes
	// replicaName is that of the pair, and of the volume of its replica.
	replicaName = "copy"
)

// replicaState is what a server says of its side of a pair.
type replicaState struct {
	Name   string `json:"name"`
	Role   string `json:"role"`
	Pinned int    `json:"pinned_snapshots"`
	Last   *struct {
		Error string `json:"error"`
		Bytes struct {
			Differ  int64 `json:"differ_bytes"`
			Network int64 `json:"network_bytes"`
		} `json:"bytes"`
	} `json:"last_round"`
}

func replicaOf(t *testing.T, s *cluster.Server) replicaState {
	t.Helper()
	var list []replicaState
	harness.Must(t, s.Admin(t.Context(), &list, "replicate", "list"))
	if len(list) != 1 || list[0].Name != replicaName {
		t.Fatalf("server %s has the replicas %v", s.Name, list)
	}
	return list[0]
}

func replicate(t *testing.T, s *cluster.Server, args ...string) {
	t.Helper()
	harness.Must(t, s.Admin(t.Context(), nil, append([]string{"replicate"}, args...)...))
}

// followed makes a replica on B of a LUN of A, and serves it.
func followed(t *testing.T, c *cluster.Cluster) (a *disk) {
	t.Helper()
	a = newDisk(t, c.Servers[0], 0)
	a.fill(1, 0, replicaMiB/2)
	replicate(t, c.Servers[1], "start", "a", "vol0", replicaName)
	harness.Must(t, c.Servers[1].Admin(t.Context(), nil, "lun", "add", c.Servers[1].IQN, replicaName, "--lun", fmt.Sprint(copyLUN)), c.Servers[1].Keep())
	return a
}

// content reads all of a LUN.
func content(t *testing.T, url string) []byte {
	t.Helper()
	s := harness.Open(t, harness.Client(t), url)
	var got bytes.Buffer
	a, err := s.Read(&got, 0, s.Blocks)
	good(t, "read", a, err)
	return got.Bytes()
}

// keepsOnly requires that each server has one snapshot for the pair, holds nothing, and has
// no volume but those that it shows.
func keepsOnly(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, s := range c.Servers {
		unpinned(t, s, time.Minute)
		if r := replicaOf(t, s); r.Pinned != 1 {
			t.Errorf("server %s keeps %d snapshots for the replica, want 1", s.Name, r.Pinned)
		}
		var info struct {
			Snapshots int   `json:"snapshots"`
			Logical   int64 `json:"logical_bytes"`
			Volumes   []struct {
				Mapped int64 `json:"mapped_bytes"`
			} `json:"volumes"`
		}
		harness.Must(t, s.Admin(t.Context(), &info, "store", "info"))
		for _, v := range info.Volumes {
			info.Logical -= v.Mapped
		}
		if info.Snapshots != 1 || info.Logical != 0 {
			t.Errorf("server %s has %d snapshots, want 1, and %d bytes of hidden volumes", s.Name, info.Snapshots, info.Logical)
		}
	}
}

// TestReplicate: a replica is brought up to date, round after round. Only what changed
// crosses the wire, qemu-img finds no difference, and nothing but one snapshot is kept.
func TestReplicate(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 4))
	c := servers(t, replicaMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := followed(t, c)
	compare(t, first.URL(0), copyURL(second))
	for round := range *rounds {
		changed := a.history(rng, 10)
		n := crossed(t, second, func() { replicate(t, second, "run", replicaName) })
		r := replicaOf(t, second)
		t.Logf("round %d: %d bytes crossed the wire for %d (%+v)", round, n, changed, r.Last.Bytes)
		if n > changed*102/100+32<<10 { // with the headers of TCP and IP, and acknowledgements
			t.Errorf("round %d: %d bytes crossed the wire for %d", round, n, changed)
		}
		compare(t, first.URL(0), copyURL(second))
	}
	n := crossed(t, second, func() { replicate(t, second, "run", replicaName) })
	t.Logf("%d bytes crossed the wire where nothing had changed", n)
	if n > 32<<10 {
		t.Errorf("%d bytes crossed the wire where nothing had changed", n)
	}
	keepsOnly(t, c)
	allSound(t, c)
}

// allSound requires that every reference of the servers' stores is right.
func allSound(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, s := range c.Servers {
		sound(t, s)
	}
}

// TestReplicate_Faults: a round that a cut network or a killed server ends leaves the replica
// as it was, or as the source is, and the next one goes on.
func TestReplicate_Faults(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 5))
	c := servers(t, replicaMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := followed(t, c)
	for i := range *faults {
		for kind, fault := range []func(){
			func() { kill(t, second) },
			func() { cutFor(t, 4*time.Second, first.Host.Drop, first.Host.Pass) },
			func() { kill(t, first) }, // last: what it keeps for a server that is gone ends with it
		} {
			what := fmt.Sprintf("round %d, fault %d", i, kind)
			a.again(first, 0)
			before := slices.Clone(a.want)
			a.fill(rng.Uint64(), 0, replicaMiB)
			harness.Must(t, first.Host.Rate(replicaRate))
			begun := counted(t, second)
			at := int64(1+rng.IntN(replicaMiB-8)) * mib
			ended, start := make(chan error, 1), time.Now()
			go func() {
				ended <- second.Admin(context.WithoutCancel(t.Context()), nil, "replicate", "run", replicaName)
			}()
			harness.Must(t, awaitBytes(t, second, begun+at, ended))
			fault()
			err := <-ended
			harness.Must(t, first.Host.Rate(0))
			t.Logf("%s at byte %d: %v after %v", what, at, err, time.Since(start))
			switch got := content(t, copyURL(second)); {
			case bytes.Equal(got, a.want):
			case !bytes.Equal(got, before):
				t.Fatalf("%s: the replica is neither as it was nor as the source is", what)
			case err == nil:
				t.Fatalf("%s: the round has ended well, and the replica is as it was", what)
			}
			begun, start = counted(t, second), time.Now()
			until(t, patience, what+": the next round ends well", func() bool {
				err = second.Admin(t.Context(), nil, "replicate", "run", replicaName)
				return err == nil
			})
			t.Logf("%s: %d bytes crossed in the next round, after %v", what, counted(t, second)-begun, time.Since(start))
			a.again(first, 0)
			compare(t, first.URL(0), copyURL(second))
		}
	}
	keepsOnly(t, c)
	allSound(t, c)
}

// identity is what INQUIRY says a LUN is: the serial number, and the designators of the
// logical unit, not those of the port.
func identity(t *testing.T, url string) string {
	t.Helper()
	s := harness.Open(t, harness.Client(t), url)
	page := func(code byte) []byte {
		a, err := s.Command([]byte{0x12, 1, code, 0, 255, 0}, nil, 255)
		good(t, "INQUIRY", a, err)
		return a.Data[4 : 4+int(binary.BigEndian.Uint16(a.Data[2:]))]
	}
	text := fmt.Sprintf("serial %q", page(0x80))
	for p := page(0x83); len(p) >= 4; p = p[4+p[3]:] {
		if p[1]&0x30 == 0 { // ASSOCIATION: the logical unit
			text += fmt.Sprintf(", designator %x", p[:4+p[3]])
		}
	}
	return text
}

// served reports whether a server has a LUN.
func served(t *testing.T, url string) bool {
	t.Helper()
	s, err := harness.Client(t).Open(url, tokenclient.OpenOptions{})
	if err == nil {
		harness.Must(t, s.Close())
	}
	return err == nil
}

// TestReplicate_Failover: A dies, and B is the same disk with what the last round has
// brought. When A is back it is not served, also after another start, and fetches what
// changed on B: then A is the disk, and B follows.
func TestReplicate_Failover(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 6))
	c := servers(t, replicaMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := followed(t, c)
	source, replica := identity(t, first.URL(0)), identity(t, copyURL(second))
	t.Logf("the source is %s; the replica %s", source, replica)
	if source == replica {
		t.Errorf("the replica is the same disk as the source is: %s", source)
	}
	if w, err := open2(t, copyURL(second)).Write(bytes.NewReader(make([]byte, blockLength)), 0, 1, tokenclient.WriteOptions{}); err != nil || !w.Sense.Is(7, 0x27, 0) {
		t.Errorf("write to the replica: %v, %v, want 7/27/00", w, err)
	}
	a.history(rng, 5)
	replicate(t, second, "run", replicaName)
	want := slices.Clone(a.want)
	a.fill(99, 3, 1) // after the last round
	lost := slices.Clone(a.want)

	harness.Must(t, first.Kill())
	if err := second.Admin(t.Context(), nil, "replicate", "failover", replicaName); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("failover while the source is down: %v", err)
	}
	replicate(t, second, "failover", replicaName, "--force")
	if got := identity(t, copyURL(second)); got != source {
		t.Errorf("after the failover the LUN is %s, want %s", got, source)
	}
	b := &disk{t: t, s: open2(t, copyURL(second)), want: want}
	b.same()
	changed := b.history(rng, 10)

	harness.Must(t, first.Restart(t.Context()))
	if role := replicaOf(t, first).Role; role != "former" {
		t.Errorf("A has served as %s although B, which it can ask, has taken over", role)
	}
	for range 2 {
		if served(t, first.URL(0)) {
			t.Error("the former source is served")
		}
		if !served(t, first.URL(1)) {
			t.Error("another LUN of A is not served")
		}
		kill(t, first)
		if role := replicaOf(t, first).Role; role != "former" {
			t.Errorf("after another start A is %s", role)
		}
	}
	b.same()

	n := crossed(t, first, func() { replicate(t, first, "failback", replicaName) })
	// What A had written after the last round differs too.
	changed += mib
	t.Logf("%d bytes crossed the wire for %d", n, changed)
	if n > changed*102/100+64<<10 {
		t.Errorf("%d bytes crossed the wire for %d", n, changed)
	}
	a = &disk{t: t, s: open(t, first, 0), want: b.want}
	a.same()
	if got := identity(t, first.URL(0)); got != source {
		t.Errorf("after the failback the LUN is %s, want %s", got, source)
	}
	if got := identity(t, copyURL(second)); got != replica {
		t.Errorf("after the failback the replica is %s, want %s", got, replica)
	}
	a.history(rng, 3)
	replicate(t, second, "run", replicaName)
	compare(t, first.URL(0), copyURL(second))
	kept := ""
	for _, name := range volumes(t, first) {
		if strings.HasPrefix(name, "vol0-before-failback-") {
			kept = name
		}
	}
	harness.Must(t, first.Admin(t.Context(), nil, "lun", "add", first.IQN, kept, "--lun", fmt.Sprint(copyLUN)))
	if !bytes.Equal(content(t, copyURL(first)), lost) {
		t.Errorf("the snapshot %q is not what A had", kept)
	}
	harness.Must(t, first.Admin(t.Context(), nil, "lun", "remove", first.IQN, fmt.Sprint(copyLUN)))
	keepsOnly(t, c)
	allSound(t, c)
}

// TestReplicate_Planned: B takes over while A runs, and A after that: no write is lost, one of
// both is the disk at any time, and the other one follows.
func TestReplicate_Planned(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 7))
	c := servers(t, replicaMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := followed(t, c)
	source := identity(t, first.URL(0))
	a.history(rng, 5)
	replicate(t, second, "failover", replicaName)
	if got := identity(t, copyURL(second)); got != source {
		t.Errorf("after the failover the LUN is %s, want %s", got, source)
	}
	if got := identity(t, first.URL(0)); got == source {
		t.Errorf("after the failover there are two LUNs that are %s", got)
	}
	b := &disk{t: t, s: open2(t, copyURL(second)), want: a.want}
	b.same()
	b.history(rng, 5)
	replicate(t, first, "run", replicaName)
	compare(t, first.URL(0), copyURL(second))
	b.history(rng, 5)
	replicate(t, first, "failover", replicaName)
	if got := identity(t, first.URL(0)); got != source {
		t.Errorf("back again, the LUN is %s, want %s", got, source)
	}
	a = &disk{t: t, s: open(t, first, 0), want: b.want}
	a.same()
	keepsOnly(t, c)
	allSound(t, c)
}

// open2 logs in to a URL with a client of its own.
func open2(t *testing.T, url string) *tokenclient.Session {
	t.Helper()
	return harness.Open(t, harness.Client(t), url)
}
