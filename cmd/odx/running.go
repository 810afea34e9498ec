package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"odx/api"
	"odx/audit"
	"odx/conf"
	"odx/quota"
	"odx/standby"
	"odx/target"
)

// running is a service, and what belongs to it in this process.
type running struct {
	cfg     *conf.Config
	service *target.Service
	// held are the sockets of the server before it that it has not taken; nil for none.
	held *standby.Held
	log  *logrus.Entry
	// program is what a handover starts; "" if that is not known.
	program string

	queries  []*api.Server
	audit    *audit.Log         // of queries
	unguard  context.CancelFunc // ends guarding
	guarding sync.WaitGroup
}

// untilEnd serves until ctx ends or the service fails, whose error it returns, and hands over
// to another process when a signal asks for it. It returns the service that is to be
// stopped; nil after a handover, and where there is none any more.
func (r *running) untilEnd(ctx context.Context, handovers <-chan os.Signal, stdout io.Writer) (*running, error) {
	for {
		if err := r.open(stdout); err != nil {
			return nil, errors.Join(err, r.service.Stop(ctx))
		}
		h, err := r.untilHandover(ctx, handovers)
		if h == nil {
			return r, err
		}
		if r, err = r.handOver(ctx, h); r == nil {
			return nil, err
		}
	}
}

// open serves the API and says that the service is ready.
func (r *running) open(stdout io.Writer) (err error) {
	if r.queries, err = r.serveAPI(); err != nil {
		return err
	}
	if err := r.held.Close(); err != nil {
		r.log.WithError(err).Warn("listening sockets of the server before this one that are not in the configuration: not closed")
	}
	if err := announce(stdout, r.service); err != nil {
		r.log.WithError(err).Warn("cannot write to standard output")
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

// closeAPI ends the API; requests may finish until ctx ends.
func (r *running) closeAPI(ctx context.Context) error {
	var errs []error
	for _, q := range r.queries {
		errs = append(errs, q.Shutdown(ctx))
	}
	return errors.Join(append(errs, r.audit.Close(ctx))...)
}

// stop closes everything within stopLimit.
func (r *running) stop() error {
	r.endGuard()
	err := within(stopLimit, func() error {
		drain, cancel := context.WithTimeout(context.Background(), drainLimit)
		defer cancel()
		return errors.Join(r.closeAPI(drain), r.service.Stop(drain))
	})
	if err == nil {
		r.log.Info("stopped")
	}
	return err
}

// serveAPI serves the API on the socket, and on TCP if configured.
func (r *running) serveAPI() ([]*api.Server, error) {
	cfg, service, log := r.cfg, r.service, r.log
	guard, warnings, err := api.NewGuard(cfg)
	if err != nil {
		return nil, err
	}
	var guarded net.Listener
	if cfg.API.Listen != "" {
		listen := func(network, address string) (net.Listener, error) {
			l, err := r.held.Listen(context.Background(), network, address)
			if err == nil {
				service.OfferStandbys(network, address, l)
			}
			return l, err
		}
		var more []string
		if guarded, more, err = guard.Listen(cfg, listen); err != nil {
			return nil, err
		}
		for _, w := range append(warnings, more...) {
			log.Warn(w)
		}
		log.WithField("address", guarded.Addr()).Info("API listens on TCP")
	}
	r.audit = audit.New(log, audit.Options{})
	serving := api.Serving{Administrator: service.Admin(), Audit: r.audit, Log: log}
	servers := []*api.Server{api.NewServer(serving)}
	memory := quota.New(service.Admin().Memory().Requests)
	servers[0].ShareMemory(memory)
	servers[0].ServeSocket(cfg.DataDir)
	if guarded != nil {
		tcp := api.NewGuardedServer(serving, guard)
		tcp.ShareMemory(memory)
		servers = append(servers, tcp)
		go tcp.Serve(guarded)
	}
	return servers, nil
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
