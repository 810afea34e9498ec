//go:build e2e

package survival

import (
	"bytes"
	"context"
	_ "embed"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/guest"
	"odx/internal/kit/harness"
	"odx/internal/kit/nbd"
	"odx/internal/kit/tokenclient"
)

var (
	cuts     = flag.Int("cuts", 20, "how often TestPowerCuts cuts the power")
	cutsSeed = flag.Uint64("seed", 0, "seed of TestPowerCuts; 0: a new one")
)

const (
	guestDiskSize = 4 << 30 // thin; a store wants some room
	guestPort     = 3260
	// A round's power is cut at a random time before this.
	longestCut = 3 * time.Second
	bootLimit  = 2 * time.Minute
)

//go:embed powercut.sh
var serveScript string

// guestConfig is the configuration of the target in the guest.
var guestConfig = fmt.Sprintf(`data_dir: /mnt/odx
portals: ["0.0.0.0:%d"]
targets:
  - name: %s
    luns:
      - {lun: 0, volume: disk, size: %dMiB}
`, guestPort, kit.IQN, diskSize>>20)

// guestTarget is a target inside a machine whose power can be cut.
type guestTarget struct {
	t     *testing.T
	image *guest.Image
	files map[string]string
	disk  *nbd.Disk
	rng   *rand.Rand

	url     string
	machine *guest.Machine
	server  *nbd.Server
	serving chan struct{} // closed when it can be used
	ended   chan struct{} // closed when the machine is off, after result and err were set
	result  guest.Result
	err     error
}

func newGuestTarget(t *testing.T, rng *rand.Rand) *guestTarget {
	harness.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	harness.Program(t, "apt-get", "apt")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	image, err := guest.Build(ctx)
	if err != nil {
		harness.Missing(t, err.Error())
	}
	binary, err := kit.Binary()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := nbd.New(guestDiskSize)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "odx.yaml")
	if err := os.WriteFile(config, []byte(guestConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"usr/bin/odx": binary, "etc/odx.yaml": config}
	return &guestTarget{t: t, image: image, files: files, disk: disk, rng: rng}
}

// boot switches the machine on and returns when the target in it can be used.
// variables are set in the script.
func (g *guestTarget) boot(variables string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), bootLimit)
	defer cancel()
	port, err := freePort()
	if err == nil {
		g.server, err = g.disk.Serve(ctx, g.t.TempDir())
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.url = fmt.Sprintf("iscsi://127.0.0.1:%d/%s/0", port, kit.IQN)
	g.serving, g.ended = make(chan struct{}), make(chan struct{})
	g.machine, err = g.image.Start(g.t.Context(), variables+"\n"+serveScript, guest.Setup{
		Files: g.files, Disks: []string{g.server.File}, Forward: map[int]int{guestPort: port},
		Said: func(line string) {
			if line == "SERVING" {
				close(g.serving)
			}
		},
	})
	if err != nil {
		g.t.Fatal(err)
	}
	go func() {
		g.result, g.err = g.machine.Wait()
		close(g.ended)
	}()
	select {
	case <-g.serving:
	case <-g.ended:
		g.t.Fatalf("the machine is off: %v\n%s", g.err, g.result.Output)
	case <-ctx.Done():
		g.machine.PowerOff()
		<-g.ended
		g.t.Fatalf("no target after %v: %v\n%s", bootLimit, g.err, g.result.Output)
	}
}

// cutAfter cuts the power after a time.
func (g *guestTarget) cutAfter(d time.Duration) (off <-chan error) {
	done := make(chan error, 1)
	time.AfterFunc(d, func() { done <- g.machine.PowerOff() })
	return done
}

