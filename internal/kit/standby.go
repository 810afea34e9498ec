package kit

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// odxProcess is a process of an odx target.
type odxProcess struct {
	*process
	ready, attached chan struct{} // closed when the log says so
}

// startODX starts one process of a target.
func (t *Target) startODX(binary string, args ...string) (*odxProcess, error) {
	p := &odxProcess{ready: make(chan struct{}), attached: make(chan struct{})}
	ready, attached := sync.OnceFunc(func() { close(p.ready) }), sync.OnceFunc(func() { close(p.attached) })
	log := &lineLog{to: t.log, line: func(line string) {
		switch {
		case strings.Contains(line, "standby holds a listening socket") && strings.Contains(line, t.Portal):
			attached()
		case strings.Contains(line, `msg="handed over"`):
			select {
			case t.handed <- struct{}{}:
			default: // nothing waits
			}
		}
	}}
	var err error
	line := append([]string{binary, "serve", "--config", t.ConfigFile()}, args...)
	if t.machine != nil {
		line = t.machine.Line(line[0], line[1:]...)
	}
	p.process, err = startProcess(exec.Command(line[0], line[1:]...), log, func(line string) {
		if strings.Contains(line, "is ready on "+t.Portal) {
			ready()
		}
	})
	return p, err
}

// next returns the process that serves from now on: the standby if there is one.
func (t *Target) next(binary string) (*odxProcess, error) {
	if p := t.standby; p != nil {
		t.standby = nil
		return p, nil
	}
	return t.startODX(binary)
}

// await starts a standby and waits until it holds the portal's socket.
func (t *Target) await(ctx context.Context, binary string) error {
	p, err := t.startODX(binary, "--standby")
	if err != nil {
		return err
	}
	t.standby = p
	return p.waitFor(ctx, p.attached)
}

// KillStandby ends the standby as a crash would, by SIGKILL. It may be serving already.
func (t *Target) KillStandby() error {
	p := t.standby
	if p == nil {
		return errors.New("there is no standby")
	}
	t.standby = nil
	return kill(p.process)
}

// BeginHandover has the target hand over to another process of its program.
func (t *Target) BeginHandover() error { return t.proc.send(syscall.SIGUSR2) }

// Handover is BeginHandover, and waits until the other process serves.
func (t *Target) Handover(ctx context.Context) error {
	if err := t.BeginHandover(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return t.proc.waitFor(ctx, t.handed)
}
