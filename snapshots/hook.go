package snapshots

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"odx/conf"
)

const (
	// maxOutput bounds what is kept of the output of a program, in bytes, maxFact the length
	// of a variable of its environment: the kernel has a bound for all of them.
	maxOutput = 8 << 10
	maxFact   = 64 << 10
	// outputLimit is how long the output of a program is awaited that has ended, and whose
	// children have not.
	outputLimit = 2 * time.Second
)

// facts are the variables that a program finds in its environment, in addition to PATH and
// LANG. Nothing of the environment of the server is passed on: it can have secrets.
type facts struct {
	Policy, Stage, Time string
	Run                 uint64
	// Volumes and Snapshots are names, a line each.
	Volumes, Snapshots []string
	// Result is "ok", "failed" or "interrupted", and Error why; both are for what is run
	// after the snapshots.
	Result, Error string
}

func (f *facts) environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		"ODX_POLICY=" + f.Policy, "ODX_STAGE=" + f.Stage, "ODX_TIME=" + f.Time, fmt.Sprintf("ODX_RUN=%d", f.Run),
		"ODX_VOLUMES=" + lines(f.Volumes),
	}
	if f.Stage == "after" {
		reason := strings.ReplaceAll(f.Error[:min(len(f.Error), maxError)], "\x00", " ")
		env = append(env, "ODX_SNAPSHOTS="+lines(f.Snapshots), "ODX_RESULT="+f.Result, "ODX_ERROR="+reason)
	}
	return env
}

// lines returns names, a line each, as many as a variable can have.
func lines(names []string) string {
	var b strings.Builder
	for _, name := range names {
		if b.Len()+len(name)+1 > maxFact {
			break
		}
		b.WriteString(name + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// output keeps the beginning of what is written to it.
type output struct {
	b    bytes.Buffer
	more int
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n := min(len(p), maxOutput-o.b.Len())
	o.b.Write(p[:n])
	o.more += len(p) - n
	return len(p), nil
}

func (o *output) String() string {
	text := strings.TrimSpace(o.b.String())
	if o.more > 0 {
		text += fmt.Sprintf(" … (%d bytes more)", o.more)
	}
	return text
}

// errHookLimit: a program was killed at its time limit.
var errHookLimit = errors.New("killed at its time limit")

// runHook runs a program, without a shell, until it ends. At its time limit, or when ctx ends,
// it is killed with the processes of its group. It returns what the program wrote to standard
// output and standard error.
func runHook(ctx context.Context, h *conf.Hook, f *facts) (written string, err error) {
	program := h.Command[0]
	if err := conf.CheckHook(program); err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeoutCause(ctx, h.TimeLimit, errHookLimit)
	defer cancel()
	cmd := exec.CommandContext(limited, program, h.Command[1:]...)
	var out output
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", f.environment(), &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputLimit
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success():
		return out.String(), nil
	case limited.Err() != nil && cmd.Process != nil:
		return out.String(), fmt.Errorf("hook %s: %w (%v)", program, context.Cause(limited), h.TimeLimit)
	}
	return out.String(), fmt.Errorf("hook %s: %w", program, err)
}
