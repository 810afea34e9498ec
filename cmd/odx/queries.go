package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/api"
	"odx/conf"
	"odx/peer"
	"odx/quota"
	"odx/replica"
	"odx/replica/pair"
	"odx/standby"
	"odx/target"
	"odx/web"
)

// queries are the servers of the API: on the socket of the store, and on TCP if the
// configuration says so.
type queries struct {
	service *target.Service
	serving api.Serving
	memory  *quota.Quota
	log     *logrus.Entry
	local   *api.Server
	leaving sync.WaitGroup // of servers on TCP that a reload has replaced

	mu  sync.Mutex // guards tcp
	tcp *guarded   // nil where there is none
}

// guarded is a server on TCP.
type guarded struct {
	listen string // in the words of the configuration
	guard  *api.Guard
	socket net.Listener
	l      net.Listener // of connections as the guard wants them
	server *api.Server
}

// newQueries returns the API of a service, which is not served yet. It serves more, too.
func newQueries(service *target.Service, more []api.Mounted, log *logrus.Entry) *queries {
	more = append(more, api.Mounted{Pattern: peer.Path, Role: conf.RolePeer, Handler: service.Keeper().Handler()},
		api.Mounted{Pattern: "POST " + pair.Path, Role: conf.RolePeer, Handler: service.Replicas().PeerHandler()},
		api.Mounted{Pattern: "POST " + pair.MovePath, Role: conf.RolePeer, Handler: service.Replicas().MoveHandler()})
	streams := replica.NewStreams(service.Admin(), log)
	if err := streams.Recover(context.Background()); err != nil {
		log.WithError(err).Warn("streams that were being received at the last stop were not looked at; the next one that is received tries again")
	}
	return &queries{
		service: service, log: log, memory: quota.New(service.Admin().Memory().Requests),
		serving: api.Serving{Administrator: service.Admin(), Streams: streams, Live: service, Snapshots: service.SnapshotPolicies, Replicas: service.Replicas(), Audit: service.Audit(), Handlers: more, Page: newPage(service, log), Log: log},
	}
}

// newPage returns what makes the page of a guarded API.
func newPage(service *target.Service, log *logrus.Entry) func(*api.Guard) http.Handler {
	return func(g *api.Guard) http.Handler {
		return web.New(web.Options{Administrator: service.Admin(), Live: service, Audit: service.Audit(), Guard: g, Log: log})
	}
}

// serve serves the API. held are the sockets of the server before this one.
func (q *queries) serve(held *standby.Held) error {
	cfg := q.service.Configuration()
	tcp, warnings, err := q.listen(cfg, held.Listen)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		q.log.Warn(w)
	}
	q.local = api.NewServer(q.serving)
	q.local.ShareMemory(q.memory)
	q.local.ServeSocket(cfg.LocalDir())
	q.begin(tcp)
	return nil
}

// listen binds what the configuration says; nil for nothing.
func (q *queries) listen(cfg *conf.Config, bind func(ctx context.Context, network, address string) (net.Listener, error)) (tcp *guarded, warnings []string, err error) {
	if cfg.API.Listen == "" {
		return nil, nil, nil
	}
	guard, warnings, err := api.NewGuard(cfg)
	if err != nil {
		return nil, nil, err
	}
	tcp = &guarded{listen: cfg.API.Listen, guard: guard}
	l, more, err := guard.Listen(cfg, func(network, address string) (net.Listener, error) {
		var err error
		tcp.socket, err = bind(context.Background(), network, address)
		return tcp.socket, err
	})
	tcp.l = l
	return tcp, append(warnings, more...), err
}

// begin serves what was bound.
func (q *queries) begin(tcp *guarded) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.tcp = tcp; tcp == nil {
		return
	}
	q.service.OfferStandbys("tcp", tcp.listen, tcp.socket)
	q.log.WithField("address", tcp.l.Addr()).Info("API listens on TCP")
	tcp.server = api.NewGuardedServer(q.serving, tcp.guard)
	tcp.server.ShareMemory(q.memory)
	go tcp.server.Serve(tcp.l) // Shutdown waits for it
}

// follow prepares a reload: other secrets and another certificate on the same address,
// another address, or none.
func (q *queries) follow(next *conf.Config) (target.Prepared, error) {
	q.mu.Lock()
	now := q.tcp
	q.mu.Unlock()
	if now != nil && now.listen == next.API.Listen {
		p, err := now.guard.Prepare(next)
		return target.Prepared{Commit: p.Commit, Undo: func() {}, Changes: p.Changes, Warnings: p.Warnings}, err
	}
	var config net.ListenConfig
	tcp, warnings, err := q.listen(next, config.Listen)
	if err != nil {
		return target.Prepared{}, err
	}
	return target.Prepared{
		Warnings: warnings,
		Commit: func() {
			q.end(now)
			q.begin(tcp)
		},
		Undo: func() {
			if tcp != nil {
				tcp.l.Close()
			}
		},
	}, nil
}

// end ends a server on TCP. Its requests may finish: the reload can be one of them.
func (q *queries) end(tcp *guarded) {
	if tcp == nil {
		return
	}
	q.service.WithdrawSocket("tcp", tcp.listen)
	q.leaving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
		defer cancel()
		if err := tcp.server.Shutdown(ctx); err != nil {
			q.log.WithError(err).Warn("requests of the API ended, since it no longer listens there")
		}
	})
}

// close ends the API; requests may finish until ctx ends.
func (q *queries) close(ctx context.Context) error {
	q.mu.Lock()
	tcp := q.tcp
	q.mu.Unlock()
	err := q.local.Shutdown(ctx)
	if tcp != nil {
		err = errors.Join(err, tcp.server.Shutdown(ctx))
	}
	q.leaving.Wait()
	return err
}
