package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/sirupsen/logrus"

	"odx/conf"
	"odx/owner"
	"odx/standby"
	"odx/successor"
	"odx/target/handover"
	"odx/target/iscsi"
)

// StateVersion is the version of the state that this program passes, and the only one that
// it takes.
const StateVersion = handover.Version

// Inherit is TakeOver with what another service has handed over, in this process or in
// another one. ready, if it is not nil, is called when everything is there to serve, and
// before anything is accepted or read. The caller closes the sockets that are left.
func Inherit(ctx context.Context, cfg *conf.Config, log *logrus.Entry, h *Handed, ready func() error) (*Service, *standby.Held, error) {
	claim, err := owner.Inherit(ctx, cfg.DataDir, h.Claim)
	h.Claim = nil
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	held, err := h.held()
	if err != nil {
		return nil, nil, errors.Join(err, claim.Release(), h.Close())
	}
	s, err := TakeOver(ctx, cfg, log, Inheritance{Claim: claim, Held: held, Sessions: h.Sessions, Ready: ready})
	if err != nil {
		return nil, nil, errors.Join(err, held.Close(), h.Close())
	}
	s.handovers.failed(h.failed)
	return s, held, nil
}

// Pass passes h to another process, and returns when that serves; after the end of ctx it has
// little time left. h stays as it is; after an error a service can go on with it here, once the
// child was killed, and if it had not served by then.
func (h *Handed) Pass(ctx context.Context, child *successor.Child) error {
	e, err := h.estate()
	if err != nil {
		return err
	}
	// While a duplicate is open, no connection ends. That one is not closed is no reason to
	// doubt a child that serves.
	err = child.Pass(ctx, e)
	if closing := closeConnections(e); err != nil {
		err = errors.Join(err, closing)
	}
	return err
}

// DropSessions closes the connections: their initiators log in again.
func (h *Handed) DropSessions() error {
	sessions := h.Sessions
	h.Sessions = nil
	if sessions == nil {
		return nil
	}
	return sessions.Close()
}

// Names of files in an estate. That of a listening socket goes on with the network and the
// address.
const (
	claimFile      = "claim"
	listenFile     = "listen "
	connectionFile = "connection"
)

// estate returns what is passed to another process.
func (h *Handed) estate() (*successor.Estate, error) {
	state, err := h.Sessions.State.Encode()
	if err != nil {
		return nil, err
	}
	e := &successor.Estate{State: state}
	for _, f := range h.Claim {
		e.Files = append(e.Files, successor.File{Name: claimFile, File: f})
	}
	for _, s := range h.Sockets {
		e.Files = append(e.Files, successor.File{Name: listenFile + s.Network + " " + s.Address, File: s.File})
	}
	for _, c := range h.Sessions.Conns {
		f, err := fileOf(c)
		if err != nil {
			return nil, errors.Join(err, closeConnections(e))
		}
		e.Files = append(e.Files, successor.File{Name: connectionFile, File: f})
	}
	return e, nil
}

// closeConnections closes the files that estate has made.
func closeConnections(e *successor.Estate) error {
	var errs []error
	for _, f := range e.Files {
		if f.Name == connectionFile {
			errs = append(errs, f.File.Close())
		}
	}
	return errors.Join(errs...)
}

// fileOf returns a duplicate of the socket of a connection.
func fileOf(c net.Conn) (*os.File, error) {
	f, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("a %T cannot be passed on", c)
	}
	return f.File()
}

// HandedOf returns what was passed to this process. It takes the files of e.
func HandedOf(e *successor.Estate) (*Handed, error) {
	state, err := handover.Decode(e.State)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	h := &Handed{Sessions: &iscsi.Suspended{State: state}}
	for _, f := range e.Files {
		network, address, listens := strings.Cut(strings.TrimPrefix(f.Name, listenFile), " ")
		switch {
		case f.Name == claimFile:
			h.Claim = append(h.Claim, f.File)
		case f.Name == connectionFile:
			c, failed := net.FileConn(f.File)
			if err = errors.Join(err, failed, f.File.Close()); failed == nil {
				h.Sessions.Conns = append(h.Sessions.Conns, c)
			}
		case strings.HasPrefix(f.Name, listenFile) && listens:
			h.Sockets = append(h.Sockets, Socket{Network: network, Address: address, File: f.File})
		default:
			err = errors.Join(err, fmt.Errorf("a file %q was passed that this program does not know", f.Name), f.File.Close())
		}
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}
