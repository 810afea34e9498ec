package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/sirupsen/logrus"

	"odx/conf"
)

// Inspect opens the store of a configuration that nobody serves, calls fn, and
// closes it. The Service that fn gets serves nothing, and opens the tokens only
// when it is asked for them: a store can be checked whose tokens cannot be read.
// A store that does not exist is not made.
func Inspect(ctx context.Context, cfg *conf.Config, log *logrus.Entry, fn func(*Service) error) (err error) {
	if err := checkOwner(cfg); err != nil {
		return err
	}
	s := &Service{cfg: cfg, memory: cfg.DivideMemory(availableMemory()), log: log}
	defer func() { err = errors.Join(err, s.release()) }()
	if err := s.openStore(ctx); err != nil {
		return lockedProblem(cfg, err)
	}
	return fn(s)
}

// Look is Inspect of a store that stays as it is: fn may only read. The store may
// be one of an older format.
func Look(ctx context.Context, cfg *conf.Config, log *logrus.Entry, fn func(*Service) error) (err error) {
	if err := checkOwner(cfg); err != nil {
		return err
	}
	s := &Service{cfg: cfg, memory: cfg.DivideMemory(availableMemory()), log: log, readOnly: true}
	defer func() { err = errors.Join(err, s.release()) }()
	if err := s.openStore(ctx); err != nil {
		return lockedProblem(cfg, err)
	}
	return fn(s)
}

// checkOwner refuses to open a store of another user: opening it leaves files
// behind that its server could not write to.
func checkOwner(cfg *conf.Config) error {
	info, err := os.Stat(cfg.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return cfg.Problem("data_dir", "there is no store in %s yet; odx serve makes it", cfg.DataDir)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return cfg.Problem("data_dir", "the store in %s belongs to the user with number %d; run this as that user", cfg.DataDir, st.Uid)
	}
	return nil
}
