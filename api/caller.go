package api

import (
	"context"
	"errors"
	"net/http"

	"odx/audit"
)

// caller is who sends a request, and what it may do.
type caller struct {
	actor audit.Actor
	role  role
}

// gate decides who sends a request. Errors are those of kinds.
type gate interface {
	admit(r *http.Request) (caller, error)
}

type callerKey struct{}

// callerOf returns the caller that behind has put into the context.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// behind passes the requests that g admits to next, with their caller in the context.
func behind(g gate, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := g.admit(r)
		if err != nil {
			refuse(w, err)
			return
		}
		ctx := audit.With(context.WithValue(r.Context(), callerKey{}, c), c.actor)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// refuse answers a request of an unknown caller and closes its connection, which takes
// one of the places of others.
func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="odx"`)
	w.Header().Set("Connection", "close")
	if errors.Is(err, errFailures) {
		w.Header().Set("Retry-After", "1")
	}
	f, status := failureOf(err)
	respond(w, status, f)
}
