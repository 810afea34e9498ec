package meta

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

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

const valuesPerUpdate = 100

const childVariable = "ODX_META_TEST_CHILD_DIR"

func childDir() string { return os.Getenv(childVariable) }

// writeUntilKilled is what the killed process does: it updates pairs of keys
// and says which update is durable.
func writeUntilKilled() {
	kv, err := OpenBadger(childDir(), nil, 64<<20)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	value := strings.Repeat("v", 4000)
	for i := 0; ; i++ {
		n := strconv.Itoa(i)
		ops := []Op{op("a", n), op("b", n)}
		for k := range valuesPerUpdate {
			ops = append(ops, op(fmt.Sprintf("%08d.%d", i, k), value))
		}
		if err := errors.Join(kv.Update(ops), kv.Sync()); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println(i)
	}
}

func TestKilledProcessLosesNothingSynced(t *testing.T) {
	dir := t.TempDir()
	last := 0
	for round := range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+dir)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		// 60 updates are 23 MiB: a memtable is written out on the way.
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if last, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatal(lines.Text())
			}
			if round == 0 && last == 0 {
				_, err := OpenBadger(dir, nil, 0)
				wantErr(t, "open of an open database", err, ErrLocked)
			}
			if last == 60 {
				must(t, cmd.Process.Kill())
			}
		}
		cmd.Wait()
		checkKilled(t, dir, last)
	}
}

func checkKilled(t *testing.T, dir string, last int) {
	t.Helper()
	kv := openBadger(t, dir)
	defer kv.Close()
	a, err := kv.Get([]byte("a"))
	must(t, err)
	b, err := kv.Get([]byte("b"))
	must(t, err)
	if n, err := strconv.Atoi(string(a)); err != nil || n < last || string(a) != string(b) {
		t.Errorf("found update a=%s b=%s, want %d or later", a, b, last)
	}
	keys := 0
	must(t, kv.Scan([]byte("0"), func(_, value []byte) error {
		keys++
		return nil
	}))
	if keys < (last+1)*valuesPerUpdate {
		t.Errorf("%d keys found, want %d", keys, (last+1)*valuesPerUpdate)
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
