package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	v1 "odx/api/v1"
	"odx/blockdev"
	"odx/replica/pair"
)

// Replicas are the replicas of a served store, and what replicas of peers follow:
// pair.Manager.
type Replicas interface {
	List(ctx context.Context) ([]pair.Status, error)
	Status(ctx context.Context, name string) (pair.Status, error)
	Start(ctx context.Context, r pair.StartRequest) error
	// Planned returns the options of rounds that the configuration gives.
	Planned(name string) pair.RoundOptions
	Round(ctx context.Context, name string, o pair.RoundOptions) (pair.Attempt, error)
	Pause(ctx context.Context, name string, paused bool) error
	Failover(ctx context.Context, name string, force bool, o pair.RoundOptions) (*pair.Adopted, error)
	Failback(ctx context.Context, name string, o pair.FailbackOptions) (*pair.Adopted, error)
	Forget(ctx context.Context, name string, onlyHere bool) error
}

// replicaRoutes are the routes of replicas.
var replicaRoutes = []route{
	{http.MethodGet, "/v1/replicas", "The replicas, and what replicas of peers follow, by name.", http.StatusOK, lists, reads, looks, replicated(func(c *call, m Replicas) (any, error) {
		return listV1(ReplicaV1)(m.List(c.ctx))
	})},
	{http.MethodGet, "/v1/replicas/{name}", "A replica, or what one of a peer follows.", http.StatusOK, short, reads, looks, replicated(func(c *call, m Replicas) (any, error) {
		return asV1(ReplicaV1)(m.Status(c.ctx, c.request.PathValue("name")))
	})},
	{http.MethodPost, "/v1/replicas", "Start a replica of a volume or file of a peer, and do its first round.", http.StatusCreated, long, operates, changes("replica start"), replicated(startReplica)},
	{http.MethodPost, "/v1/replicas/{name}/run", "Bring a replica up to date.", http.StatusOK, long, operates, changes("replica run"), replicated(runReplica)},
	{http.MethodPatch, "/v1/replicas/{name}", "Pause a replica, or resume it.", http.StatusOK, short, operates, changes("replica pause"), replicated(func(c *call, m Replicas) (any, error) {
		var p v1.ReplicaPause
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		name := c.replica()
		if err := m.Pause(c.ctx, name, p.Paused); err != nil {
			return nil, err
		}
		return asV1(ReplicaV1)(m.Status(c.ctx, name))
	})},
	{http.MethodPost, "/v1/replicas/{name}/failover", "Make a replica the source, planned or by force.", http.StatusOK, long, administers, changes("replica failover"), replicated(func(c *call, m Replicas) (any, error) {
		var p v1.ReplicaFailover
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		name := c.replica()
		o := m.Planned(name)
		o.Reservations = p.Reservations
		adopted, err := m.Failover(c.ctx, name, p.Force, o)
		return c.changedRoles(m, name, adopted, err)
	})},
	{http.MethodPost, "/v1/replicas/{name}/failback", "Make a former source the replica of the new one, and the source again.", http.StatusOK, long, administers, changes("replica failback"), replicated(func(c *call, m Replicas) (any, error) {
		var p v1.ReplicaFailback
		if err := c.decode(&p); err != nil {
			return nil, err
		}
		name := c.replica()
		o := m.Planned(name)
		o.Reservations = p.Reservations
		adopted, err := m.Failback(c.ctx, name, pair.FailbackOptions{Stay: p.Stay, Full: p.Full, RoundOptions: o})
		return c.changedRoles(m, name, adopted, err)
	})},
	{http.MethodDelete, "/v1/replicas/{name}", "End a pair; ?local=true: on this server alone.", http.StatusNoContent, short, administers, changes("replica forget"), replicated(func(c *call, m Replicas) (any, error) {
		local, err := c.flag("local")
		if err != nil {
			return nil, err
		}
		return nil, m.Forget(c.ctx, c.replica(), local)
	})},
}

// replicated is a handler that needs the replicas of a served store.
func replicated(do func(c *call, m Replicas) (any, error)) func(c *call) (any, error) {
	return func(c *call) (any, error) {
		if c.replicas == nil {
			return nil, errNotLive
		}
		return do(c, c.replicas)
	}
}

// replica returns the replica in the path, and makes it the subject.
func (c *call) replica() string {
	name := c.request.PathValue("name")
	c.subject("replica " + name)
	return name
}

// changedRoles is the answer to a failover or a failback.
func (c *call) changedRoles(m Replicas, name string, adopted *pair.Adopted, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	s, err := m.Status(c.ctx, name)
	if err != nil {
		return nil, err
	}
	r := ReplicaV1(s)
	r.Adopted = adoptedV1(adopted)
	return r, nil
}

// adoptedV1 returns the JSON of what a failover has taken along.
func adoptedV1(a *pair.Adopted) *v1.ReplicaAdopted {
	if a == nil {
		return nil
	}
	return &v1.ReplicaAdopted{DroppedRegistrations: a.Dropped, AgeSeconds: a.Age.Seconds()}
}

