package shardserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"odx/pool/node"
)

// Link is the connection of a server to the process of its node.
type Link struct {
	// Turn is when the shard may be claimed.
	Turn node.Turn

	reload    func()
	inherited *os.File // stays open for this process, if it begins again
	conn      *net.UnixConn
	reading   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	plan  Plan
	first chan struct{} // closed with the first plan; nil then
}

// Join joins the process that has started this one, and waits for its plan. lost is called when
// that process has ended, reload when another plan than that of the start is to be served; it must
// not block.
func Join(ctx context.Context, lost, reload func()) (*Link, error) {
	first := make(chan struct{})
	l := &Link{reload: reload, inherited: os.NewFile(linkFD, "node"), first: first}
	conn, err := net.FileConn(l.inherited)
	if err != nil {
		return nil, fmt.Errorf("--%s is for odx itself: %w", Flag, err)
	}
	var ok bool
	if l.conn, ok = conn.(*net.UnixConn); !ok {
		return nil, errors.Join(fmt.Errorf("--%s is for odx itself: a %T", Flag, conn), conn.Close())
	}
	syscall.CloseOnExec(linkFD)
	ended := make(chan struct{})
	l.reading.Go(func() {
		defer close(ended)
		_ = receive(l.conn, l.order) // the end of the other process, or of this link
		lost()
	})
	if err := l.send(report{Begins: true}); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	select {
	case <-first:
		if v := l.Plan().Version; v == version {
			return l, nil
		} else {
			err = fmt.Errorf("the process of the node has version %d of the messages to servers of shards, this program version %d: start the node again", v, version)
		}
	case <-ended:
		err = errors.New("the process of the node has ended")
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, l.Close())
}

// order takes an order.
func (l *Link) order(o *order) {
	if o.May != nil {
		l.Turn.Set(o.May.Claim, o.May.After)
	}
	if o.Plan != nil {
		l.replan(*o.Plan)
	}
	if o.Reload {
		l.reload()
	}
}

// replan has a plan be the one to serve.
func (l *Link) replan(p Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plan = p
	if l.first != nil {
		close(l.first)
		l.first = nil
	}
}

// Plan returns what is to be served.
func (l *Link) Plan() Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plan
}

// Serves says that the shard is served.
func (l *Link) Serves(epoch uint64, store string) error {
	return l.send(report{Serves: &serves{epoch, store}})
}

// Changed says that the configuration file was changed by this process.
func (l *Link) Changed() error { return l.send(report{Changed: true}) }

// Refuses says why this process goes on by the plan that it had; "": it does not.
func (l *Link) Refuses(why string) error { return l.send(report{Refuses: &why}) }

func (l *Link) send(r report) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = l.conn.SetWriteDeadline(time.Now().Add(sendLimit))
	}
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, err = l.conn.Write(text)
	}
	if err != nil {
		return fmt.Errorf("message to the process of the node: %w", err)
	}
	return nil
}

// Keep keeps the link open for this process when it begins again (execve).
func (l *Link) Keep() error {
	_, err := unix.FcntlInt(linkFD, unix.F_SETFD, 0)
	return err
}

// Close ends the link. lost is called.
func (l *Link) Close() error {
	err := l.conn.Close()
	l.reading.Wait()
	return err
}
