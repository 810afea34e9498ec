package api

import (
	"context"
	"net"
	"net/http"
	"path"
	"strings"

	"golang.org/x/net/netutil"
)

// PagePath is where the page is; it ends with a slash.
const PagePath = "/ui/"

// withPage passes requests for the page to it, and others to next.
func (s *Server) withPage(page, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.EscapedPath()
		switch {
		case p != path.Clean(p) && p != path.Clean(p)+"/", p != "/" && p != strings.TrimSuffix(PagePath, "/") && !strings.HasPrefix(p, PagePath):
			next.ServeHTTP(w, r)
		case s.startCall():
			defer s.calls.Done()
			page.ServeHTTP(w, r)
		}
	})
}

// limited bounds the connections of a listener.
func limited(l net.Listener) net.Listener {
	if g, ok := l.(guardedListener); ok {
		return guardedListener{netutil.LimitListener(g.Listener, maxConnections), g.guard}
	}
	return netutil.LimitListener(l, maxConnections)
}

type encryptedKey struct{}

// withConnection puts into a context what is known about a connection.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if e, ok := c.(encrypted); ok {
		ctx = context.WithValue(ctx, encryptedKey{}, e.Conn)
	}
	return withPeer(ctx, c)
}

// Encrypted reports whether a request came over TLS.
func Encrypted(r *http.Request) bool {
	return r.Context().Value(encryptedKey{}) != nil
}
