package shardserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// The test program is also the server of a shard, and a node of its own.
const nodeFlag = "--node-of-test"

func TestMain(m *testing.M) {
	switch {
	case slices.Contains(os.Args, "--"+Flag):
		if err := beServer(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case slices.Contains(os.Args, nodeFlag):
		e := newEvents()
		begin(e, "one")
		fmt.Println(e.serves(nil, 0), e.serves(nil, 1))
		select {} // until it is killed
	}
	goleak.VerifyTestMain(m)
}

// beServer serves its shard at once, with its process as the epoch and the plan as the store.
func beServer() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	ctx, lost := context.WithCancel(context.Background())
	reloads := make(chan struct{}, 8)
	l, err := Join(ctx, lost, func() { reloads <- struct{}{} })
	if err != nil {
		return err
	}
	if bytes.Equal(l.Plan().Text, []byte("fail")) {
		return errors.New("this server fails")
	}
	if err := l.Turn.Wait(ctx, func() (bool, error) { return false, nil }); err != nil {
		return err
	}
	store := string(l.Plan().Text)
	if store == "line" {
		store = l.Plan().Line
	}
	if err := l.Serves(uint64(os.Getpid()), store); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return errors.New("the node has ended")
		case <-reloads: // with the plan that came with it, never the one before
			why := ""
			if text := string(l.Plan().Text); text == "refuse" {
				why = text
			}
			if err := errors.Join(l.Refuses(why), l.Changed(), l.Serves(uint64(os.Getpid()), string(l.Plan().Text))); err != nil {
				return err
			}
		case s := <-signals:
			if s != syscall.SIGUSR1 {
				return l.Close()
			}
			return errors.Join(l.Keep(), syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
		}
	}
}

// events are those of a test: for each shard what it is.
type events struct{ said [2]chan string }

func newEvents() *events {
	return &events{[2]chan string{make(chan string, 100), make(chan string, 100)}}
}

func (e *events) Serves(shard int, epoch uint64, store string) {
	e.said[shard] <- fmt.Sprintf("%d %s", epoch, store)
}
func (e *events) Ended(shard int)   { e.said[shard] <- "ended" }
func (e *events) Changed(shard int) { e.said[shard] <- "changed" }
func (e *events) Refuses(shard int, why string) {
	if why != "" {
		e.said[shard] <- "refuses: " + why
	}
}

// next returns the next thing that is said of a shard, but for one.
func (e *events) next(t *testing.T, shard int, but string) string {
	for end := time.After(20 * time.Second); ; {
		select {
		case what := <-e.said[shard]:
			if what != but {
				return what
			}
		case <-end:
			if t == nil {
				return "nothing"
			}
			t.Fatal("nothing happens")
		}
	}
}

// serves returns the process that serves a shard next.
func (e *events) serves(t *testing.T, shard int) int {
	pid, _, _ := strings.Cut(e.next(t, shard, "ended"), " ")
	n, err := strconv.Atoi(pid)
	if err != nil && t != nil {
		t.Fatalf("shard %d is not served: %s", shard, pid)
	}
	return n
}

func plans(text string) []Plan {
	return []Plan{{Path: "p", Text: []byte(text), Node: "a"}, {Path: "p", Text: []byte(text), Node: "a", Shard: 1}}
}

func begin(e *events, text string) *Group {
	g := Start(Options{Program: "/proc/self/exe", Arguments: []string{"--" + Flag}, Events: e, Log: logs.Discard(), Plans: plans(text)})
	g.May(0, true, 0)
	g.May(1, true, 0)
	return g
}

