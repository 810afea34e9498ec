//go:build e2e

package peers

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
	"odx/internal/kit/netns"
	"odx/internal/kit/tokenclient"
)

var faults = flag.Int("faults", 2, "how many faults of each kind each test of faults has; the whole test has 40")

var rounds = flag.Int("rounds", 3, "how many times a replica is brought up to date; the whole test has 50")

const (
	mib         = 1 << 20
	blockLength = 512
	perMiB      = mib / blockLength // logical blocks
)

// servers starts servers that know each other, each with two LUNs of so many bytes.
func servers(t testing.TB, size int64, names ...string) *cluster.Cluster {
	t.Helper()
	c := unacquainted(t, size, names...)
	harness.Must(t, c.Introduce(t.Context()))
	return c
}

// unacquainted is servers that are no peers of each other.
func unacquainted(t testing.TB, size int64, names ...string) *cluster.Cluster {
	t.Helper()
	return start(t, cluster.Options{LUNs: []kit.LUN{{Size: size}, {Size: size}}}, names...)
}

// start starts servers for one test.
func start(t testing.TB, o cluster.Options, names ...string) *cluster.Cluster {
	t.Helper()
	harness.RequireODX(t)
	if err := netns.Check(); err != nil {
		harness.Missing(t, err.Error())
	}
	o.Dir = t.TempDir()
	c, err := cluster.Start(context.Background(), o, names...)
	harness.Must(t, err)
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(c.Log(15))
		}
	})
	return c
}

// open logs in to a LUN of a server with a client of its own, so that its commands run
// next to others.
func open(t testing.TB, s *cluster.Server, lun int) *tokenclient.Session {
	t.Helper()
	return harness.Open(t, harness.Client(t), s.URL(lun))
}

// disk is a LUN with a copy of what must be on it.
type disk struct {
	t    testing.TB
	s    *tokenclient.Session
	want []byte
}

func newDisk(t testing.TB, s *cluster.Server, lun int) *disk {
	t.Helper()
	session := open(t, s, lun)
	return &disk{t: t, s: session, want: make([]byte, int(session.Blocks)*session.BlockLength)}
}

// again logs in again, after the server was started again.
func (d *disk) again(s *cluster.Server, lun int) {
	d.t.Helper()
	d.s = open(d.t, s, lun)
}

// fill writes random bytes to so many MiB from at on.
func (d *disk) fill(seed uint64, at, length int) {
	d.t.Helper()
	p := d.want[at*mib : (at+length)*mib]
	random(p, seed)
	a, err := d.s.Write(bytes.NewReader(p), uint64(at*perMiB), uint64(length*perMiB), tokenclient.WriteOptions{})
	good(d.t, "write", a, err)
}

func random(p []byte, seed uint64) {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	_, _ = rand.NewChaCha8(key).Read(p)
}

// token makes a token for so many MiB from at on.
func (d *disk) token(at, length int) []byte {
	d.t.Helper()
	// What was written before is flushed, which may take longer than a command has.
	until(d.t, patience, "the LUN makes a token", func() bool {
		a, err := d.s.PopulateToken(tokenclient.PopulateOptions{}, tokenclient.Range{LBA: uint64(at * perMiB), Blocks: uint32(length * perMiB)})
		harness.Must(d.t, err)
		if a.Status == busy {
			return false
		}
		good(d.t, "populate", a, err)
		return true
	})
	info, a, err := d.s.TokenInformation()
	good(d.t, "token information", a, err)
	if info.Token == nil || info.TransferCount != uint64(length*perMiB) {
		d.t.Fatalf("a token of %d blocks, want %d", info.TransferCount, length*perMiB)
	}
	return info.Token
}

// spend writes all of a token that stands for data, to so many MiB from at on.
func (d *disk) spend(token []byte, at int, data []byte) time.Duration {
	d.t.Helper()
	copy(d.want[at*mib:], data)
	timings, err := d.s.Spend(token, tokenclient.Range{LBA: uint64(at * perMiB), Blocks: uint32(len(data) / blockLength)})
	harness.Must(d.t, err)
	return timings.Write
}

// same compares all of the LUN.
func (d *disk) same() {
	d.t.Helper()
	var got bytes.Buffer
	a, err := d.s.Read(&got, 0, d.s.Blocks)
	good(d.t, "read", a, err)
	if !bytes.Equal(got.Bytes(), d.want) {
		d.t.Fatalf("other data than was copied, the first at byte %d", firstDifference(got.Bytes(), d.want))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func good(t testing.TB, what string, a tokenclient.Answer, err error) {
	t.Helper()
	harness.Must(t, err)
	if !a.Good() {
		t.Fatalf("%s: %v", what, a)
	}
}

// refused requires an ILLEGAL REQUEST with one of the qualifiers of INVALID TOKEN OPERATION.
func refused(t testing.TB, what string, a tokenclient.Answer, err error, ascq ...byte) {
	t.Helper()
	harness.Must(t, err)
	for _, q := range ascq {
		if a.Sense.Is(5, 0x23, q) {
			return
		}
	}
	t.Errorf("%s: %v, want 5/23/%02X", what, a, ascq)
}

// crossed returns how many bytes a host sends and gets while fn runs.
func crossed(t testing.TB, s *cluster.Server, fn func()) int64 {
	t.Helper()
	before := counted(t, s)
	fn()
	return counted(t, s) - before
}

func counted(t testing.TB, s *cluster.Server) int64 {
	t.Helper()
	sent, received, err := s.Host.Bytes()
	harness.Must(t, err)
	return sent + received
}

// until waits for what servers do by themselves.
func until(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	end := time.Now().Add(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		<-tick.C
	}
}

// awaitLog waits until the log of a server, from byte since on, has what a regular expression matches.
func awaitLog(t testing.TB, s *cluster.Server, since int, limit time.Duration, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	expression := regexp.MustCompile(says)
	if err := s.AwaitLog(ctx, func(log string) bool { return expression.MatchString(log[since:]) }); err != nil {
		t.Fatalf("the log of %s does not say %q: %v", s.Name, says, err)
	}
}

// sound requires that every reference of a server's store, which it is not open for any
// more, is right.
func sound(t testing.TB, s *cluster.Server) {
	t.Helper()
	var result struct {
		Findings []any `json:"findings"`
	}
	if err := s.Admin(t.Context(), &result, "store", "check"); err != nil || len(result.Findings) > 0 {
		t.Errorf("store of %s: %v, %v", s.Name, result.Findings, err)
	}
}

// unpinned waits until a server keeps nothing for others.
func unpinned(t testing.TB, s *cluster.Server, limit time.Duration) {
	t.Helper()
	var holds []any
	until(t, limit, fmt.Sprintf("server %s keeps nothing for others", s.Name), func() bool {
		harness.Must(t, s.Admin(t.Context(), &holds, "peer", "holds"))
		return len(holds) == 0
	})
}
