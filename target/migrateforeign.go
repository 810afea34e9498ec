package target

import (
	"context"
	"errors"
	"fmt"
	"os"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
	"odx/migrate"
	"odx/target/foreign"
)

// movedTo is the LUN of another target that a migration writes to.
type movedTo struct {
	*foreign.Disk
	use     *foreignUse
	service *Service
}

// OpenForeign implements migrate.Server.
func (s migrated) OpenForeign(ctx context.Context, c migrate.Cut) (migrate.Foreign, error) {
	login, err := s.loginAfter(c)
	if err != nil {
		return nil, err
	}
	use := &foreignUse{s.foreign, c.To.ISCSI}
	d, err := s.foreign.acquire(ctx, c.To.ISCSI, login, use)
	switch {
	case foreign.Conflicts(err):
		return nil, fmt.Errorf("%w: another initiator has reserved it: %w", admin.ErrInUse, err)
	case err != nil:
		return nil, err
	}
	if other := s.foreign.usedAs(c.To.ISCSI, foreignURLs(s.state.Load().cfg)); other != "" {
		return nil, errors.Join(fmt.Errorf("%s: %w as %s, by another address", c.To.ISCSI, admin.ErrInUse, other), use.Close())
	}
	s.foreign.setLogin(c.To.ISCSI, login)
	return &movedTo{d, use, s.Service}, nil
}

// loginAfter returns what the configuration after a cut logs in with.
func (s migrated) loginAfter(c migrate.Cut) (login foreign.Login, err error) {
	path := s.state.Load().cfg.File
	before, err := os.ReadFile(path)
	if err != nil {
		return login, fmt.Errorf("configuration %s: %w", path, err)
	}
	edits := s.movesOf(c)
	if len(edits) == 0 {
		return login, errNoUnit(c.From)
	}
	text, err := conf.Apply(path, before, edits...)
	if err != nil {
		return login, err
	}
	cfg, err := conf.Parse(path, text)
	if err != nil {
		return login, err
	}
	all, _, err := readSecrets(cfg)
	if err != nil {
		return login, err
	}
	for _, l := range (&state{cfg: cfg}).luns {
		if l.ISCSI == c.To.ISCSI {
			return all.login(l.Login), nil
		}
	}
	return login, errNoUnit(c.From)
}

// ForgetForeign implements migrate.Server.
func (s migrated) ForgetForeign(ctx context.Context, url string) error {
	return s.foreign.forgetOne(ctx, url)
}

// Close implements migrate.Foreign.
func (m *movedTo) Close() error { return m.use.Close() }

// BlockLength implements migrate.Foreign.
func (m *movedTo) BlockLength() int { return m.Geometry().BlockLength }

// Condition implements migrate.Foreign.
func (m *movedTo) Condition(ctx context.Context) (out migrate.Condition, err error) {
	if own := m.service.state.Load().own(m.Geometry().ID); own != "" {
		return migrate.Condition{Own: own}, nil
	}
	c, err := m.Disk.Condition(ctx)
	return migrate.Condition{Protected: c.Protected, Reserved: c.Reserved, Registered: c.Registered, Data: c.Data, DataAt: c.DataAt}, err
}

// forgetOne removes what is recorded of a LUN of another target, unless it is open.
func (f *foreignLUNs) forgetOne(ctx context.Context, url string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[url] != nil {
		return nil
	}
	return f.store.PutRecords(ctx, backstore.Record{Key: foreignKey(url)})
}
