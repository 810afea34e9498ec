package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
	"odx/owner"
	"odx/pool"
	"odx/tokens"
	"odx/vhd"
)

// Options say how a store is opened.
type Options struct {
	// ReadOnly: no file of the store changes.
	ReadOnly bool
	// ScrubEvery is how often the store scrubs itself; 0: never.
	ScrubEvery time.Duration
	// Owner owns the store for this process already; nil: Open claims it.
	Owner *owner.Owner
	// Place has the store, if it is in a pool; nil: Open connects to the pool. Open takes it
	// over, also after an error.
	Place *pool.Place
	// Server serves the store in this process; nil where nothing does.
	Server Server
}

// Server is the part of a server that the administration of its store needs. Its
// methods are called concurrently, after the server has started.
type Server interface {
	// Resized notifies the initiators that have a volume as a LUN that it has grown.
	Resized(volume string)
	// Renewed notifies them that a volume has another content, and perhaps another size.
	Renewed(volume string)
	// FileUser names the LUN or view that has a file of the store open; "" if none has.
	FileUser(file string) string
	// WarnBytes is Capacity.WarnBytes.
	WarnBytes() int64
	// Status describes what is served.
	Status() Status
	// CopyCommands counts copy commands since the server started.
	CopyCommands() CopyCommands
	// Overview is Status without sessions, and without sizes and URLs of LUNs. It does not
	// wait for the disk.
	Overview() Status
	// Figures returns what monitoring reads of the server. It can wait for the disk.
	Figures() ServerFigures
	// Peers describes the peers, which are asked until ctx ends, PeerTokens their tokens.
	Peers(ctx context.Context) Peers
	PeerTokens(ctx context.Context) []PeerTokens
	// Unheld returns what of the store lies in others that do not hold it, or do not say so.
	Unheld(ctx context.Context) ([]string, error)
	// CreatePeerToken makes a token of a volume of the peer that the request names, there.
	CreatePeerToken(ctx context.Context, r PeerTokenRequest) (*tokens.Token, tokens.Info, error)
}

// Store is an open store. It implements Administrator.
type Store struct {
	using    using
	log      *logrus.Entry
	readOnly bool
	server   Server // nil where nothing serves the store
	store    *backstore.Store
	place    *pool.Place // nil where the store is in a directory

	opening sync.Mutex      // guards tokens and disks
	tokens  *tokens.Manager // nil until it is opened
	disks   *vhd.Manager    // nil until it is opened

	sweeping sync.Mutex // guards swept
	swept    bool       // unfinished volumes were removed
}

