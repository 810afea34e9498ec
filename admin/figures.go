package admin

import (
	"context"
	"strings"
	"time"

	"odx/backstore"
	"odx/tokens"
)

// Figures are counters and sizes of a store that is served, for monitoring, which reads them
// every few seconds: none of them takes time in proportion to what is stored.
type Figures struct {
	// At is when they were read.
	At time.Time
	// Status is what Overview returned then.
	Status Status
	Store  backstore.Figures
	// Volumes and Files are how many there are, ProvisionedBytes what they could grow to.
	Volumes, Files   int
	ProvisionedBytes int64
	// HostFreeBytes is what the file system of the store has free.
	HostFreeBytes int64
	Tokens        tokens.Stats
	Server        ServerFigures
}

// ServerFigures are those of what serves a store.
type ServerFigures struct {
	// Media are the logical units, each once, also if it is a LUN of several targets.
	Media []MediumFigures
	// Targets are those of the configuration.
	Targets []TargetFigures
	// DiscoverySessions is how many sessions are for discovery.
	DiscoverySessions int
	Copies            CopyCommands
	// Peers are the other servers, as they were when they were asked last.
	Peers []Peer
	Holds HoldFigures
	// Replicas are those of the store, and what replicas of peers follow.
	Replicas []ReplicaFigures
	// Migrations are those of volumes, by name; those that have ended too until they are
	// finished.
	Migrations []Migration
}

// HoldFigures count what peers have asked a server to keep.
type HoldFigures struct {
	Now, Given, Expired, ReadBytes int64
}

// ReplicaFigures are those of one side of a replica.
type ReplicaFigures struct {
	Name string
	// Role is source, replica or former.
	Role string
	// Succeeded is when the last round ended well, Lag how long ago the source had what the
	// replica has.
	Succeeded time.Time
	Lag       time.Duration
	// Rounds to NetworkBytes count since the start.
	Rounds, Failures           uint64
	FetchedBytes, NetworkBytes int64
}

// MediumFigures are the commands of a logical unit since the server began to serve it.
type MediumFigures struct {
	// Medium is what its blocks are stored on, for example "volume src".
	Medium    string
	SizeBytes int64
	Kinds     []KindFigures
}

// KindFigures are commands of one kind, for example "read".
type KindFigures struct {
	Kind                    string
	Commands, Bytes, Errors uint64
	Latency                 Durations
}

// Durations are a histogram.
type Durations struct {
	Sum time.Duration
	// Bounds are the upper bounds of the buckets but the last, and Counts what is in each
	// bucket. The bounds of one series never change.
	Bounds []time.Duration
	Counts []uint64
}

// TargetFigures are what is logged in to a target.
type TargetFigures struct {
	Target string
	// Commands is how many are outstanding.
	Sessions, Connections, Commands int
}

// Figures returns figures of a store that is served; ErrNotRunning where no server is. It
// can wait for the disk.
func (s *Store) Figures(ctx context.Context) (Figures, error) {
	if s.server == nil {
		return Figures{}, ErrNotRunning
	}
	f := Figures{Status: s.server.Overview(), Server: s.server.Figures()}
	var err error
	if f.Store, err = s.store.Figures(); err != nil {
		return f, err
	}
	for _, v := range s.store.Volumes() {
		if !strings.HasPrefix(v.Name(), hiddenPrefix) {
			f.Volumes, f.ProvisionedBytes = f.Volumes+1, f.ProvisionedBytes+v.Size()
		}
	}
	for _, v := range s.store.Files() {
		if !strings.HasPrefix(v.Name(), hiddenPrefix) {
			f.Files, f.ProvisionedBytes = f.Files+1, f.ProvisionedBytes+v.Size()
		}
	}
	if f.HostFreeBytes, err = s.store.HostFreeBytes(); err != nil {
		return f, err
	}
	if !s.readOnly {
		m, err := s.TokenManager(ctx)
		if err != nil {
			return f, err
		}
		f.Tokens = m.Stats()
	}
	f.At = time.Now()
	return f, nil
}

// Overview is Status without sessions, and without sizes and URLs of LUNs. It does not wait
// for the disk. ErrNotRunning where no server is.
func (s *Store) Overview() (Status, error) {
	if s.server == nil {
		return Status{}, ErrNotRunning
	}
	return s.server.Overview(), nil
}

// Measured are figures that take time in proportion to what is stored.
type Measured struct {
	At time.Time
	// LogicalBytes and DedupRatio are those of backstore.Stats, HeldBytes that of
	// tokens.Stats.
	LogicalBytes int64
	DedupRatio   float64
	HeldBytes    int64
}

// Measure reads the maps of all volumes, and of all tokens.
func (s *Store) Measure(ctx context.Context) (Measured, error) {
	stats, err := s.store.Stats(ctx)
	if err != nil {
		return Measured{}, err
	}
	m := Measured{LogicalBytes: stats.LogicalBytes, DedupRatio: stats.DedupRatio}
	if !s.readOnly {
		manager, err := s.TokenManager(ctx)
		if err != nil {
			return m, err
		}
		if m.HeldBytes, err = manager.HeldBytes(ctx); err != nil {
			return m, err
		}
	}
	m.At = time.Now()
	return m, nil
}
