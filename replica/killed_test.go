package replica

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"odx/admin"
	"odx/conf"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// receiverEnv is the directory of the process that TestReceive_Killed kills.
const receiverEnv = "ODX_TEST_RECEIVER"

// TestReceiver is that process: it receives the stream in a file, and says when it begins and
// when it is done.
func TestReceiver(t *testing.T) {
	dir := os.Getenv(receiverEnv)
	if dir == "" {
		t.Skip("it is the other process of TestReceive_Killed")
	}
	cfg, err := conf.Load(filepath.Join(dir, "odx.yaml"))
	must.Succeed(t, err)
	s, err := admin.Open(t.Context(), cfg, logs.Discard(), admin.Options{})
	must.Succeed(t, err)
	f, err := os.Open(filepath.Join(dir, "stream"))
	must.Succeed(t, err)
	fmt.Println("\nbegun")
	_, err = NewStreams(s, logs.Discard()).Receive(t.Context(), ReceiveRequest{Name: "copy", Resume: true}, f, nil)
	must.Succeed(t, err)
	fmt.Println("\ndone")
	must.Succeed(t, s.Close())
}

// TestReceive_Killed kills, with SIGKILL, a process that receives, at any time from the first
// byte until the content is visible: a new volume, and one that is brought up to date. What
// is visible then is all of the old or all of the new content; the next process goes on.
func TestReceive_Killed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	a := aSite(t)
	_, err := a.admin.CreateVolume(t.Context(), "data", 16*mib)
	must.Succeed(t, err)
	a.write("data", 0, fresh(rnd, 12*mib))
	a.snapshotOf("data", "s0")
	history(rnd, a, "data", 200)
	a.snapshotOf("data", "s1")
	whole, changes := a.send(SendRequest{Source: "s0"}), a.send(SendRequest{Source: "s1", Base: "s0"})
	before, after := a.content("s0"), a.content("s1")
	took := map[bool]time.Duration{}
	early, late, finished := 0, 0, 0
	kills := sample.Size(2, 4, 100)
	for i := range kills {
		incremental := i%2 == 1
		b := aSite(t)
		stream, old, want, snapshot := whole, []byte(nil), before, "s0"
		if incremental {
			must.Succeed(t, b.receive(ReceiveRequest{Name: "copy"}, whole))
			stream, old, want, snapshot = changes, before, after, "s1"
		}
		must.Succeed(t, b.admin.Close())
		must.Succeed(t, os.WriteFile(b.cfg.File, b.cfg.Text(), 0o600), os.WriteFile(filepath.Join(filepath.Dir(b.cfg.File), "stream"), stream, 0o600))
		if took[incremental] == 0 {
			took[incremental] = runReceiver(t, b, -1)
		} else {
			// also twice, so that what goes on is killed as well
			for range 1 + rnd.IntN(2) {
				runReceiver(t, b, time.Duration(rnd.Int64N(int64(took[incremental]*5/4))))
			}
		}
		b.open()
		check := func(when string) (isNew bool) {
			t.Helper()
			got := b.content("copy")
			if isNew = bytes.Equal(got, want); !isNew && !bytes.Equal(got, old) {
				t.Fatalf("%d, %s: the volume has neither the old nor the new content", i, when)
			}
			if made := b.content(snapshot); made != nil && !bytes.Equal(made, want) {
				t.Fatalf("%d, %s: the snapshot has another content", i, when)
			}
			return isNew
		}
		check("killed")
		must.Succeed(t, b.Recover(t.Context()))
		switch isNew := check("recovered"); {
		case isNew:
			late++
			if b.content(snapshot) == nil {
				t.Fatalf("%d: the volume is new, and there is no snapshot", i)
			}
		default:
			if early++; b.content(snapshot) != nil {
				t.Fatalf("%d: there is a snapshot, and the volume is old", i)
			}
			must.Succeed(t, b.receive(ReceiveRequest{Name: "copy", Resume: true}, stream))
			if !check("resumed") {
				t.Fatalf("%d: resumed, and still old", i)
			}
		}
		finished++
		b.clean()
		b.sound()
	}
	t.Logf("%d killed before it was visible, %d after or not at all", early, late)
	if finished != kills {
		t.Errorf("%d of %d", finished, kills)
	}
}

// runReceiver runs the other process, kills it so long after it has begun, and returns how
// long it took. A negative time does not kill it.
func runReceiver(t *testing.T, b *site, killAfter time.Duration) time.Duration {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], "-test.run=^TestReceiver$", "-test.v")
	cmd.Env = append(os.Environ(), receiverEnv+"="+filepath.Dir(b.cfg.File))
	out, err := cmd.StdoutPipe()
	must.Succeed(t, err, cmd.Start())
	lines := bufio.NewScanner(out)
	var begun, done time.Time
	text := ""
	for lines.Scan() {
		text += lines.Text() + "\n"
		switch lines.Text() {
		case "begun":
			begun = time.Now()
			if killAfter >= 0 {
				time.AfterFunc(killAfter, func() { _ = cmd.Process.Kill() })
			}
		case "done":
			done = time.Now()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if killAfter < 0 && err != nil || err != nil && !errors.As(err, &exit) || err != nil && exit.Exited() && !bytes.Contains([]byte(text), []byte("received already")) && !bytes.Contains([]byte(text), []byte("already exists")) {
		t.Fatalf("the process: %v\n%s", err, text)
	}
	if begun.IsZero() {
		t.Fatalf("it did not begin: %s", text)
	}
	return done.Sub(begun)
}
