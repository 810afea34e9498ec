package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"odx/conf"
	"odx/owner"
	"odx/standby"
	"odx/target"
)

// running is a service, and what belongs to it in this process.
type running struct {
	service *target.Service
	// held are the sockets of the server before it that it has not taken; nil for none.
	held *standby.Held
	// local is the claim of the directory of the sockets, where the store is in a pool; nil: the
	// store's covers it.
	local *owner.Owner
	log   *logrus.Entry
	// began, if not nil, is called when the service is ready.
	began func() error
	// reloaded, if not nil, is called with what came of a reload that a signal, or a node, asked for.
	reloaded func(error)
	// program is what a handover starts; "" if that is not known.
	program string

	queries    *queries
	monitoring *monitoring

	unguard  context.CancelFunc // ends guarding
	guarding sync.WaitGroup
}

// untilEnd serves until ctx ends or the service fails, whose error it returns, and hands over
// to another process when a signal asks for it. It returns the service that is to be
// stopped; nil after a handover, and where there is none any more.
func (r *running) untilEnd(ctx context.Context, asked *signals, stdout io.Writer) (*running, error) {
	for {
		if err := r.open(stdout); err != nil {
			return nil, errors.Join(err, r.service.Stop(ctx))
		}
		h, err := r.untilHandover(ctx, asked)
		if h == nil {
			return r, err
		}
		if r, err = r.handOver(ctx, h, asked); r == nil {
			return nil, err
		}
	}
}

// open serves the API and metrics, and says that the service is ready.
func (r *running) open(stdout io.Writer) (err error) {
	r.monitoring = newMonitoring(r.service, r.log)
	r.queries = newQueries(r.service, r.monitoring.mounted(), r.log)
	r.service.Follow(r.queries.follow)
	r.service.Follow(r.monitoring.follow)
	r.service.Follow(r.followLog)
	if err := r.monitoring.bind(r.held); err != nil {
		return err
	}
	if err := r.queries.serve(r.held); err != nil {
		return err
	}
	r.monitoring.begin()
	if err := r.held.Close(); err != nil {
		r.log.WithError(err).Warn("listening sockets of the server before this one that are not in the configuration: not closed")
	}
	if err := announce(stdout, r.service); err != nil {
		r.log.WithError(err).Warn("cannot write to standard output")
	}
	if r.began != nil {
		if err := r.began(); err != nil {
			return err
		}
	}
	notify(r.log, daemon.SdNotifyReady)
	var ctx context.Context
	ctx, r.unguard = context.WithCancel(context.Background())
	r.guarding.Go(func() { r.service.GuardMemory(ctx) })
	return nil
}

// endGuard ends what open has begun in addition to the API.
func (r *running) endGuard() {
	r.unguard()
	r.guarding.Wait()
}

// closeServers ends what others ask this process by; their requests may finish until ctx
// ends.
func (r *running) closeServers(ctx context.Context) error {
	return errors.Join(r.queries.close(ctx), r.monitoring.close(ctx))
}

// stop closes everything within stopLimit.
func (r *running) stop() error {
	r.endGuard()
	err := within(stopLimit, func() error {
		drain, cancel := context.WithTimeout(context.Background(), drainLimit)
		defer cancel()
		return errors.Join(r.closeServers(drain), r.service.Stop(drain))
	})
	if r.local != nil {
		err = errors.Join(err, r.local.Release())
	}
	if err == nil {
		r.log.Info("stopped")
	}
	return err
}

// announce prints the portals and the URLs of all LUNs, in one write.
func announce(w io.Writer, s *target.Service) error {
	var b strings.Builder
	fmt.Fprintf(&b, "odx %s is ready on %s\n", buildVersion(), strings.Join(s.Portals(), ", "))
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, l := range s.LUNs() {
		what := fmt.Sprintf("%s, %s", l.Medium, conf.FormatSize(l.Size))
		switch {
		case l.Problem != "":
			what = l.Medium + ", NOT SERVED: " + l.Problem
		case l.ReadOnly:
			what += ", read-only"
		}
		for _, url := range l.URLs {
			fmt.Fprintf(table, "%s\t%s\n", url, what)
		}
	}
	for _, p := range s.MissingPortals() {
		fmt.Fprintf(table, "%s\tNOT SERVED YET: %s\n", p.Address, p.Problem)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}
