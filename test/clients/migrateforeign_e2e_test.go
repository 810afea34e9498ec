//go:build e2e

package clients

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

// foreignFaults is how often TestMigrateForeign_Faults has each fault.
var foreignFaults = flag.Int("foreign-faults", 1, "how often TestMigrateForeign_Faults kills each side of a migration to another target, and both")

// moveLimit is how long a move may take: the clients write as fast as they can, so that it takes
// some rounds until they are held back.
const moveLimit = 3 * handoverLimit

// others are the targets to whose LUN one moves.
var others = []struct {
	name  string
	start func(ctx context.Context, dir string, luns []kit.LUN) (*kit.Target, error)
}{{"tgtd", kit.StartTGTD}, {"odx", kit.StartODX}}

// inquiryChanged is what clients may say of a LUN that has moved: it has no atomic writes any more.
const inquiryChanged = "INQUIRY DATA HAS CHANGED"

// mover is a server with a LUN that moves to the LUN of another target.
type mover struct {
	*kit.Target
	t    *testing.T
	far  *kit.Target
	size int64
	file map[string]any // of its configuration
	n    int            // LUNs that were on LUN 0
}

func newMover(t *testing.T, start func(ctx context.Context, dir string, luns []kit.LUN) (*kit.Target, error)) *mover {
	t.Helper()
	harness.Program(t, "tgtd", "tgt")
	m := &mover{t: t, size: int64(len(depths)) * partChunks * chunkLength, file: map[string]any{}}
	var err error
	m.far, err = start(t.Context(), t.TempDir(), []kit.LUN{{Size: m.size}})
	harness.Must(t, err)
	t.Cleanup(func() { harness.Must(t, m.far.Kill()) })
	m.Target = harness.ServeWith(t, kit.Settings{File: m.file}, kit.LUN{Size: m.size})
	return m
}

// volume is what the LUN is on before it moves.
func (m *mover) volume() string { return fmt.Sprintf("vol%d", m.n) }

// another makes LUN 0 a new volume.
func (m *mover) another() {
	m.t.Helper()
	m.n++
	harness.Must(m.t, m.Reload(m.t.Context(), func(config map[string]any) {
		disks := config["targets"].([]any)[0].(map[string]any)
		disks["luns"] = []any{map[string]any{"lun": 0, "volume": m.volume(), "size": fmt.Sprintf("%dKiB", m.size>>10)}}
	}))
}

// crash kills the server, and starts it with the configuration that it has left.
func (m *mover) crash() {
	m.t.Helper()
	harness.Must(m.t, m.Kill())
	text, err := os.ReadFile(m.ConfigFile())
	harness.Must(m.t, err)
	config := map[string]any{}
	harness.Must(m.t, yaml.Unmarshal(text, &config))
	m.file["targets"] = config["targets"]
	harness.Must(m.t, m.Restart(m.t.Context()))
}

// crashFar kills the other target, and starts it a while later.
func (m *mover) crashFar(after time.Duration) {
	m.t.Helper()
	harness.Must(m.t, m.far.Kill())
	sleep(m.t, after)
	harness.Must(m.t, m.far.Restart(m.t.Context()))
}

// sleep waits for a fault, of which the time is what is random.
func sleep(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// begin begins to move the LUN.
func (m *mover) begin(args ...string) {
	m.t.Helper()
	harness.Must(m.t, m.Admin(m.t.Context(), nil, append([]string{"volume", "migrate", "start", m.volume(), m.far.URL(0), "--throttle", "4MiB"}, args...)...))
}

// finish waits until the LUN has moved, and forgets the migration.
func (m *mover) finish() kit.Migration {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), moveLimit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var all []kit.Migration
		harness.Must(m.t, m.Admin(m.t.Context(), &all, "volume", "migrate", "list"))
		if len(all) == 1 && all[0].State == "moved" {
			harness.Must(m.t, m.Admin(m.t.Context(), nil, "volume", "migrate", "finish", m.volume()))
			return all[0]
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.t.Fatalf("the LUN does not move: %+v\n%s", all, m.LogTail(20))
		}
	}
}

// same requires that the other target has what this server shows.
func (m *mover) same() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	harness.Run(ctx, m.t, harness.Program(m.t, "qemu-img", "qemu-utils"), "compare", "-f", "raw", "-F", "raw", m.URL(0), m.far.URL(0))
}

// TestMigrateForeign has libiscsi in qemu write and verify while the LUN moves to the LUN of
// another target, which is killed and started again in a round and after the move: no command
// fails and no session ends, and commands are held for at most a second.
func TestMigrateForeign(t *testing.T) {
	for _, other := range others {
		t.Run(other.name, func(t *testing.T) {
			m := newMover(t, other.start)
			all, end := startVerifiers(t, m.Target, partsOf(len(depths)), 4)
			for _, v := range all {
				v.next(t)
			}
			m.begin()
			m.crashFar(0)
			done := m.finish()
			for _, v := range all {
				v.next(t)
			}
			m.crashFar(100 * time.Millisecond)
			for _, v := range all {
				v.next(t)
			}
			end(inquiryChanged)
			if n := logins(m.Target); n != len(all) {
				t.Errorf("%d logins by %d initiators", n, len(all))
			}
			if done.CutSeconds <= 0 || done.CutSeconds > 1 {
				t.Errorf("commands were held for %g s", done.CutSeconds)
			}
			t.Logf("%d rounds; commands were held for %.0f ms", done.Rounds, done.CutSeconds*1000)
			m.same()
			harness.Must(t, m.CheckStore(t.Context()))
		})
	}
}

// TestMigrateForeign_Faults kills the server, the other target or both at any time of a move:
// no command fails, the clients of a server that is killed log in again, and the LUN moves with
// all that was written.
func TestMigrateForeign_Faults(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	within := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
	for _, other := range others {
		t.Run(other.name, func(t *testing.T) {
			m := newMover(t, other.start)
			for i := range *foreignFaults {
				for _, fault := range []struct {
					name    string
					do      func()
					allowed string // of what clients say
				}{
					{"server", m.crash, "UNIT_ATTENTION"},
					{"target", func() { m.crashFar(within(time.Second)) }, inquiryChanged},
					{"both", func() {
						harness.Must(t, m.far.Kill())
						m.crash()
						harness.Must(t, m.far.Restart(t.Context()))
					}, "UNIT_ATTENTION"},
				} {
					if m.n > 0 || i > 0 || fault.name != "server" {
						m.another()
					}
					// Each time they are new ones: libiscsi waits before it reconnects twice in five
					// seconds.
					all, end := startVerifiers(t, m.Target, partsOf(len(depths)), 4)
					for _, v := range all {
						v.next(t)
					}
					at := within(500 * time.Millisecond)
					m.begin("--overwrite", "--rate", "16MiB") // so that it takes about as long
					sleep(t, at)
					var before []kit.Migration
					harness.Must(t, m.Admin(t.Context(), &before, "volume", "migrate", "list"))
					fault.do()
					done := m.finish()
					for _, v := range all {
						v.next(t)
					}
					end(fault.allowed)
					t.Logf("%d, %s killed after %v, in state %s after %d rounds: moved after %d, commands held for %.0f ms", i, fault.name, at,
						before[0].State, before[0].Rounds, done.Rounds, done.CutSeconds*1000)
					m.same()
				}
			}
			harness.Must(t, m.CheckStore(t.Context()))
		})
	}
}