// TestGroup: each server is started again when it was killed, has begun again, and was released,
// and the other one is not touched; both have new plans; all end with a stop.
func TestGroup(t *testing.T) {
	e := newEvents()
	g := begin(e, "one")
	first, other := e.serves(t, 0), e.serves(t, 1)
	must.Succeed(t, syscall.Kill(first, syscall.SIGKILL))
	second := e.serves(t, 0)
	must.Succeed(t, syscall.Kill(second, syscall.SIGUSR1))
	if again := e.serves(t, 0); again != second || second == first {
		t.Errorf("processes %d, %d, %d", first, second, again)
	}
	g.May(0, false, 0)
	g.Release(0)
	if what := e.next(t, 0, ""); what != "ended" {
		t.Errorf("a server that was released: %s", what)
	}
	g.May(0, true, 100*time.Millisecond)
	third := e.serves(t, 0)
	next := plans("two")
	next[1] = plans("one")[1]
	g.Replan(next, 1)
	if a, b := e.next(t, 0, "ended"), e.next(t, 0, ""); a != "changed" || b != fmt.Sprint(third, " two") {
		t.Errorf("with another plan: %s, %s", a, b)
	}
	g.Replan(plans("three"), -1)
	if a, b := e.next(t, 1, "ended"), e.next(t, 1, ""); a != "changed" || b != fmt.Sprint(other, " three") {
		t.Errorf("the other one: %s, %s", a, b)
	}
	next = plans("refuse")
	next[0] = plans("three")[0]
	g.Replan(next, 0)
	if a := e.next(t, 1, "ended"); a != "refuses: refuse" {
		t.Errorf("a plan that is refused: %s", a)
	}
	g.Stop(t.Context())
	for _, pid := range []int{third, other} {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d after the stop: %v", pid, err)
		}
	}
}

// TestGroup_Line: each process of a shard has a larger number than those that have ended before, and
// keeps it when it begins again.
func TestGroup_Line(t *testing.T) {
	e := newEvents()
	g := begin(e, "line")
	defer g.Stop(t.Context())
	served := func(shard int) (pid int, line string) {
		t.Helper()
		if _, err := fmt.Sscan(e.next(t, shard, "ended"), &pid, &line); err != nil {
			t.Fatal(err)
		}
		return pid, line
	}
	pid, first := served(0)
	_, other := served(1)
	id, ok := strings.CutSuffix(first, ".1")
	if !ok || id == "" || strings.HasPrefix(other, id) {
		t.Errorf("lines %q and %q of two shards", first, other)
	}
	must.Succeed(t, syscall.Kill(pid, syscall.SIGKILL))
	pid, second := served(0)
	must.Succeed(t, syscall.Kill(pid, syscall.SIGUSR1))
	if _, again := served(0); second != id+".2" || again != second {
		t.Errorf("lines %q, then %q and %q", first, second, again)
	}
}

// TestGroup_Hangs: a server that does not end in time is killed; one that fails is started again.
func TestGroup_Hangs(t *testing.T) {
	e := newEvents()
	g := begin(e, "one")
	failing, pid := e.serves(t, 0), e.serves(t, 1)
	must.Succeed(t, syscall.Kill(pid, syscall.SIGSTOP))
	g.Replan(plans("fail"), 0)
	must.Succeed(t, syscall.Kill(failing, syscall.SIGKILL))
	for range 5 { // once it has ended, and twice for each that begins and ends
		if what := e.next(t, 0, ""); what != "ended" {
			t.Errorf("a server that fails: %s", what)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	g.Stop(ctx)
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("a server that hangs: %v", err)
	}
}

// TestGroup_NodeKilled: servers end with the process that has started them, however that ends.
func TestGroup_NodeKilled(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", nodeFlag)
	out, err := cmd.StdoutPipe()
	must.Succeed(t, errors.Join(err, cmd.Start()))
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	must.Succeed(t, err)
	if fields := strings.Fields(line); len(fields) != 2 || slices.Contains(fields, "0") {
		t.Errorf("servers %q", line)
	}
	must.Succeed(t, cmd.Process.Kill())
	// The servers have the pipe, too: it ends with the last of them.
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
}

// A program that nothing has started as a server refuses to be one.
func TestJoin_Alone(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "--"+Flag)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "is for odx itself") {
		t.Errorf("%v: %s", err, out)
	}
}

// FuzzReceive receives anything.
func FuzzReceive(f *testing.F) {
	f.Add([]byte(`{"may":{"claim":true,"after":5}}{"plan":{"path":"p","text":"","node":"a","shard":1}}`))
	f.Add([]byte(`{"begins":true}{"serves":{"epoch":1,"store":""}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		l := &Link{first: make(chan struct{})}
		if err := receive(bytes.NewReader(text), l.order); err == nil {
			t.Error("no end")
		}
		p := &process{g: &Group{o: Options{Events: ignored{}, Log: logs.Discard()}}}
		if err := receive(bytes.NewReader(text), p.report); err == nil {
			t.Error("no end")
		}
	})
}

type ignored struct{}

func (ignored) Serves(int, uint64, string) {}
func (ignored) Ended(int)                  {}
func (ignored) Changed(int)                {}
func (ignored) Refuses(int, string)        {}
