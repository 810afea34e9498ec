package api

import (
	"context"
	"math"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"odx/audit"
)

// peer is the address of a client of the Unix socket: the process that has connected, by
// the kernel (SO_PEERCRED). It is the RemoteAddr of the connection, which wrappers
// of a connection pass on.
type peer struct {
	uid  uint32
	pid  int32
	name string // of the user, if it has one
	// known: the kernel has returned it.
	known bool
}

// Network implements net.Addr.
func (peer) Network() string { return "unix" }

// String implements net.Addr.
func (p peer) String() string {
	return "uid " + strconv.FormatUint(uint64(p.uid), 10) + ", pid " + strconv.Itoa(int(p.pid))
}

// peerListener accepts connections whose remote address is their peer.
type peerListener struct{ net.Listener }

// Accept implements net.Listener.
func (l peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return peerConn{c, peerOf(c)}, nil
}

// peerConn is a connection whose remote address is its peer.
type peerConn struct {
	net.Conn
	peer peer
}

// RemoteAddr implements net.Conn.
func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// peerOf returns the process at the other end; an unknown one if the kernel returns none.
func peerOf(c net.Conn) (p peer) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return peer{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{}
	}
	// An error of Control is one of a closed connection, whose peer stays unknown.
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = peer{cred.Uid, cred.Pid, userName(cred.Uid), true}
		}
	})
	return p
}

// unknownUID is no user: POSIX has -1 for that.
const unknownUID = math.MaxUint32

type peerKey struct{}

// withPeer adds the peer of a connection to the context of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.RemoteAddr().(peer); ok {
		return context.WithValue(ctx, peerKey{}, p)
	}
	return ctx
}

// socketGate admits every client of the socket, whose permission decides who can connect.
// Root and the user of the server administer; another user, which an administrator has
// given that permission, reads.
type socketGate struct{ uid uint32 }

func newSocketGate() socketGate { return socketGate{uint32(os.Geteuid())} }

func (g socketGate) admit(r *http.Request) (caller, error) {
	p, _ := r.Context().Value(peerKey{}).(peer)
	if !p.known {
		p.uid, p.name = unknownUID, "unknown"
	}
	c := caller{actor: audit.Process(p.uid, p.pid, p.name)}
	if p.known && (p.uid == 0 || p.uid == g.uid) {
		c.role = administers
	}
	return c, nil
}

// userName returns the name of a user; empty if it has none.
func userName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}