func startReplica(c *call, m Replicas) (any, error) {
	var p v1.ReplicaStart
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	if p.Peer == "" || p.Source == "" || p.Name == "" {
		return nil, fmt.Errorf("%w: peer, source and name are needed", blockdev.ErrInvalid)
	}
	c.subject("replica " + p.Name)
	if err := m.Start(c.ctx, pair.StartRequest{Peer: p.Peer, Source: p.Source, Name: p.Name, To: p.To}); err != nil {
		return nil, err
	}
	if _, err := m.Round(c.ctx, p.Name, m.Planned(p.Name)); err != nil {
		return nil, fmt.Errorf("the replica is started, and its first round failed; `odx replicate run %s` does it again: %w", p.Name, err)
	}
	return asV1(ReplicaV1)(m.Status(c.ctx, p.Name))
}

func runReplica(c *call, m Replicas) (any, error) {
	var p v1.ReplicaRun
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	name := c.replica()
	o := m.Planned(name)
	o.Full, o.EvenPaused = p.Full, true
	if _, err := m.Round(c.ctx, name, o); err != nil {
		return nil, err
	}
	return asV1(ReplicaV1)(m.Status(c.ctx, name))
}

// ReplicaV1 returns the JSON of one side of a pair.
func ReplicaV1(s pair.Status) v1.Replica {
	r := v1.Replica{
		ID: s.ID.String(), Name: s.Name, Role: string(s.Role), Epoch: s.Epoch, Object: s.Object, Peer: s.Peer, PeerStore: fmt.Sprintf("%x", s.PeerStore),
		PeerObject: s.PeerObject, Paused: s.Paused, Untold: s.Untold, Orphan: s.Orphan, Scheduled: s.Planned, Pinned: s.Pinned, Succeeded: s.Succeeded.UTC(),
		LagSeconds: s.Behind.Seconds(), Running: s.Running, Now: s.Now.V1(), Rounds: s.Counts.Rounds, Failures: s.Counts.Failures,
		Fetched: s.Counts.Fetched, Crossed: s.Counts.Crossed,
	}
	if s.Point != (pair.ID{}) {
		r.Point = s.Point.String()
	}
	if s.Identity != [16]byte{} {
		r.Identity = fmt.Sprintf("%x", s.Identity)
	}
	if s.Counts.Rounds > 0 {
		r.Last = &v1.ReplicaRound{Began: s.Last.Began.UTC(), Seconds: s.Last.Took.Seconds(), Bytes: s.Last.V1(), Error: s.Last.Problem}
	}
	return r
}

// Replicas lists the replicas of the server, and what replicas of peers follow.
func (c *Client) Replicas(ctx context.Context) ([]v1.Replica, error) {
	return roundTrip[[]v1.Replica](ctx, c, http.MethodGet, "/v1/replicas", nil)
}

// Replica describes one.
func (c *Client) Replica(ctx context.Context, name string) (v1.Replica, error) {
	return c.replica(ctx, http.MethodGet, name, "", nil)
}

// StartReplica starts a replica, and does its first round.
func (c *Client) StartReplica(ctx context.Context, r v1.ReplicaStart) (v1.Replica, error) {
	return roundTrip[v1.Replica](ctx, c, http.MethodPost, "/v1/replicas", r)
}

// RunReplica brings a replica up to date.
func (c *Client) RunReplica(ctx context.Context, name string, r v1.ReplicaRun) (v1.Replica, error) {
	return c.replica(ctx, http.MethodPost, name, "/run", r)
}

// PauseReplica pauses a replica, or resumes it.
func (c *Client) PauseReplica(ctx context.Context, name string, paused bool) (v1.Replica, error) {
	return c.replica(ctx, http.MethodPatch, name, "", v1.ReplicaPause{Paused: paused})
}

// FailOver makes a replica the source.
func (c *Client) FailOver(ctx context.Context, name string, r v1.ReplicaFailover) (v1.Replica, error) {
	return c.replica(ctx, http.MethodPost, name, "/failover", r)
}

// FailBack makes a former source the replica of the new one, and the source again.
func (c *Client) FailBack(ctx context.Context, name string, r v1.ReplicaFailback) (v1.Replica, error) {
	return c.replica(ctx, http.MethodPost, name, "/failback", r)
}

// ForgetReplica ends a pair; with local on this server alone.
func (c *Client) ForgetReplica(ctx context.Context, name string, local bool) error {
	path, err := replicaPath(name, fmt.Sprintf("?local=%v", local))
	if err != nil {
		return err
	}
	return c.drop(c.send(ctx, http.MethodDelete, path, nil))
}

func (c *Client) replica(ctx context.Context, method, name, what string, parameters any) (v1.Replica, error) {
	path, err := replicaPath(name, what)
	if err != nil {
		return v1.Replica{}, err
	}
	return roundTrip[v1.Replica](ctx, c, method, path, parameters)
}

// errNoName: a replica has to be named.
var errNoName = errors.New("name of a replica is missing")

// replicaPath returns the path of a replica.
func replicaPath(name, what string) (string, error) {
	if !pair.ValidName(name) {
		return "", fmt.Errorf("%w: %w: %.70q", blockdev.ErrInvalid, errNoName, name)
	}
	return "/v1/replicas/" + url.PathEscape(name) + what, nil
}
