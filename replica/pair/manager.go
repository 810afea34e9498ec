package pair

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/offload"
)

// maxPairs bounds the pairs of a store, which peers can ask for.
const maxPairs = 1024

// hiddenPrefix begins the names of objects that are being received.
const hiddenPrefix = ".replica-"

// Options are the arguments of Open.
type Options struct {
	Store *backstore.Store
	Log   *logrus.Entry
	// Named returns the peer of that name, Resolve the one that has a store.
	Named   func(name string) (Link, bool)
	Resolve func(store [16]byte) (Link, bool)
	// Content, if set, is called when a volume, or file:NAME, has other content, and Roles that
	// it is to be served in another way (Serving). They are called without a lock.
	Content func(object string)
	Roles   func(ctx context.Context, object string) error
	// Arrivals serves what is moved here; nil: nothing can be.
	Arrivals Arrivals
	// Looks: the store is only read; nothing is revealed or removed.
	Looks bool
	// reached is called before each step that changes something, for tests: an error ends
	// the operation as the end of the process would.
	reached func(step string) error
}

// Manager has the pairs of a store. It is safe for concurrent use.
type Manager struct {
	o     Options
	store *backstore.Store
	log   *logrus.Entry

	schedule schedule
	// troubles are those of the last look.
	troubles atomic.Pointer[[]string]
	// background has a job run in the background: by Run, which takes it from jobs.
	background func(ctx context.Context, job func(ctx context.Context)) error
	jobs       chan func(ctx context.Context)

	mu    sync.Mutex // guards what follows
	pairs map[ID]*running
	// unstarted is why replicas could not be started, by name.
	unstarted map[string]error
}

// running is what is known of a pair as long as the process lives.
type running struct {
	// busy has room for the one operation that may last: a round, a change of roles.
	busy chan struct{}
	// changing is held while the record changes. It is taken after busy.
	changing sync.Mutex

	mu       sync.Mutex // guards what follows
	progress Progress
	last     Attempt
	counts   Counts
	turn     *turn // of a migration to here; nil: none was asked for yet
}

// Open returns the manager of a store, after it has revealed what was complete when the
// process before this one ended, and removed what was not needed any more. The store is not
// served yet.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{o: o, store: o.Store, log: o.Log, pairs: map[ID]*running{}, jobs: make(chan func(context.Context))}
	m.background = m.send
	all, err := m.records()
	if err != nil {
		return nil, err
	}
	if o.Looks {
		return m, nil
	}
	for _, r := range all {
		if r.Role != Replica || r.Next == nil {
			continue
		}
		// What is wrong with one replica is no reason not to serve the others.
		if _, err := m.reveal(ctx, r.ID); err != nil {
			m.log.WithField("replica", r.Name).WithError(err).Error("what a replica has received could not be made visible; it is tried again with the next round")
		}
	}
	return m, m.sweep(ctx)
}

// SetCallbacks sets what is called for changes. It belongs to the set-up.
func (m *Manager) SetCallbacks(content func(object string), roles func(ctx context.Context, object string) error) {
	m.o.Content, m.o.Roles = content, roles
}

// reached is called before a step that changes something.
func (m *Manager) reached(step string) error {
	if m.o.reached == nil {
		return nil
	}
	return m.o.reached(step)
}

// of returns what is known of a pair in this process.
func (m *Manager) of(id ID) *running {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pairs[id]
	if p == nil {
		p = &running{busy: make(chan struct{}, 1)}
		m.pairs[id] = p
	}
	return p
}

// occupy begins an operation that may last; ErrBusy if there is one.
func (m *Manager) occupy(id ID) (done func(), err error) {
	p := m.of(id)
	select {
	case p.busy <- struct{}{}:
		return func() { <-p.busy }, nil
	default:
		return nil, ErrBusy
	}
}

