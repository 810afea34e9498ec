package meta

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

func TestMemCrashLeavesAPrefix(t *testing.T) {
	m := NewMem()
	for i := range 5 {
		must(t, m.Update([]Op{op("n", strconv.Itoa(i)), op(strconv.Itoa(i), "")}))
		if i == 2 {
			must(t, m.Sync())
		}
	}
	seen := map[string]bool{}
	for seed := range uint64(100) {
		seen[dump(t, m.CrashClone(newRand(seed)), "")] = true
	}
	for _, want := range []string{"0= 1= 2= n=2", "0= 1= 2= 3= n=3", "0= 1= 2= 3= 4= n=4"} {
		if !seen[want] {
			t.Errorf("state %q was never left", want)
		}
		delete(seen, want)
	}
	for state := range seen {
		t.Errorf("state %q is not a synced prefix", state)
	}
}

const (
	valuesPerUpdate = 100
	// keptUpdates are those whose values are there; each update deletes older ones.
	keptUpdates = 3
)

const childVariable = "ODX_META_TEST_CHILD_DIR"

func childDir() string { return os.Getenv(childVariable) }

func valueKey(update, k int) string { return fmt.Sprintf("0%08d.%02d", update, k) }

// lastUpdate returns the number of the update that the database is at, which
// two keys must agree on; -1 before the first.
func lastUpdate(kv KV) (int, error) {
	a, err := kv.Get([]byte("a"))
	if errors.Is(err, ErrNotFound) {
		return -1, nil
	}
	b, berr := kv.Get([]byte("b"))
	if err = errors.Join(err, berr); err == nil && string(a) != string(b) {
		err = fmt.Errorf("found half of an update: a=%s b=%s", a, b)
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(a))
}

// writeUntilKilled is what the killed process does: it goes on updating and
// says which update is durable.
func writeUntilKilled() {
	kv, err := OpenBadger(childDir(), nil, 64<<20)
	last := 0
	if err == nil {
		last, err = lastUpdate(kv)
	}
	if err != nil {
		fmt.Println("error", err)
		return
	}
	value := strings.Repeat("v", 4000)
	for i := last + 1; ; i++ {
		n := strconv.Itoa(i)
		ops := []Op{op("a", n), op("b", n)}
		for k := range valuesPerUpdate {
			ops = append(ops, op(valueKey(i, k), value))
			if i >= keptUpdates {
				ops = append(ops, del(valueKey(i-keptUpdates, k)))
			}
		}
		if err := errors.Join(kv.Update(ops), kv.Sync()); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println(i)
	}
}

// TestKilledProcessLosesNothingSynced kills at random moments, every second
// time most likely while the database is opened.
func TestKilledProcessLosesNothingSynced(t *testing.T) {
	dir := t.TempDir()
	rng := newRand(1)
	last := -1
	// 40 updates fill a memtable, which is written out beside the next ones.
	for round := range 10 {
		after := last + 1 + rng.IntN(40)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		kill := func(limit time.Duration) {
			time.AfterFunc(time.Duration(rng.Int64N(int64(limit))), func() { cmd.Process.Kill() })
		}
		if round%2 == 1 {
			kill(60 * time.Millisecond)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if last, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatal(lines.Text())
			}
			if round == 0 && last == 0 {
				_, err := OpenBadger(dir, nil, 0)
				wantErr(t, "open of an open database", err, ErrLocked)
			}
			if last == after {
				kill(10 * time.Millisecond)
			}
		}
		cmd.Wait()
		last = checkKilled(t, dir, last)
	}
}

// checkKilled returns the update that was found, last at least.
func checkKilled(t *testing.T, dir string, last int) int {
	t.Helper()
	kv := openBadger(t, dir)
	defer kv.Close()
	n, err := lastUpdate(kv)
	must(t, err)
	if n < last {
		t.Errorf("found update %d, want %d or a later one", n, last)
	}
	first, found := max(0, n-keptUpdates+1), 0
	must(t, kv.Scan([]byte("0"), func(key, _ []byte) error {
		if want := valueKey(first+found/valuesPerUpdate, found%valuesPerUpdate); string(key) != want {
			return fmt.Errorf("after update %d: found key %s, want %s", n, key, want)
		}
		found++
		return nil
	}))
	if want := (n + 1 - first) * valuesPerUpdate; found != want {
		t.Errorf("%d keys found after update %d, want %d", found, n, want)
	}
	return n
}

// TestFilesThatBadgerHadJustCreated: it refuses to open them, see removeUnborn.
func TestFilesThatBadgerHadJustCreated(t *testing.T) {
	for _, name := range []string{"00009.mem", "000009.vlog"} {
		dir := t.TempDir()
		kv := openBadger(t, dir)
		must(t, kv.Update([]Op{op("a", "1")}))
		must(t, kv.Close())
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		kv = openBadger(t, dir)
		wantDump(t, kv, "", "a=1")
		must(t, kv.Close())
	}
}

func TestBadgerRefusesUpdatesBeforeTheDiskIsFull(t *testing.T) {
	kv := openBadger(t, t.TempDir())
	defer kv.Close()
	must(t, kv.Update([]Op{op("a", "1")}))
	b := kv.(*badgerKV)
	b.reserve = 1 << 62
	wantErr(t, "update", kv.Update([]Op{op("a", "2")}), unix.ENOSPC)
	wantDump(t, kv, "", "a=1")
}
