package kit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	// The child goes with the test, however that ends. What it starts is in its group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
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

// send sends sig to the process and to those that it has started.
func (p *process) send(sig syscall.Signal) error {
	if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%s: send %v: %w", p.name, sig, err)
	}
	return nil
}

// signal sends sig and waits for the end; a process that outlives limit is
// killed, and that is an error. The end is that of the process and of its successors,
// which have its output.
func (p *process) signal(sig syscall.Signal, limit time.Duration) error {
	if err := p.send(sig); err != nil {
		return err
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.ended:
		return nil
	case <-t.C:
		err := p.send(syscall.SIGKILL)
		<-p.ended
		return errors.Join(err, fmt.Errorf("%s (process %d) was still there %v after %v", p.name, p.cmd.Process.Pid, limit, sig))
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
	mu   sync.Mutex // guards b and more
	b    strings.Builder
	more chan struct{} // closed with the next Write; nil while none waits
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.b.Write(p)
}

// wait returns once found takes what was written, or with the error of ctx.
func (l *logBuffer) wait(ctx context.Context, found func(log string) bool) error {
	for {
		l.mu.Lock()
		log := l.b.String()
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		if found(log) {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
