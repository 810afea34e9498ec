package successor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/must"
)

// TestMain makes the test binary the successor when its first argument says which.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "be ") {
		if err := be(strings.TrimPrefix(os.Args[1], "be ")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// be is a successor that ends where how says. One that serves writes what it was given into
// the last file.
func be(how string) error {
	if how == "dead" {
		return nil
	}
	p, plan, err := Connect()
	if err != nil {
		return err
	}
	if how == "unwilling" {
		return p.Refuse(fmt.Errorf("no: %s, %s, %d", plan.Path, plan.Configuration, plan.StateVersion))
	}
	if err := p.Ready(); err != nil || how == "ready" {
		return err
	}
	if how == "patient" { // the time in which it was to be ready is over
		if err := p.deadline(-time.Second); err != nil {
			return err
		}
	}
	e, err := p.Receive()
	if err != nil || how == "heir" {
		return err
	}
	switch how {
	case "hanging":
		select {}
	case "orphaned":
		if _, _, err := p.receive(); err == nil {
			return errors.New("the predecessor has sent more")
		}
	}
	if how == "late" { // it serves, and the other side does not hear of it in time
		if err := p.send(packet{Kind: "nonsense"}, nil); err != nil {
			return err
		}
	}
	if err := p.Serving(); err != nil {
		return err
	}
	out := e.Files[len(e.Files)-1]
	for _, f := range e.Files[:len(e.Files)-1] {
		data, err := io.ReadAll(f.File)
		if err != nil {
			return err
		}
		fmt.Fprintf(out.File, "%s %s;", f.Name, data)
	}
	fmt.Fprintf(out.File, "%d bytes", len(e.State))
	return e.Close()
}

func start(t *testing.T, how string) (*Child, error) {
	t.Helper()
	return Start(t.Context(), os.Args[0], []string{"be " + how}, Plan{Path: "a.yaml", Configuration: []byte("text"), StateVersion: 7})
}

// estate has two files with content, the end of a pipe, and a state that is longer than a
// packet. The successor writes into the pipe.
func estate(t *testing.T) (*Estate, *os.File) {
	t.Helper()
	e := &Estate{State: bytes.Repeat([]byte("x"), 1<<20)}
	for _, name := range []string{"one", "two"} {
		f, err := memoryFile([]byte("content of " + name))
		must.Succeed(t, err)
		_, err = f.Seek(0, io.SeekStart)
		must.Succeed(t, err)
		e.Files = append(e.Files, File{name, f})
	}
	r, w, err := os.Pipe()
	must.Succeed(t, err)
	e.Files = append(e.Files, File{"out", w})
	t.Cleanup(func() { r.Close() })
	return e, r
}

func TestChild_Pass(t *testing.T) {
	c, err := start(t, "good")
	must.Succeed(t, err)
	e, out := estate(t)
	must.Succeed(t, c.Pass(t.Context(), e), c.Leave(), e.Close())
	got, err := io.ReadAll(out)
	if want := "one content of one;two content of two;1048576 bytes"; err != nil || string(got) != want {
		t.Errorf("the successor got %q (%v), want %q", got, err, want)
	}
	<-c.ended
}

// A successor that ends, or refuses, leaves what is passed as it was. One that may have
// served is distinguished from one that has not.
func TestChild_Fails(t *testing.T) {
	for how, want := range map[string]string{"dead": "has ended", "unwilling": "no: a.yaml, text, 7"} {
		if _, err := start(t, how); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", how, err, want)
		}
	}
	for how, served := range map[string]bool{"ready": false, "heir": false, "late": true} {
		c, err := start(t, how)
		must.Succeed(t, err)
		e, _ := estate(t)
		if err := c.Pass(t.Context(), e); err == nil {
			t.Errorf("%s: passed", how)
		}
		if how == "late" {
			<-c.ended
		}
		if err := c.Kill(); errors.Is(err, ErrServed) != served {
			t.Errorf("%s: %v, want served %v", how, err, served)
		}
		for _, f := range e.Files[:2] {
			if _, err := f.File.Stat(); err != nil {
				t.Error(err)
			}
		}
		must.Succeed(t, e.Close())
	}
	if _, err := Start(t.Context(), "/none/odx", nil, Plan{}); err == nil {
		t.Error("a program that is not there was started")
	}
}

// A successor that hangs does not keep a process that is to end from its end.
func TestChild_PassHurried(t *testing.T) {
	c, err := start(t, "hanging")
	must.Succeed(t, err)
	e, _ := estate(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := c.Pass(ctx, e); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("passed: %v", err)
	}
	if took := time.Since(began); took > 2*hurriedLimit {
		t.Errorf("that took %v", took)
	}
	must.Succeed(t, c.Kill(), e.Close())
}

// A process that was stopped until the time of the successor was over finds that it serves.
func TestChild_PassStopped(t *testing.T) {
	c, err := start(t, "good")
	must.Succeed(t, err)
	e, _ := estate(t)
	must.Succeed(t, c.sendEstate(e))
	<-c.ended
	must.Succeed(t, c.deadline(-time.Second), c.awaitServing(), c.Leave(), e.Close())
}

// A successor whose predecessor ends, killed for example, after everything was passed, serves.
func TestPredecessor_Ends(t *testing.T) {
	c, err := start(t, "orphaned")
	must.Succeed(t, err)
	e, out := estate(t)
	must.Succeed(t, c.deadline(servingLimit), c.sendEstate(e), c.Leave(), e.Close())
	if got, err := io.ReadAll(out); err != nil || !strings.HasSuffix(string(got), "1048576 bytes") {
		t.Errorf("the successor got %q (%v)", got, err)
	}
	<-c.ended
}

// TestPredecessor_Waits: what is passed comes whenever the predecessor is ready.
func TestPredecessor_Waits(t *testing.T) {
	c, err := start(t, "patient")
	must.Succeed(t, err)
	e, _ := estate(t)
	must.Succeed(t, c.Pass(t.Context(), e), c.Leave(), e.Close())
	<-c.ended
	if !c.Ended() {
		t.Error("the child has not ended")
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"file","name":"claim"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parsePacket(data); err == nil && p.Version != version {
			t.Errorf("%+v of %q", p, data)
		}
	})
}
