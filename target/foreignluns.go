package target

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
	client "odx/initiator"
	"odx/target/foreign"
)

// foreignPrefix begins the keys of the records of LUNs of other targets, and the hash of the
// name follows; foreignVersion is their version.
const (
	foreignPrefix  = "foreign/"
	foreignVersion = 1
)

// foreignRecord is durable: what a LUN of another target has to stay.
type foreignRecord struct {
	Version     int    `json:"version"`
	URL         string `json:"url"`      // as conf.ParseISCSI returns it
	ID          string `json:"identity"` // as foreign.Geometry has it, like those that follow
	Size        int64  `json:"size"`
	BlockLength int    `json:"block_length"`
}

// foreignLUNs are the LUNs of other targets that are open: one session for each, no matter who uses
// it.
type foreignLUNs struct {
	store *backstore.Store
	log   *logrus.Entry
	grown func(url string)

	mu   sync.Mutex // guards open and what is in it
	open map[string]*openForeign
}

// openForeign is one of them.
type openForeign struct {
	// opening is closed once the first user has opened it, or could not.
	opening chan struct{}
	disk    *foreign.Disk // nil until then
	users   map[any]bool
}

func newForeignLUNs(store *backstore.Store, log *logrus.Entry, grown func(url string)) *foreignLUNs {
	return &foreignLUNs{store: store, log: log, grown: grown, open: map[string]*openForeign{}}
}

// acquire opens a LUN of another target for a user, who may have it open already. One that is
// not known yet has to be reachable; others do not wait for it.
func (f *foreignLUNs) acquire(ctx context.Context, url string, login foreign.Login, user any) (*foreign.Disk, error) {
	for {
		f.mu.Lock()
		o := f.open[url]
		if o == nil {
			o = &openForeign{opening: make(chan struct{}), users: map[any]bool{}}
			f.open[url] = o
			f.mu.Unlock()
			return f.first(ctx, url, login, o, user)
		}
		if o.disk != nil {
			o.users[user] = true
		}
		d := o.disk
		f.mu.Unlock()
		if d != nil {
			return d, nil
		}
		select { // the other user may have another login, or less time: an error of it is not ours
		case <-o.opening:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is being opened: %w", url, ctx.Err())
		}
	}
}

// first opens a LUN of another target for its first user.
func (f *foreignLUNs) first(ctx context.Context, url string, login foreign.Login, o *openForeign, user any) (*foreign.Disk, error) {
	d, err := f.dial(ctx, url, login)
	f.mu.Lock()
	defer f.mu.Unlock()
	defer close(o.opening)
	if err != nil {
		delete(f.open, url)
		return nil, err
	}
	o.disk, o.users[user] = d, true
	return d, nil
}

// dial opens a LUN of another target, and records what it is if that is not known.
func (f *foreignLUNs) dial(ctx context.Context, url string, login foreign.Login) (*foreign.Disk, error) {
	u, err := client.ParseURL(url)
	if err != nil {
		return nil, err
	}
	login.In(&u)
	known, err := f.known(url)
	if err != nil {
		return nil, err
	}
	id := f.id(url)
	d, err := foreign.Open(ctx, foreign.Options{
		URL: u, InitiatorName: ForeignInitiator(f.store.HeaderID()), ISID: [6]byte{0x80, id[0], id[1], id[2], id[3], id[4]}, // random (RFC 7143 11.12.5)
		Known: known, Log: f.log,
		Grown: func(g foreign.Geometry) {
			if err := f.remember(context.Background(), url, g); err != nil {
				f.log.WithError(err).WithField("lun", url).Warn("size of a LUN of another target not recorded")
			}
			f.grown(url)
		},
	})
	if err != nil {
		return nil, err
	}
	if known == (foreign.Geometry{}) {
		if err := f.remember(ctx, url, d.Geometry()); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// release closes a LUN of another target for a user, and its session once it has no other.
func (f *foreignLUNs) release(url string, user any) error {
	f.mu.Lock()
	o := f.open[url]
	last := false
	if o != nil && o.disk != nil { // one that is being opened is not the user's
		delete(o.users, user)
		last = len(o.users) == 0
	}
	if last {
		delete(f.open, url)
	}
	f.mu.Unlock()
	if !last {
		return nil
	}
	return o.disk.Close()
}

// close closes all that is still open.
func (f *foreignLUNs) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, o := range f.open {
		if o.disk != nil {
			errs = append(errs, o.disk.Close())
		}
	}
	clear(f.open)
	return errors.Join(errs...)
}

// setLogin changes what a LUN that is open is logged in to with.
func (f *foreignLUNs) setLogin(url string, login foreign.Login) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.open[url]; o != nil && o.disk != nil {
		o.disk.SetLogin(login)
	}
}

