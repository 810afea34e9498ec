package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"odx/owner"
	"odx/pool"
	"odx/standby"
	"odx/target/iscsi"
)

// suspendLimit is how long outstanding commands may run once no more are read. A
// connection with a command that takes longer is closed.
const suspendLimit = 250 * time.Millisecond

// loginsLimit is how long logins in progress may take, and discovery sessions last. Other
// sessions do not wait for them.
const loginsLimit = 200 * time.Millisecond

// Handed is what a suspended service passes to the service that continues in its place, in
// this process or in another one.
type Handed struct {
	// Claim are the files that hold the store (owner.Inherit).
	Claim []*os.File
	// Sockets are the listening sockets.
	Sockets []Socket
	// Sessions are the live sessions with their connections; nil for none.
	Sessions *iscsi.Suspended
	// failed counts the handovers that failed before this one.
	failed int
}

// Socket is a listening socket, and what it was to listen on in the words of the
// configuration.
type Socket struct {
	Network, Address string
	File             *os.File
}

// Inheritance is what a service takes over from the one before it.
type Inheritance struct {
	// Claim owns the store already; nil: the service claims it. It is the service's, also
	// after an error.
	Claim *owner.Owner
	// Place has the store of Claim, if it is in a pool; it is the service's, as Claim is.
	Place *pool.Place
	// Held are listening sockets of the service before. The caller closes those that are
	// left; nil for none.
	Held *standby.Held
	// Sessions are the sessions of the service before; nil for none.
	Sessions *iscsi.Suspended
	// Ready, if it is not nil, is called when everything is there to serve and nothing was
	// accepted or read yet. An error ends the start.
	Ready func() error
}

// PrepareHandover returns the beginning of what Suspend hands over, or why this service
// cannot be handed over. The service continues to serve. What caches have is written back, and
// a checkpoint taken, which makes the end of this service and the next start short.
func (s *Service) PrepareHandover(ctx context.Context) (*Handed, error) {
	if s.rescue {
		return nil, errors.New("a store that is only read is not handed over")
	}
	if err := s.state.Load().views.flush(ctx); err != nil {
		return nil, err
	}
	if err := s.store.Checkpoint(ctx); err != nil {
		return nil, err
	}
	claim, err := s.store.ShareClaim()
	return &Handed{Claim: claim}, err
}

// Suspend ends the service and adds to h, of PrepareHandover, what another service needs to
// continue in its place: initiators see a pause. After an error a service can go on with h in
// this process; it has no sessions then if what initiators were answered may be lost.
func (s *Service) Suspend(ctx context.Context, h *Handed) error {
	s.stopOnce.Do(func() { s.stopErr = s.suspend(ctx, h) })
	return s.stopErr
}

func (s *Service) suspend(ctx context.Context, h *Handed) error {
	s.changes.end()
	after, end := context.WithTimeout(ctx, policiesLimit)
	s.closePolicies(after)
	end()
	s.liftLimits()
	h.failed, _ = s.handovers.get()
	h.Sockets = s.listening.take()
	loggingIn, settled := context.WithTimeout(ctx, loginsLimit)
	s.server.AwaitLogins(loggingIn) // the pause begins after it
	settled()
	limited, cancel := context.WithTimeout(ctx, suspendLimit)
	defer cancel()
	sessions, err := s.server.Suspend(limited)
	if errors.Is(err, iscsi.ErrCommandsRunning) {
		// They find the store closed, and their connections are.
		s.log.WithError(err).Warn("commands did not end before the handover")
		err = nil
	}
	h.Sessions = sessions
	s.stopMigrations()
	s.unwatch()
	s.serving.Wait()
	s.stopCopies(limited)
	if err := s.standbys.Close(); err != nil {
		s.log.WithError(err).Warn("socket for standbys not closed")
	}
	if lost := s.releaseMedia(); lost != nil { // of a cache, for example
		err = errors.Join(err, lost, h.DropSessions())
	}
	s.closePeers()
	return errors.Join(err, s.admin.Close(), s.closeAudit())
}

// listening are duplicates of the listening sockets, which outlive those that accept.
type listening struct {
	mu      sync.Mutex // guards what follows
	closed  bool
	sockets []Socket
}

// add keeps a duplicate of l.
func (k *listening) add(network, address string, l net.Listener) error {
	f, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return fmt.Errorf("a %T has no file", l)
	}
	file, err := f.File()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return file.Close()
	}
	k.sockets = append(k.sockets, Socket{network, address, file})
	return nil
}

// drop closes the duplicate of a socket.
func (k *listening) drop(network, address string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.sockets, func(s Socket) bool { return s.Network == network && s.Address == address })
	if i < 0 {
		return nil
	}
	file := k.sockets[i].File
	k.sockets = slices.Delete(k.sockets, i, i+1)
	return file.Close()
}

// take returns the duplicates, which become the caller's. None is kept from then on.
func (k *listening) take() []Socket {
	k.mu.Lock()
	defer k.mu.Unlock()
	taken := k.sockets
	k.closed, k.sockets = true, nil
	return taken
}

// close closes the duplicates.
func (k *listening) close() (errs []error) {
	for _, s := range k.take() {
		errs = append(errs, s.File.Close())
	}
	return errs
}

// held returns the sockets as a service takes them over, and closes their files.
func (h *Handed) held() (*standby.Held, error) {
	held := new(standby.Held)
	for _, s := range h.Sockets {
		l, err := net.FileListener(s.File)
		if err == nil {
			err = held.Hold(s.Network, s.Address, l)
		}
		if err := errors.Join(err, s.File.Close()); err != nil {
			return nil, errors.Join(fmt.Errorf("listening socket %s: %w", s.Address, err), held.Close())
		}
	}
	h.Sockets = nil
	return held, nil
}

// Close closes the files.
func (h *Handed) Close() error {
	var errs []error
	for _, f := range h.Claim {
		errs = append(errs, f.Close())
	}
	for _, s := range h.Sockets {
		errs = append(errs, s.File.Close())
	}
	return errors.Join(append(errs, h.DropSessions())...)
}

// failedHandovers counts the handovers that failed, after which this process continued.
type failedHandovers struct {
	mu    sync.Mutex // guards what follows
	count int
	last  string
}

// HandoverFailed records why a handover failed; the status reports it.
func (s *Service) HandoverFailed(why error) {
	f := &s.handovers
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	f.last = why.Error()
}

// failed counts the failed handovers of the services before, in the same process.
func (f *failedHandovers) failed(before int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count += before
}

func (f *failedHandovers) get() (count int, last string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count, f.last
}