// found makes the disk what it is after the power was cut: it holds what was
// flushed and any part of what was not.
func (g *guestTarget) found(off <-chan error) {
	g.t.Helper()
	if err := <-off; err != nil {
		g.t.Fatal(err)
	}
	<-g.ended
	if g.err == nil {
		g.t.Fatalf("the machine had ended by itself:\n%s", g.result.Output)
	}
	err := g.server.Close()
	if err == nil {
		g.disk, err = g.disk.CutPower(g.rng)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// TestPowerCuts runs the target in a machine whose disk forgets, when the power
// is cut, what was not flushed: sector by sector, in any order. A client on this
// side knows what the target said is durable, tokens too, and compares after
// each boot. The store proves its references each time.
func TestPowerCuts(t *testing.T) {
	harness.RequireODX(t)
	seed := *cutsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 6))
	g := newGuestTarget(t, rng)
	client := harness.Client(t)
	m := newModel(diskSize / blockLength)
	var token *keptToken
	commands, flushes := 0, 0
	variables := "FIRST=1 CHECK=while"
	for round := range *cuts {
		g.boot(variables)
		s := harness.Open(t, client, g.url)
		compareDisk(t, s, m, round)
		token.spend(t, s, m, rng)
		token = keepToken(t, s, m, rng)
		chooseCache(t, s, m, rng)
		off := g.cutAfter(time.Duration(rng.Int64N(int64(longestCut))))
		for step(t, s, m, rng, &flushes) == nil {
			commands++
		}
		g.found(off)
		s.Close()
		variables = []string{"CHECK=before", "CHECK=while"}[rng.IntN(2)]
	}
	g.boot("CHECK=before SCRUB=1")
	s := harness.Open(t, client, g.url)
	compareDisk(t, s, m, *cuts)
	token.spend(t, s, m, rng)
	s.Close()
	g.found(g.cutAfter(0))
	t.Logf("%d power cuts, %d commands, %d flushes", *cuts, commands, flushes)
	if flushes < *cuts {
		t.Errorf("only %d flushes succeeded: too few to prove anything", flushes)
	}
}

// compareDisk reads the whole disk and compares it with the model.
func compareDisk(t *testing.T, s *tokenclient.Session, m *model, round int) {
	t.Helper()
	var disk bytes.Buffer
	a, err := s.Read(&disk, 0, s.Blocks)
	if err != nil || !a.Good() {
		t.Fatalf("after power cut %d: read it all: %v, %v", round, a, err)
	}
	if err := m.check(disk.Bytes()); err != nil {
		t.Fatalf("after power cut %d: %v", round, err)
	}
}

// keptToken is a token that the target gave out before a power cut.
type keptToken struct {
	token []byte
	data  []version
}

func keepToken(t *testing.T, s *tokenclient.Session, m *model, rng *rand.Rand) *keptToken {
	t.Helper()
	n := 1 + rng.IntN(4096)
	lba := rng.Uint64N(s.Blocks - uint64(n))
	a, err := s.PopulateToken(tokenclient.PopulateOptions{}, tokenclient.Range{LBA: lba, Blocks: uint32(n)})
	if err != nil || !a.Good() {
		t.Fatalf("populate token: %v, %v", a, err)
	}
	info, a, err := s.TokenInformation()
	if err != nil || !a.Good() {
		t.Fatalf("token information: %v, %v", a, err)
	}
	return &keptToken{info.Token, m.snapshot(lba, n)}
}

// spend writes with the token and makes that durable.
func (k *keptToken) spend(t *testing.T, s *tokenclient.Session, m *model, rng *rand.Rand) {
	t.Helper()
	if k == nil {
		return
	}
	to := rng.Uint64N(s.Blocks - uint64(len(k.data)))
	m.copied(to, k.data)
	a, err := writeToken(s, k.token, to, len(k.data))
	if err != nil || !a.Good() {
		t.Fatalf("write using a token from before the power cut: %v, %v", a, err)
	}
	if a, err = s.Flush(); err != nil || !a.Good() {
		t.Fatalf("flush: %v, %v", a, err)
	}
	m.flushed()
}
