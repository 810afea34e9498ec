package shardserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

const (
	// againFirst and againMost are how long a server that has ended by itself is not started again:
	// more each time, until one has run for steady.
	againFirst, againMost = 250 * time.Millisecond, 10 * time.Second
	steady                = 10 * time.Second
	// sendLimit bounds how long a server may take to be sent something: its socket has room.
	sendLimit = time.Second
)

// Events are told of what servers do. Their methods are called concurrently.
type Events interface {
	// Serves: a server has its shard. Ended: it has it no more, if it had.
	Serves(shard int, epoch uint64, store string)
	Ended(shard int)
	// Changed: a server has changed the configuration file.
	Changed(shard int)
	// Refuses: a server goes on by the plan that it had, and why; "": it does not.
	Refuses(shard int, why string)
}

// Options are what a Group is made of.
type Options struct {
	// Program is started with Arguments.
	Program   string
	Arguments []string
	Events    Events
	Log       *logrus.Entry
	// Plan has one for each shard, by its number.
	Plans []Plan
}

// Group is the servers of all shards. It implements node.Servers.
type Group struct {
	o       Options
	ctx     context.Context // ends with Stop
	stop    context.CancelFunc
	running sync.WaitGroup
	list    []*process
}

// process is one of a shard, and those after it.
type process struct {
	g     *Group
	shard int

	mu       sync.Mutex // guards what follows
	line     string     // random
	count    int        // of the processes that were started in the line
	plan     Plan
	may      may
	conn     *net.UnixConn // nil while there is no process
	cmd      *exec.Cmd
	released bool // it was asked to end
}

// Start starts a server for each plan.
func Start(o Options) *Group {
	g := &Group{o: o}
	g.ctx, g.stop = context.WithCancel(context.Background())
	for k, plan := range o.Plans {
		g.list = append(g.list, &process{g: g, shard: k, plan: plan, line: rand.Text()})
	}
	for _, p := range g.list {
		g.running.Go(p.run)
	}
	return g
}

// run keeps a server running until Stop.
func (p *process) run() {
	// A process that is to end with this one ends with the thread that has started it.
	runtime.LockOSThread()
	log := p.g.o.Log.WithField("shard", p.shard)
	wait := againFirst
	for p.g.ctx.Err() == nil {
		begun := time.Now()
		asked, err := p.once()
		if p.g.ctx.Err() != nil {
			return
		}
		if asked || time.Since(begun) >= steady {
			wait = againFirst
		}
		if !asked {
			log.WithError(err).WithField("again", wait.String()).Error("server of a shard has ended; starting it again")
			select {
			case <-p.g.ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, againMost)
		}
	}
}

// once starts a server and waits for its end. asked reports whether it was asked to end.
func (p *process) once() (asked bool, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "node")
	defer theirs.Close()
	conn, err := connOf(os.NewFile(uintptr(pair[0]), "server"))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	cmd := exec.Command(p.g.o.Program, p.g.o.Arguments...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); name != "NOTIFY_SOCKET" && name != "WATCHDOG_USEC" && name != "WATCHDOG_PID" { // of the node alone
			cmd.Env = append(cmd.Env, v)
		}
	}
	p.mu.Lock()
	p.count++
	if err = p.g.ctx.Err(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.mu.Unlock()
		return false, err
	}
	p.conn, p.cmd, p.released = conn, cmd, false
	p.mu.Unlock()
	theirs.Close() // so that the end of the process is that of the connection
	var reading sync.WaitGroup
	reading.Go(func() { _ = receive(conn, p.report) }) // ends with the process, which Wait reports
	err = cmd.Wait()
	conn.Close()
	reading.Wait()
	p.mu.Lock()
	if cmd.ProcessState == nil { // it is not certain that it has ended
		p.line, p.count = rand.Text(), 0
	}
	asked = p.released
	p.conn, p.cmd = nil, nil
	p.mu.Unlock()
	p.g.o.Events.Ended(p.shard)
	if err == nil && !asked {
		err = errors.New("it has ended by itself")
	}
	return asked, err
}

// connOf returns the connection over a socket, which it takes.
func connOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close() // the connection has a descriptor of its own
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a %T, not a Unix socket", conn), conn.Close())
	}
	return u, nil
}

// report handles what a server says.
func (p *process) report(r *report) {
	switch {
	case r.Begins:
		p.g.o.Events.Ended(p.shard)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.send(p.planned())
		p.send(order{May: &p.may})
	case r.Serves != nil:
		p.g.o.Events.Serves(p.shard, r.Serves.Epoch, r.Serves.Store)
	case r.Changed:
		p.g.o.Events.Changed(p.shard)
	case r.Refuses != nil:
		p.g.o.Events.Refuses(p.shard, *r.Refuses)
	}
}

// planned returns the order with the plan of the server. p.mu is held.
func (p *process) planned() order {
	plan := p.plan
	plan.Version, plan.Line = version, fmt.Sprintf("%s.%d", p.line, p.count)
	return order{Plan: &plan}
}

// send sends an order to the server, if there is one; one that does not take it is ended. p.mu is
// held.
func (p *process) send(o order) {
	if p.conn == nil {
		return
	}
	text, err := json.Marshal(o)
	if err == nil {
		err = p.conn.SetWriteDeadline(time.Now().Add(sendLimit))
	}
	if err == nil {
		_, err = p.conn.Write(text)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EPIPE) {
		p.g.o.Log.WithError(err).WithField("shard", p.shard).Error("server of a shard takes no orders; ending it")
		p.signal(syscall.SIGKILL)
	}
}

// signal sends a signal to the server, if there is one. p.mu is held.
func (p *process) signal(s os.Signal) {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s) // it may have ended
	}
}

// May implements node.Servers.
func (g *Group) May(shard int, claim bool, after time.Duration) {
	p := g.list[shard]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.may = may{claim, after}
	p.send(order{May: &p.may})
}

// Release implements node.Servers.
func (g *Group) Release(shard int) {
	p := g.list[shard]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released = true
	p.signal(syscall.SIGTERM)
}

// Replan gives the servers other plans. Those that serve reload the file, but for the one that has
// changed it; -1: all do.
func (g *Group) Replan(plans []Plan, but int) {
	for k, p := range g.list {
		p.mu.Lock()
		p.plan = plans[k]
		o := p.planned()
		o.Reload = k != but
		p.send(o)
		p.mu.Unlock()
	}
}

// Stop has all servers end, and waits for them; what has not ended when ctx does is killed.
func (g *Group) Stop(ctx context.Context) {
	g.stop()
	for _, p := range g.list {
		p.mu.Lock()
		p.released = true
		p.signal(syscall.SIGTERM)
		p.mu.Unlock()
	}
	defer context.AfterFunc(ctx, func() {
		for _, p := range g.list {
			p.mu.Lock()
			p.signal(syscall.SIGKILL)
			p.mu.Unlock()
		}
	})()
	g.running.Wait()
}
