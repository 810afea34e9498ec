package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/audit"
	"odx/conf"
)

var _ admin.Live = (*Service)(nil)

// proposal is a configuration that is to be applied.
type proposal struct {
	cfg *conf.Config
	// replaces has the text of the file that it is to be written to; nil for one that was
	// read from the file.
	replaces []byte
	// move is what the proposal is made for; nil for an administrator's.
	move *move
	// again is a medium whose logical unit is recreated, "" for none.
	again string
}

// Reload implements admin.Live.
func (s *Service) Reload(ctx context.Context) (admin.Reloaded, error) {
	return s.change(ctx, "reload", func(string) (*proposal, error) {
		cfg, err := s.Configuration().Reload()
		return &proposal{cfg: cfg}, err
	})
}

// PutConfig implements admin.Live.
func (s *Service) PutConfig(ctx context.Context, text []byte, basedOn string) (admin.Reloaded, error) {
	return s.change(ctx, "put configuration", func(path string) (*proposal, error) {
		before, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("configuration %s: %w", path, err)
		}
		if basedOn != "" && basedOn != admin.Digest(before) {
			return nil, fmt.Errorf("configuration %s: %w", path, conf.ErrChanged)
		}
		cfg, err := s.Configuration().Again(text)
		return &proposal{cfg: cfg, replaces: before}, err
	})
}

// EditConfig implements admin.Live.
func (s *Service) EditConfig(ctx context.Context, edits ...conf.Edit) (admin.Reloaded, error) {
	return s.change(ctx, "edit configuration", func(path string) (*proposal, error) {
		before, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("configuration %s: %w", path, err)
		}
		text, err := conf.Apply(path, before, edits...)
		if err != nil {
			return nil, err
		}
		cfg, err := s.Configuration().Again(text)
		return &proposal{cfg: cfg, replaces: before}, err
	})
}

// CompareConfig implements admin.Live.
func (s *Service) CompareConfig(_ context.Context, text []byte) ([]conf.Change, error) {
	now := s.state.Load().cfg
	next, err := now.Again(text)
	if err != nil {
		return nil, err
	}
	return conf.Diff(now, next), nil
}

// Config implements admin.Live.
func (s *Service) Config(context.Context) ([]byte, error) { return s.state.Load().cfg.Effective() }

// ConfigFile implements admin.Live.
func (s *Service) ConfigFile(context.Context) ([]byte, error) { return s.state.Load().cfg.Text(), nil }

// Configuration returns the configuration in force.
func (s *Service) Configuration() *conf.Config { return s.state.Load().cfg }

// Prepared is what something outside of the service has prepared for a configuration.
type Prepared struct {
	// Commit applies it and cannot fail, Undo drops it. One of them is called.
	Commit, Undo func()
	// Changes are secrets and certificates that are others, under the same names.
	Changes  []conf.Change
	Warnings []string
}

// Follow has prepare called with each configuration that is to be applied. It belongs to the
// set-up.
func (s *Service) Follow(prepare func(next *conf.Config) (Prepared, error)) {
	s.followers = append(s.followers, prepare)
}

// change applies a configuration that read returns, which it calls with the path of the
// configuration file. It records what has changed, or why nothing has.
func (s *Service) change(ctx context.Context, what string, read func(path string) (*proposal, error)) (r admin.Reloaded, err error) {
	done, err := s.changes.begin(ctx)
	if err != nil {
		return r, err
	}
	defer done()
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.changes.ending, cancel)()
	path := s.state.Load().cfg.File
	start := time.Now()
	p, err := read(path)
	if err == nil {
		r, err = s.apply(limited, p)
	}
	if err != nil && s.changes.ending.Err() != nil {
		err = errors.Join(admin.ErrChanging, err)
	}
	r.Took = time.Since(start)
	s.recordChange(ctx, what, path, &r, err)
	return r, err
}

// maxRecorded bounds the lines about one reload.
const maxRecorded = 200

// recordChange writes what a reload has changed to the log and to the audit.
func (s *Service) recordChange(ctx context.Context, what, path string, r *admin.Reloaded, err error) {
	if err != nil {
		s.log.WithError(err).Error("configuration not changed")
		s.audit.Record(ctx, audit.Change{What: what, Subject: path, Err: err})
		return
	}
	for i, c := range r.Changes {
		if i == maxRecorded {
			s.audit.Record(ctx, audit.Change{What: what, Subject: fmt.Sprintf("%d more keys of %s", len(r.Changes)-i, path)})
			break
		}
		s.audit.Record(ctx, audit.Change{What: what, Subject: c.Key, Before: c.Before, After: c.After})
	}
	for _, w := range r.Warnings {
		s.log.Warn(w)
	}
	s.log.WithFields(logrus.Fields{
		"changes": len(r.Changes), "luns_came": len(r.Came), "luns_left": len(r.Left), "logouts": r.LogoutsRequested, "took": r.Took.Round(time.Millisecond).String(),
	}).Info("configuration applied")
}

// apply applies a configuration, as a whole or not at all.
func (s *Service) apply(ctx context.Context, p *proposal) (admin.Reloaded, error) {
	now := s.state.Load()
	if s.rescue {
		return admin.Reloaded{}, admin.ErrRescue
	}
	changes := conf.Diff(now.cfg, p.cfg)
	restart := slices.DeleteFunc(slices.Clone(changes), func(c conf.Change) bool { return c.Class != conf.NeedsRestart })
	if len(restart) > 0 {
		return admin.Reloaded{}, &admin.NeedsRestartError{Changes: restart}
	}
	t := &transition{service: s, now: now, move: p.move, again: p.again}
	if err := t.prepare(ctx, p.cfg); err != nil {
		return admin.Reloaded{}, errors.Join(err, t.undo())
	}
	t.reached("prepared")
	if err := p.move.hold(ctx, t); err != nil {
		return admin.Reloaded{}, errors.Join(err, t.undo())
	}
	defer p.move.release()
	if err := t.settle(ctx, p); err != nil {
		return admin.Reloaded{}, errors.Join(err, t.undo())
	}
	t.reached("settled")
	r := t.commit()
	p.move.committed(ctx)
	t.reached("committed")
	t.leave(&r)
	r.Changes = t.rotated(changes)
	return r, nil
}

// putFile makes the proposal the configuration file, unless it comes from there.
func (p *proposal) putFile() error {
	if p.replaces == nil {
		return nil
	}
	err := conf.Replace(p.cfg.File, p.replaces, p.cfg.Text())
	if err != nil {
		err = errors.Join(err, p.putBack())
	}
	return err
}

// putBack makes the file what it was, if it is the proposal.
func (p *proposal) putBack() error {
	if p.replaces == nil {
		return nil
	}
	err := conf.Replace(p.cfg.File, p.cfg.Text(), p.replaces)
	if errors.Is(err, conf.ErrChanged) || errors.Is(err, conf.ErrReadOnly) {
		return nil // it never became the proposal, or is the work of another by now
	}
	return err
}
