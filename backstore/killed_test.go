package backstore

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"odx/backstore/layout"
	"odx/internal/kit/sample"
)

// The power cuts of the other tests are made in memory. Here a process with the
// real metadata engine on the real file system is killed: by itself no power
// cut, but all that the engine keeps in its own memory is gone, at any instant.

// childEnv tells the test binary to work on the store in that folder, with the
// seed that is its argument, until it is killed.
const childEnv = "ODX_STORE_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		workUntilKilled(dir, os.Args[1])
		return
	}
	os.Exit(m.Run())
}

// childTB lets a history run in a process that is no test.
type childTB struct{ testing.TB }

func (childTB) Helper()         {}
func (childTB) Log(args ...any) { fmt.Println(args...) }
func (childTB) Fatalf(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
	os.Exit(1)
}

// realHistory goes on with the store in the folder, or begins one.
func realHistory(tb testing.TB, dir string, seed uint64) *history {
	rng := rand.New(rand.NewPCG(seed, 3))
	o := realOptions(rng, dir)
	open := func() (*Store, error) { return Open(context.Background(), o) }
	if _, err := os.Stat(filepath.Join(dir, layout.SuperblockName)); err != nil {
		return newHistory(tb, rng, open)
	}
	h := &history{tb: tb, rng: rng, open: open}
	h.openStore()
	m, err := readModel(h.store)
	if err != nil {
		tb.Fatalf("what is there: %v", err)
	}
	h.states = []*model{m}
	for _, name := range []string{"a", "b"} {
		for _, value := range m.volumes[name] {
			h.value = max(h.value, value)
		}
	}
	return h
}

func realOptions(rng *rand.Rand, dir string) Options {
	o := newDisk().options(drawOptions(rng))
	// Where it is full depends on what was freed in the background.
	o.Dir, o.FS, o.CapacityBytes = dir, nil, 0
	return o
}

// workUntilKilled says which step of the history it begins, and after which of
// them everything will outlive the process: it was written out, which half of the
// children do after each step, or is durable. With an odd seed it takes a
// checkpoint after each, so that most of its time the store is writing rows.
func workUntilKilled(dir, seed string) {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		panic(err)
	}
	h := realHistory(childTB{}, dir, n)
	for step := 0; ; step++ {
		fmt.Println("begin", step)
		h.step()
		if n%2 == 1 {
			h.checkpoint()
		}
		if n%4 < 2 {
			h.acknowledge()
		}
		if h.kept == len(h.states)-1 {
			fmt.Println("durable", step)
		}
	}
}

// killed is how far a child came.
type killed struct {
	begun   int // steps
	durable int // the last step after which everything outlives the process; -1: none
	said    []string
}

// killChild lets a child work on the store, kills it about when it begins the
// given step, and returns how far it came.
func killChild(t *testing.T, dir string, seed uint64, step int, later time.Duration) killed {
	t.Helper()
	cmd := exec.Command(os.Args[0], strconv.FormatUint(seed, 10))
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill := func() { time.AfterFunc(later, func() { cmd.Process.Kill() }) }
	if step == 0 {
		kill() // most likely while it opens the store
	}
	k := killed{durable: -1}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		word, number, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(number)
		switch {
		case err == nil && word == "begin":
			if k.begun = n + 1; k.begun == step {
				kill()
			}
		case err == nil && word == "durable":
			k.durable = n
		default:
			k.said = append(k.said, lines.Text())
		}
	}
	cmd.Wait()
	if len(k.said) > 0 {
		t.Fatalf("seed %d: the child said:\n%s", seed, strings.Join(k.said, "\n"))
	}
	return k
}

// TestKilledProcess kills a process that runs a random history. What it left
// must be a state that the same history has on a copy of the store made before.
func TestKilledProcess(t *testing.T) {
	forSeeds(t, 1, func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 4))
		dir := filepath.Join(t.TempDir(), "store")
		for round := range sample.Size[uint64](2, 6, 6) {
			seed := seed + round + round<<32
			twin := filepath.Join(t.TempDir(), "twin")
			if round > 0 {
				if err := os.CopyFS(twin, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
			}
			step, later := rng.IntN(60), time.Duration(rng.IntN(20))*time.Millisecond
			if round == 0 {
				step++ // in a store that was made
			}
			k := killChild(t, dir, seed, step, later)
			h := realHistory(t, twin, seed)
			states := h.follow(k)
			if err := h.store.Close(); err != nil {
				t.Fatal(err)
			}
			t.Logf("round %d: killed in step %d, durable after %d%s", round, k.begun-1, k.durable, duringCheckpoint(dir))
			if problem, _ := opens(realOptions(rng, dir), states); problem != "" {
				h.fatalf("seed %d: %s", seed, problem)
			}
			if err := os.RemoveAll(twin); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// duringCheckpoint says how far a checkpoint had come in a store that was left
// in the middle of one.
func duringCheckpoint(dir string) string {
	if found, err := filepath.Glob(filepath.Join(dir, layout.CheckpointDir, "*.new")); err == nil && len(found) > 0 {
		return ", while " + filepath.Base(found[0]) + " was written"
	}
	return ""
}

// follow does the steps that a child did and returns the states that it may
// have left.
func (h *history) follow(k killed) []*model {
	states := h.states
	for step := range k.begun {
		h.states = h.states[len(h.states)-1:]
		h.step()
		if step == k.durable {
			states, h.states = nil, h.states[len(h.states)-1:]
		}
		states = append(states, h.states...)
	}
	return states
}
