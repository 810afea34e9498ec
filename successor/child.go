package successor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readyLimit is how long a program may take to check that it can take over.
	readyLimit = 10 * time.Second
	// servingLimit is how long it may take to serve.
	servingLimit = 30 * time.Second
)

// hurriedLimit is what is left of servingLimit once this process is to end: it is to answer a
// signal in time, whatever the child does.
const hurriedLimit = 2 * time.Second

// lastLook is how long a child that was late is still listened to.
const lastLook = 100 * time.Millisecond

// childFD is the descriptor of the socket pair in the successor: the first after standard
// error.
const childFD = 3

// Child is a program that is to take over.
type Child struct {
	link
	cmd   *exec.Cmd
	ended chan struct{} // closed when the child has ended
}

// Start starts a program and returns when it has checked that it can take over. It inherits
// standard output and error.
func Start(ctx context.Context, program string, args []string, plan Plan) (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "successor")
	l, err := linkOf(os.NewFile(uintptr(pair[0]), "predecessor"))
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	c := &Child{link: l, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{theirs}
	err = c.cmd.Start()
	theirs.Close() // so that the end of the child is the end of the connection
	if err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	go func() { // ends with the child or with this process
		defer close(c.ended)
		_ = c.cmd.Wait() // how it ended is in the log
	}()
	if err := c.check(ctx, plan); err != nil {
		return nil, errors.Join(err, c.Kill())
	}
	return c, nil
}

// linkOf returns the link over a socket, which it takes.
func linkOf(f *os.File) (link, error) {
	defer f.Close() // the connection has a descriptor of its own
	conn, err := net.FileConn(f)
	if err != nil {
		return link{}, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return link{}, errors.Join(fmt.Errorf("a %T, not a Unix socket", conn), conn.Close())
	}
	return link{u}, nil
}

// check sends the plan, and returns why the child cannot take over.
func (c *Child) check(ctx context.Context, plan Plan) error {
	defer context.AfterFunc(ctx, func() { c.conn.Close() })()
	if err := c.deadline(readyLimit); err != nil {
		return err
	}
	if err := c.sendBytes(packet{Kind: kindConfiguration, Name: plan.Path, State: plan.StateVersion}, plan.Configuration); err != nil {
		return err
	}
	_, err := c.expect(kindReady)
	return late(ended(err), "is not ready", readyLimit)
}

// ended says of the end of a connection what it means.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("the new process has ended; what it wrote to standard error says why (%w)", err)
	}
	return err
}

// PID returns the number of the child's process.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Ended reports whether the child has ended.
func (c *Child) Ended() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// Pass passes duplicates of the files of e, and its state, and returns when the child serves.
// From the end of ctx on, the child has little time left. After an error the caller kills the
// child before it uses the files again.
func (c *Child) Pass(ctx context.Context, e *Estate) error {
	if err := c.deadline(servingLimit); err != nil {
		return err
	}
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(hurried)
		_ = c.deadline(hurriedLimit) // of a connection that is closed, it is of no use
	})
	err := c.sendEstate(e)
	if err == nil {
		err = c.awaitServing()
	}
	if !stop() {
		<-hurried // before another deadline
	}
	return late(ended(err), "does not serve", servingLimit)
}

// late says of the end of a time limit what it means.
func late(err error, what string, limit time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the new process %s in the time that it has, %v (%w)", what, limit, err)
	}
	return err
}

// sendEstate sends the files and the state of e.
func (c *Child) sendEstate(e *Estate) error {
	for _, f := range e.Files {
		if err := c.send(packet{Kind: kindFile, Name: f.Name}, f.File); err != nil {
			return fmt.Errorf("pass %s: %w", f.Name, err)
		}
	}
	return c.sendBytes(packet{Kind: kindState}, e.State)
}

// awaitServing returns when the child serves. If this process was stopped, its time may be over
// although the child was in time.
func (c *Child) awaitServing() error {
	_, err := c.expect(kindServing)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.served() {
		return nil
	}
	return err
}

// served reports whether the child has said that it serves.
func (c *Child) served() bool {
	if c.deadline(lastLook) != nil {
		return false
	}
	_, err := c.expect(kindServing)
	return err == nil
}

// Kill ends the child and waits for its end. Its error is ErrServed if the child has served
// by then: it may have said so too late.
func (c *Child) Kill() error {
	err := c.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-c.ended
	// What it has sent is there now, and then the end of the connection.
	if c.served() {
		err = errors.Join(err, ErrServed)
	}
	return errors.Join(err, c.conn.Close())
}

// Stop asks a child that serves to end, as SIGTERM does.
func (c *Child) Stop() error { return c.cmd.Process.Signal(unix.SIGTERM) }

// Reload asks a child that serves to read its configuration again, as SIGHUP does.
func (c *Child) Reload() error { return c.cmd.Process.Signal(unix.SIGHUP) }

// Leave ends the connection to a child that serves.
func (c *Child) Leave() error { return c.conn.Close() }