// foreignUse is a use of a LUN of another target that ends with Close.
type foreignUse struct {
	f   *foreignLUNs
	url string
}

func (u *foreignUse) Close() error { return u.f.release(u.url, u) }

// id returns a number that stays the same for a LUN of another target, and that nothing else
// of any store has.
func (f *foreignLUNs) id(url string) [16]byte {
	h := sha256.New()
	id := f.store.HeaderID()
	h.Write(id[:])
	_, _ = io.WriteString(h, url) // never fails
	return [16]byte(h.Sum(nil))
}

// ForeignInitiator returns the name that a server with a store of this ID logs in to other
// targets with.
func ForeignInitiator(store [16]byte) string {
	return "iqn.2026-11.example.odx:" + hex.EncodeToString(store[:])
}

func foreignKey(url string) []byte {
	sum := sha256.Sum256([]byte(url))
	return []byte(foreignPrefix + hex.EncodeToString(sum[:16]))
}

// known returns what is recorded of a LUN; the zero value if nothing is.
func (f *foreignLUNs) known(url string) (foreign.Geometry, error) {
	value, err := f.store.GetRecord(foreignKey(url))
	if errors.Is(err, backstore.ErrNotFound) {
		return foreign.Geometry{}, nil
	}
	if err != nil {
		return foreign.Geometry{}, err
	}
	r, err := decodeForeign(value)
	if err == nil && r.URL != url {
		err = fmt.Errorf("record of a LUN of another target: it is that of %s", r.URL)
	}
	return foreign.Geometry{ID: r.ID, Size: r.Size, BlockLength: r.BlockLength}, err
}

// decodeForeign reads a record.
func decodeForeign(value []byte) (r foreignRecord, err error) {
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("record of a LUN of another target: %w", err)
	}
	switch url, err := conf.ParseISCSI(r.URL); {
	case r.Version != foreignVersion:
		return r, fmt.Errorf("record of a LUN of another target: version %d is not known", r.Version)
	case err != nil || url != r.URL:
		return r, fmt.Errorf("record of a LUN of another target: invalid name %q", r.URL)
	case r.ID == "" || r.Size <= 0 || r.BlockLength < 512 || r.BlockLength > 1<<16:
		return r, fmt.Errorf("record of %s: invalid identity, size or block length", r.URL)
	}
	return r, nil
}

// remember records what a LUN is, durably.
func (f *foreignLUNs) remember(ctx context.Context, url string, g foreign.Geometry) error {
	value, _ := json.Marshal(foreignRecord{foreignVersion, url, g.ID, g.Size, g.BlockLength}) // plain data cannot fail
	if err := f.store.PutRecords(ctx, backstore.Record{Key: foreignKey(url), Value: value}); err != nil {
		return err
	}
	return f.store.Flush(ctx)
}

