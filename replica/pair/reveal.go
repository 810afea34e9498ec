package pair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"odx/backstore"
)

// What is received becomes visible in these steps, each of which is atomic and durable:
//
//  1. complete: a snapshot of the hidden object, and a record that has it as the next point.
//     From here on it is done, by the next start if need be, before anything is served.
//  2. The object gets the content of the hidden one in one step (Volume.Replace). The first
//     time, the hidden object is frozen, and becomes the object by its name.
//  3. The record has the point as the common one, in one step with the deletion of the
//     snapshot of the one before.
//  4. The hidden object is removed. One that no record names is removed by the next start.

// complete does step 1.
func (m *Manager) complete(ctx context.Context, id ID, v *backstore.Volume, at point) error {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil {
		return err
	}
	if r.Role != Replica || r.Next != nil || r.Work == nil || r.Work.Name != v.Name() {
		return fmt.Errorf("%w: the record has changed while the round ran", ErrRole)
	}
	if err := m.reached("complete"); err != nil {
		return err
	}
	return m.pin(ctx, v, func(snapshot uint64) *record {
		at.Snapshot = snapshot
		r.Next = &at
		return r
	})
}

// reveal does steps 2 to 4, as far as they are not done, and returns the record as it is
// then.
func (m *Manager) reveal(ctx context.Context, id ID) (*record, error) {
	p := m.of(id)
	p.changing.Lock()
	defer p.changing.Unlock()
	r, err := m.load(id)
	if err != nil || r.Role != Replica || r.Next == nil {
		return r, err
	}
	ctx = context.WithoutCancel(ctx) // what is begun here is ended
	first := r.Volume == (ID{})
	hidden := m.hidden(r)
	switch {
	case hidden == nil && first:
		return r, fmt.Errorf("%w: hidden object %s of %v is missing", backstore.ErrCorrupt, r.Work.Name, r)
	case hidden != nil && (first || hidden.ID() == r.Volume):
		if err := m.becomeObject(ctx, r, hidden); err != nil {
			return r, err
		}
		hidden = nil
	case hidden != nil:
		if err := m.replace(ctx, r, hidden); err != nil {
			return r, err
		}
	}
	old := r.Common
	r.Common, r.Next, r.Work = r.Next, nil, nil
	r.Succeeded = time.Now().Round(0)
	if err := m.reached("make the point the common one"); err != nil {
		return r, err
	}
	if err := m.drop(ctx, r, old); err != nil {
		return r, err
	}
	m.tellContent(r)
	if first {
		if err := m.tellRoles(ctx, r); err != nil {
			m.log.WithField("replica", r.Name).WithError(err).Warn("the LUN of a new replica is not served yet; reload")
		}
	}
	if hidden == nil {
		return r, nil
	}
	if err := m.reached("remove the hidden object"); err != nil {
		return r, err
	}
	return r, m.remove(ctx, hidden)
}

// becomeObject freezes the hidden object, and gives it its name.
func (m *Manager) becomeObject(ctx context.Context, r *record, hidden *backstore.Volume) error {
	if r.Volume == (ID{}) {
		r.Volume = hidden.ID()
		if err := m.reached("freeze the new object"); err != nil {
			return err
		}
		if err := m.protect(ctx, hidden, r); err != nil {
			return err
		}
	}
	if err := m.reached("name the new object"); err != nil {
		return err
	}
	name := m.store.RenameVolume
	if r.File {
		name = func(ctx context.Context, from, to string) error { return m.store.NameFile(ctx, from, to) }
	}
	if err := name(ctx, hidden.Name(), r.Object); err != nil {
		return fmt.Errorf("the replica is complete, and cannot get its name: %w", err)
	}
	return nil
}

// replace gives the object the content of the hidden one.
func (m *Manager) replace(ctx context.Context, r *record, hidden *backstore.Volume) error {
	v, err := m.object(r)
	if err != nil {
		return err
	}
	if err := m.reached("replace the content"); err != nil {
		return err
	}
	return v.Replace(ctx, hidden)
}

// snapshotStamp is the time in the name of a snapshot of a replica.
const snapshotStamp = "20060102T150405.000Z"

// keepSnapshots makes a snapshot of a replica, and deletes those that are older than the
// last keep ones.
func (m *Manager) keepSnapshots(ctx context.Context, id ID, taken time.Time, keep int) error {
	r, err := m.load(id)
	if err != nil || keep == 0 || r.File {
		return err
	}
	v, err := m.object(r)
	if err != nil {
		return err
	}
	prefix := v.Name() + "@"
	_, err = m.store.SnapshotVolume(ctx, v.Name(), prefix+taken.UTC().Format(snapshotStamp))
	if err != nil && !errors.Is(err, backstore.ErrExists) {
		return err
	}
	var kept []*backstore.Volume
	for _, n := range m.store.Volumes() {
		stamp, ok := strings.CutPrefix(n.Name(), prefix)
		if _, err := time.Parse(snapshotStamp, stamp); ok && err == nil && n.ReadOnly() {
			kept = append(kept, n)
		}
	}
	slices.SortFunc(kept, func(a, b *backstore.Volume) int { return strings.Compare(b.Name(), a.Name()) })
	for _, n := range kept[min(keep, len(kept)):] {
		if _, needed := n.Protected(); needed {
			continue
		}
		if err := m.store.DeleteVolume(ctx, n.Name()); err != nil && !errors.Is(err, backstore.ErrNotFound) {
			return err
		}
	}
	return m.store.Flush(ctx)
}
