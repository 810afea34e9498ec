package target

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/admin"
	"odx/conf"
	"odx/offload"
	"odx/replica/pair"
	"odx/vhd"
	"odx/vhd/disk"
)

// Replicas returns the replicas of the store, and what replicas of other servers follow.
func (s *Service) Replicas() *pair.Manager { return s.replicas }

// openReplicas completes what was complete when the process before this one ended. The store
// is open, and nothing of it is served.
func (s *Service) openReplicas(ctx context.Context, cfg *conf.Config) (err error) {
	directory := &s.peers.directory
	s.replicas, err = pair.Open(ctx, pair.Options{
		Store: s.store, Log: s.log, Looks: s.rescue, Arrivals: arrivals{s},
		Named: func(name string) (pair.Link, bool) {
			p, ok := directory.ByName(name)
			if !ok {
				return nil, false
			}
			return pair.Over(p), true
		},
		Resolve: func(store [16]byte) (pair.Link, bool) {
			p, ok := directory.Resolve(store)
			if !ok {
				return nil, false
			}
			return pair.Over(p), true
		},
	})
	if err != nil {
		return fmt.Errorf("replicas: %w", err)
	}
	s.replicas.SetPlans(plans(cfg))
	s.Follow(func(next *conf.Config) (Prepared, error) {
		return Prepared{Undo: func() {}, Commit: func() { s.replicas.SetPlans(plans(next)) }}, nil
	})
	return nil
}

// inquireLimit is how long a start may take longer because a peer does not answer.
const inquireLimit = time.Second

// inquireReplicas asks peers whether they have taken over what this server is about to serve.
// One that does not answer in time says so itself when it does.
func (s *Service) inquireReplicas(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, inquireLimit)
	defer cancel()
	s.replicas.Inquire(ctx)
}

// plans returns the replicas of a configuration.
func plans(cfg *conf.Config) []pair.Plan {
	var list []pair.Plan
	for i := range cfg.Replicas {
		r := &cfg.Replicas[i]
		list = append(list, pair.Plan{
			StartRequest: pair.StartRequest{Peer: r.Peer, Source: r.Source, Name: r.Name, To: r.To},
			Next:         r.Schedule.Next, BytesPerSecond: r.BytesPerSecond, Hash: r.Hash, Keep: r.Keep, Lag: r.MaxLag, Paused: r.Paused,
		})
	}
	return list
}

// runReplicas brings replicas up to date until ctx ends.
func (s *Service) runReplicas(ctx context.Context) {
	if s.rescue {
		return
	}
	s.replicas.SetCallbacks(s.replicaRenewed, s.replicaRoles)
	s.serving.Go(func() { s.replicas.Run(ctx) })
}

// replicaMedium returns what conf.LUN.Medium gives for a volume, or file:NAME.
func replicaMedium(object string) string {
	if name, file := cutFile(object); file {
		return (&conf.LUN{File: name}).Medium()
	}
	return (&conf.LUN{Volume: object}).Medium()
}

func cutFile(object string) (name string, file bool) {
	if len(object) > len(offload.FilePrefix) && object[:len(offload.FilePrefix)] == offload.FilePrefix {
		return object[len(offload.FilePrefix):], true
	}
	return object, false
}

// replicaRenewed tells initiators that a replica has other content.
func (s *Service) replicaRenewed(object string) {
	if u := s.state.Load().units[replicaMedium(object)]; u != nil {
		u.lu.Renewed()
	}
}

// replicaRoles has the LUN on a volume, or file:NAME, be served as its roles say.
func (s *Service) replicaRoles(ctx context.Context, object string) error {
	medium := replicaMedium(object)
	configured := false
	for _, l := range s.state.Load().luns {
		configured = configured || l.Medium() == medium
	}
	if !configured {
		return nil
	}
	_, err := s.change(context.WithoutCancel(ctx), "replica roles", func(string) (*proposal, error) {
		return &proposal{cfg: s.state.Load().cfg, again: medium}, nil
	})
	return err
}

// servedAs returns how the medium of a LUN is to be served because of its roles; the error is
// why it is not.
func (s *Service) servedAs(l *conf.LUN) (pair.Serving, error) {
	object := l.Volume
	if l.File != "" {
		object = offload.FilePrefix + l.File
	}
	if object == "" || l.View != "" {
		return pair.Serving{}, nil
	}
	as, err := s.replicas.Serving(object)
	switch {
	case err != nil || s.rescue:
		return as, err
	case as.Out != nil:
		return as, as.Out
	case l.File != "" && as.ReadOnly && vhd.FormatOf(l.File) != disk.Raw:
		return as, &pair.NotServedError{Why: object + ": it is a virtual disk that rounds of a replica replace, and is served after odx replicate failover"}
	}
	return as, nil
}

// yields reports whether the LUN on a medium is not served because a peer takes over from it.
func (s *Service) yields(medium string) bool {
	for _, l := range s.state.Load().luns {
		if l.Medium() == medium {
			as, err := s.servedAs(l)
			return as.Yields && err != nil
		}
	}
	return false
}

// notServedByRole reports whether err is that a medium is not served because of its role.
func notServedByRole(err error) bool {
	var e *pair.NotServedError
	return errors.As(err, &e)
}

// replicaFigures returns those of all replicas. It can wait for the disk.
func (s *Service) replicaFigures() []admin.ReplicaFigures {
	all, err := s.replicas.List(context.Background())
	if err != nil {
		return nil // the figures of the store say what is wrong with it
	}
	list := make([]admin.ReplicaFigures, 0, len(all))
	for i := range all {
		r := &all[i]
		list = append(list, admin.ReplicaFigures{
			Name: r.Name, Role: string(r.Role), Succeeded: r.Succeeded, Lag: r.Behind, Rounds: r.Counts.Rounds, Failures: r.Counts.Failures,
			FetchedBytes: r.Counts.Fetched, NetworkBytes: r.Counts.Crossed,
		})
	}
	return list
}