// forget removes what is recorded of LUNs that are neither open nor configured: their place may
// be that of another LUN when it is configured again.
func (f *foreignLUNs) forget(ctx context.Context, cfg *conf.Config, migrating map[conf.Device]string) error {
	kept := map[string]bool{}
	for _, url := range foreignURLs(cfg) {
		kept[string(foreignKey(url))] = true
	}
	for d := range maps.Keys(migrating) {
		kept[string(foreignKey(d.ISCSI))] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for url := range f.open {
		kept[string(foreignKey(url))] = true
	}
	var gone []backstore.Record
	err := f.store.ScanRecords([]byte(foreignPrefix), func(key, _ []byte) error {
		if !kept[string(key)] {
			gone = append(gone, backstore.Record{Key: key})
		}
		return nil
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	return f.store.PutRecords(ctx, gone...)
}

// openForeign opens the LUN of another target that a LUN is.
func (st *state) openForeign(ctx context.Context, l *conf.LUN) (*foreign.Disk, error) {
	m := st.media
	known, err := m.foreign.known(l.ISCSI)
	if err != nil {
		return nil, err
	}
	use := &foreignUse{m.foreign, l.ISCSI}
	d, err := m.foreign.acquire(ctx, l.ISCSI, st.loginOf(l), use)
	if err != nil {
		return nil, err
	}
	isNew := known == foreign.Geometry{}
	if err := st.checkForeign(l, d, isNew); err != nil {
		err = errors.Join(err, use.Close())
		if isNew { // what it is does not count as known of a LUN that was never served
			err = errors.Join(err, m.foreign.forgetOne(ctx, l.ISCSI))
		}
		return nil, err
	}
	m.backings[l.Medium()] = append(m.backings[l.Medium()], use)
	return d, nil
}

// checkForeign returns why a LUN of another target cannot be a LUN here. One that is new must not be
// what another one is known to be, even if that is not open.
func (st *state) checkForeign(l *conf.LUN, d *foreign.Disk, isNew bool) error {
	m, g := st.media, d.Geometry()
	var urls []string
	if isNew {
		urls = foreignURLs(m.cfg)
	}
	if other := m.foreign.usedAs(l.ISCSI, urls); other != "" {
		return m.cfg.Problem(l.Key, "LUN %d: %s is %s by another address, which this server uses; to change the address of a LUN, take it out with one reload, and add it with the next", l.Number, l.ISCSI, other)
	}
	// A server that starts has no sessions with itself.
	if own := st.own(g.ID); own != "" && m.made != nil {
		return m.cfg.Problem(l.Key, "LUN %d: %s has the identity of a LUN of this server, %s; name its volume or view", l.Number, l.ISCSI, own)
	}
	if g.BlockLength > l.BlockSize {
		return m.cfg.Problem(l.Key+".block_size", "LUN %d: %s has blocks of %d bytes, and block_size is %d", l.Number, l.ISCSI, g.BlockLength, l.BlockSize)
	}
	if p := m.checkSize(l, g.Size, nil); p != nil {
		return *p
	}
	return nil
}

// loginOf returns what a LUN of another target is logged in to with.
func (st *state) loginOf(l *conf.LUN) foreign.Login {
	return st.secrets.login(l.Login)
}

// login returns a login with its secrets.
func (all secrets) login(l *conf.Login) (out foreign.Login) {
	if l == nil {
		return out
	}
	out.Initiator = client.Credentials{User: l.Name, Password: string(all[l.Key])}
	if l.Mutual != nil {
		out.Target = client.Credentials{User: l.Mutual.Name, Password: string(all[l.Mutual.Key])}
	}
	return out
}

// resizeForeign has the logical unit on a LUN of another target find out its size.
func (s *Service) resizeForeign(url string) {
	if st := s.state.Load(); st != nil {
		if lu := st.unit(url); lu != nil {
			lu.Resized()
		}
	}
}

// forgetForeign removes what is recorded of LUNs of other targets that have left.
func (s *Service) forgetForeign(ctx context.Context, cfg *conf.Config) {
	var migrating map[conf.Device]string
	if s.migrations != nil {
		migrating = s.migrations.Destinations()
	}
	if err := s.foreign.forget(ctx, cfg, migrating); err != nil {
		s.log.WithError(err).Warn("records of LUNs of other targets that left not removed; the next start does that")
	}
}
