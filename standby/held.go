package standby

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/internal/localsocket"
	"odx/owner"
)

// A standby looks for a server to attach to after retryFirst, when it was attached to one,
// and less often the longer it finds none: a server that stops does not know of a standby
// that is not attached.
const retryFirst, retryEvery = 10 * time.Millisecond, time.Second

// maxHeld bounds the sockets that a standby holds.
const maxHeld = 256

// Held are the listening sockets of the server before this one. Its zero value holds none.
type Held struct {
	mu      sync.Mutex // guards sockets
	sockets map[name]net.Listener
}

// name is what a server was told to listen on.
type name struct{ network, address string }

// Wait takes the store in dir as soon as no process owns it. Until then it holds the
// listening sockets of the process that does. An error means that ctx has ended, or that the
// store cannot be waited for; nothing is held then.
func Wait(ctx context.Context, dir string, log *logrus.Entry) (*owner.Owner, *Held, error) {
	h := new(Held)
	following, stop := context.WithCancel(ctx)
	var attaching sync.WaitGroup
	attaching.Go(func() { h.follow(following, dir, log) })
	claim, err := owner.Wait(ctx, owner.Directory(dir))
	stop()
	attaching.Wait()
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return claim, h, nil
}

// follow attaches to one server after the other until ctx ends.
func (h *Held) follow(ctx context.Context, dir string, log *logrus.Entry) {
	last, wait := "", retryFirst
	for {
		attached, err := h.attach(ctx, dir, log)
		if ctx.Err() != nil {
			return
		}
		if why := fmt.Sprint(err); err != nil && why != last {
			log.WithError(err).Info("not attached to the server of the store; retrying")
			last = why
		}
		if attached {
			last, wait = "", retryFirst
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(2*wait, retryEvery)
	}
}

// attach attaches to the server of the store in dir, and returns when one of both ends.
// attached reports whether it got a socket.
func (h *Held) attach(ctx context.Context, dir string, log *logrus.Entry) (attached bool, err error) {
	var conn *net.UnixConn
	err = localsocket.At(dir, socketName, func(path string) (err error) {
		conn, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		return err
	})
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for {
		n, l, err := receive(conn)
		if err != nil || n == nil {
			return attached, err
		}
		if l == nil {
			if withdrawn := h.take(*n); withdrawn != nil {
				if err := withdrawn.Close(); err != nil {
					return attached, err
				}
				log.WithField("address", n.address).Info("standby has given up a listening socket that the server has closed")
			}
			continue
		}
		if err := h.Hold(n.network, n.address, l); err != nil {
			return attached, err
		}
		attached = true
		log.WithField("address", n.address).Info("standby holds a listening socket of the server")
	}
}

// receive receives a socket, or the name of one that is withdrawn; neither at the end of the
// connection.
func receive(conn *net.UnixConn) (*name, net.Listener, error) {
	data, file, err := localsocket.Receive(conn)
	if errors.Is(err, io.EOF) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if file != nil {
		defer file.Close() // the listener has a descriptor of its own
	}
	p, err := parsePacket(data)
	if err != nil {
		return nil, nil, err
	}
	if p.Withdrawn {
		return &name{p.Network, p.Address}, nil, nil
	}
	if file == nil {
		return nil, nil, errors.New("packet of a server without a socket")
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, nil, err
	}
	return &name{p.Network, p.Address}, l, nil
}

// Hold keeps a socket, in place of an earlier one of the same address. After an error it is
// closed.
func (h *Held) Hold(network, address string, l net.Listener) error {
	n := name{network, address}
	h.mu.Lock()
	defer h.mu.Unlock()
	old, replaced := h.sockets[n]
	if !replaced && len(h.sockets) >= maxHeld {
		return errors.Join(fmt.Errorf("more than %d listening sockets", maxHeld), l.Close())
	}
	if h.sockets == nil {
		h.sockets = map[name]net.Listener{}
	}
	h.sockets[n] = l
	if replaced {
		return old.Close()
	}
	return nil
}

// Listen returns the socket of an address that is held, which is the caller's from then
// on, or a new one. A nil Held holds none.
func (h *Held) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if l := h.take(name{network, address}); l != nil {
		return l, nil
	}
	var config net.ListenConfig
	return config.Listen(ctx, network, address)
}

func (h *Held) take(n name) net.Listener {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.sockets[n]
	delete(h.sockets, n)
	return l
}

// Close closes the sockets that are still held.
func (h *Held) Close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for n, l := range h.sockets {
		errs = append(errs, l.Close())
		delete(h.sockets, n)
	}
	return errors.Join(errs...)
}
