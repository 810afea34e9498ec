package kit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child whose output is kept and whose end can be waited for.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   readableLog
	ended chan struct{} // closed after err was set
	err   error         // of Wait; read only after ended
}

// startProcess runs cmd with stdout and stderr collected in log. Every line
// of stdout is offered to line, from one goroutine.
func startProcess(cmd *exec.Cmd, log readableLog, line func(string)) (*process, error) {
	// The child goes with the test, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &process{name: filepath.Base(cmd.Path), cmd: cmd, log: log, ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		defer close(p.ended)
		all := io.TeeReader(stdout, log)
		for r := bufio.NewScanner(all); r.Scan(); {
			line(r.Text())
		}
		_, _ = io.Copy(io.Discard, all) // what follows a line too long to scan
		p.err = cmd.Wait()
	}()
	return p, nil
}

// readableLog is a log that can be read.
type readableLog interface {
	io.Writer
	fmt.Stringer
}

// kill ends a process by SIGKILL.
func kill(p *process) error { return p.signal(syscall.SIGKILL, StopLimit) }

// signal sends sig and waits for the end; a process that outlives limit is
// killed, and that is an error.
func (p *process) signal(sig os.Signal, limit time.Duration) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: send %v: %w", p.name, sig, err)
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.ended:
		return nil
	case <-t.C:
		p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s (process %d) was still there %v after %v", p.name, p.cmd.Process.Pid, limit, sig)
	}
}

// waitFor waits until ready is closed. That the process ends first, or ctx
// does, is an error that carries the log.
func (p *process) waitFor(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-p.ended:
		return fmt.Errorf("%s ended before it was ready (%v); it said:\n%s", p.name, p.err, p.log)
	case <-ctx.Done():
		return fmt.Errorf("%s was not ready: %w; it said:\n%s", p.name, ctx.Err(), p.log)
	}
}

// lineLog hands each line of what is written on, and to line.
type lineLog struct {
	to   *logBuffer
	line func(string)

	mu   sync.Mutex // guards rest
	rest []byte     // a line that has not ended
}

// Write implements io.Writer.
func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, ended := bytes.Cut(l.rest, []byte("\n"))
		if !ended {
			return l.to.Write(p)
		}
		l.line(string(line))
		l.rest = rest
	}
}

// String returns what the target has said.
func (l *lineLog) String() string { return l.to.String() }

// logBuffer keeps everything written to it, for one process after another.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