// Open opens the store of a configuration, and creates it if there is none. An error in
// the configuration is a conf.Problem; backstore.ErrLocked if another process has the
// store open.
func Open(ctx context.Context, cfg *conf.Config, log *logrus.Entry, o Options) (*Store, error) {
	s := &Store{log: log, readOnly: o.ReadOnly, server: o.Server}
	memory := DivideMemory(cfg)
	s.using.now.Store(&settings{cfg, memory})
	options := storeOptions(cfg, &memory, log)
	options.ReadOnly, options.ScrubEvery, options.Owner = o.ReadOnly, o.ScrubEvery, o.Owner
	s.place = o.Place
	var err error
	if cfg.Pool != nil && s.place == nil {
		if s.place, err = pool.Open(cfg); err != nil {
			return nil, err
		}
	}
	if s.place != nil {
		s.place.Set(&options)
	}
	if s.store, err = backstore.Open(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("open %w", err), s.closePlace())
	}
	if unit := cfg.Store.DedupUnit; unit != 0 && unit != s.store.DedupUnit() {
		err := cfg.Problem("store.dedup_unit", "the store was created with %s, not %s; write that, or leave the key out",
			conf.FormatSize(int64(s.store.DedupUnit())), conf.FormatSize(int64(unit)))
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the store and its managers. No other method may run.
func (s *Store) Close() error {
	var errs []error
	if s.disks != nil {
		s.disks.Close()
	}
	if s.tokens != nil {
		errs = append(errs, s.tokens.Close())
	}
	return errors.Join(append(errs, s.store.Close(), s.closePlace())...)
}

// closePlace ends the connection to the pool.
func (s *Store) closePlace() error {
	if s.place == nil {
		return nil
	}
	return s.place.Close()
}

// Inspect opens the store of a configuration that is not being served, calls fn, and
// closes it. The tokens are opened on first use, so that a store whose tokens cannot be
// read can be checked. A store that does not exist is not created.
func Inspect(ctx context.Context, cfg *conf.Config, log *logrus.Entry, fn func(*Store) error) error {
	return inspect(ctx, cfg, log, Options{}, fn)
}

// InspectReadOnly is Inspect without changes of the store: fn may only read. The store
// may have an older format.
func InspectReadOnly(ctx context.Context, cfg *conf.Config, log *logrus.Entry, fn func(*Store) error) error {
	return inspect(ctx, cfg, log, Options{ReadOnly: true}, fn)
}

func inspect(ctx context.Context, cfg *conf.Config, log *logrus.Entry, o Options, fn func(*Store) error) (err error) {
	if cfg.Pool != nil {
		if o.Place, err = placeOf(cfg); err != nil {
			return err
		}
	} else if err := checkOwner(cfg); err != nil {
		return err
	}
	s, err := Open(ctx, cfg, log, o)
	if err != nil {
		return lockedProblem(cfg, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return fn(s)
}

// Backstore returns the extent store.
func (s *Store) Backstore() *backstore.Store { return s.store }

// Memory returns how the memory of the process is divided.
func (s *Store) Memory() conf.Memory { return s.using.now.Load().memory }

// placeOf returns the place of a store in a pool, which exists.
func placeOf(cfg *conf.Config) (*pool.Place, error) {
	place, err := pool.Open(cfg)
	if err != nil {
		return nil, err
	}
	exists, err := place.Exists()
	if err == nil && !exists {
		err = cfg.Problem("data_dir", "there is no store in %s yet; odx serve creates it", cfg.DataDir)
	}
	if err != nil {
		return nil, errors.Join(err, place.Close())
	}
	return place, nil
}

// checkOwner returns an error for a store of another user: opening it would create
// files that its server cannot write.
func checkOwner(cfg *conf.Config) error {
	info, err := os.Stat(cfg.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg.Problem("data_dir", "there is no store in %s yet; odx serve creates it", cfg.DataDir)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return cfg.Problem("data_dir", "the store in %s belongs to the user with number %d; run this as that user", cfg.DataDir, st.Uid)
	}
	return nil
}

// storeOptions returns the options of a configuration.
func storeOptions(cfg *conf.Config, m *conf.Memory, log *logrus.Entry) backstore.Options {
	return backstore.Options{
		Dir:           cfg.DataDir,
		Log:           log,
		CapacityBytes: cfg.Store.Capacity,
		CacheBytes:    m.Cache,
		DedupUnit:     cfg.Store.DedupUnit,

		CleanBytesPerSecond: cfg.Store.CleanIO,
		ScrubBytesPerSecond: cfg.Store.ScrubIO,
		StoreDuplicates:     cfg.Store.StoreDuplicates,
		MetadataCopies:      cfg.Store.MetadataCopies,
	}
}

// lockedError is a problem with data_dir that is a backstore.ErrLocked.
type lockedError struct{ error }

// Is implements the interface of errors.Is.
func (lockedError) Is(target error) bool { return target == backstore.ErrLocked }

// Unwrap returns the conf.Problem.
func (e lockedError) Unwrap() error { return e.error }

// lockedProblem turns backstore.ErrLocked into a problem with data_dir.
func lockedProblem(cfg *conf.Config, err error) error {
	if errors.Is(err, backstore.ErrLocked) {
		return lockedError{cfg.Problem("data_dir", "the store in %s is in use by another process, perhaps an odx that serves it; stop that first", cfg.DataDir)}
	}
	return err
}