// records returns the records of all pairs by name.
func (m *Manager) records() ([]*record, error) {
	var all []*record
	err := m.store.ScanRecords([]byte(recordPrefix), func(key, value []byte) error {
		r, err := decodeRecord(key, value)
		if err == nil {
			all = append(all, r)
		}
		return err
	})
	slices.SortFunc(all, func(a, b *record) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	return all, err
}

// load returns the record of a pair, or ErrNoPair.
func (m *Manager) load(id ID) (*record, error) {
	key := (&record{ID: id}).key()
	value, err := m.store.GetRecord(key)
	if errors.Is(err, backstore.ErrNotFound) {
		return nil, fmt.Errorf("%w: %v", ErrNoPair, id)
	}
	if err != nil {
		return nil, err
	}
	return decodeRecord(key, value)
}

// named returns the record of the pair of that name, or ID, or ErrNoPair.
func (m *Manager) named(name string) (*record, error) {
	all, err := m.records()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Name == name || r.ID.String() == name {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoPair, name)
}

// put makes a record durable.
func (m *Manager) put(ctx context.Context, r *record) error {
	stored, err := r.stored()
	if err == nil {
		err = m.store.PutRecords(ctx, stored)
	}
	if err != nil {
		return err
	}
	return m.store.Flush(ctx)
}

// drop makes a record durable in one step with the deletion of a point that it does not name
// any more; nil for none.
func (m *Manager) drop(ctx context.Context, r *record, p *point) error {
	if p == nil {
		return m.put(ctx, r)
	}
	stored, err := r.stored()
	if err != nil {
		return err
	}
	err = m.store.DeleteSnapshot(ctx, p.Snapshot, stored)
	if errors.Is(err, backstore.ErrNotFound) { // a repair has lost it
		return m.put(ctx, r)
	}
	if err != nil {
		return err
	}
	return m.store.Flush(ctx)
}

// pin takes a snapshot of all of v in one step with the record that set makes of it.
func (m *Manager) pin(ctx context.Context, v *backstore.Volume, set func(snapshot uint64) *record) error {
	if _, err := set(0).stored(); err != nil {
		return err
	}
	n, err := v.Snapshot(ctx, []backstore.Range{{Length: v.Size()}}, func(id uint64) []backstore.Record {
		stored, _ := set(id).stored() // as before, with another number
		return []backstore.Record{stored}
	})
	if err != nil {
		return err
	}
	n.Release()
	return m.store.Flush(ctx)
}

// object returns the volume or file of a pair, or an error that wraps backstore.ErrNotFound.
func (m *Manager) object(r *record) (*backstore.Volume, error) {
	if r.Volume != (ID{}) {
		return m.store.VolumeByID(r.Volume)
	}
	if r.File && r.Role == Source {
		return m.store.File(r.Object)
	}
	return nil, fmt.Errorf("%s: %w: it has not been received yet", r.objectName(), backstore.ErrNotFound)
}

// lookUp returns the volume, or file:NAME, of the store.
func (m *Manager) lookUp(object string) (*backstore.Volume, error) {
	name, file := strings.CutPrefix(object, offload.FilePrefix)
	if strings.HasPrefix(name, ".") {
		return nil, fmt.Errorf("%s: %w", object, backstore.ErrNotFound)
	}
	if file {
		return m.store.File(name)
	}
	return m.store.Volume(name)
}

// protection returns what a role needs of the object.
func (r *record) protection() *backstore.Protection {
	what := "replica " + r.Name
	if r.Role == Source {
		what = fmt.Sprintf("replica %s of peer %s; run `odx replicate forget %s` first", r.Name, r.PeerName, r.Name)
	}
	return &backstore.Protection{By: what, Frozen: r.Role != Source}
}

// protect makes a record with another role durable, in one step with what that role needs of
// the object, and more records.
func (m *Manager) protect(ctx context.Context, v *backstore.Volume, r *record, more ...backstore.Record) error {
	stored, err := r.stored()
	if err != nil {
		return err
	}
	more = append(more, stored)
	if r.File && r.Role == Source { // it may be replaced under its name
		return v.Protect(ctx, r.ID.String(), nil, more...)
	}
	return v.Protect(ctx, r.ID.String(), r.protection(), more...)
}

// sweep removes the hidden objects that no record names.
func (m *Manager) sweep(ctx context.Context) error {
	all, err := m.records()
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, r := range all {
		if r.Work != nil {
			needed[r.Work.Name] = true
		}
	}
	var errs []error
	for _, v := range slices.Concat(m.store.Volumes(), m.store.Files()) {
		if strings.HasPrefix(v.Name(), hiddenPrefix) && !needed[v.Name()] {
			errs = append(errs, m.remove(ctx, v))
		}
	}
	return errors.Join(errs...)
}

// remove deletes a hidden object.
func (m *Manager) remove(ctx context.Context, v *backstore.Volume) error {
	if _, protected := v.Protected(); protected {
		return nil // it is about to get its name
	}
	if v.IsFile() {
		return errors.Join(m.store.DeleteFile(ctx, v.Name()), m.store.Flush(ctx))
	}
	return errors.Join(m.store.DeleteVolume(ctx, v.Name()), m.store.Flush(ctx))
}

// hidden returns the object that a record is receiving into, nil for none.
func (m *Manager) hidden(r *record) *backstore.Volume {
	if r.Work == nil {
		return nil
	}
	find := m.store.Volume
	if r.File {
		find = m.store.File
	}
	v, err := find(r.Work.Name)
	if err != nil {
		return nil
	}
	return v
}

// newID returns an ID that nothing has.
func newID() (id ID) {
	rand.Read(id[:]) // never fails
	return id
}

// tellContent says that an object has other content.
func (m *Manager) tellContent(r *record) {
	if m.o.Content != nil {
		m.o.Content(r.objectName())
	}
}

// tellRoles has an object be served as its roles say.
func (m *Manager) tellRoles(ctx context.Context, r *record) error {
	if m.o.Roles == nil {
		return nil
	}
	return m.o.Roles(ctx, r.objectName())
}

// ago returns how long ago t was by the clock of this server, never less than 0.
func ago(t time.Time) time.Duration { return max(time.Since(t), 0) }
