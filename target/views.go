package target

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/offload/view"
	"odx/offload/view/parttable"
)

// The names of the auxiliary volumes of views are these prefixes and the name of the
// view.
const (
	sumsPrefix   = ".view-sums-"
	beforePrefix = ".view-before-"
)

// views are the views of a configuration.
type views struct {
	media   *media
	devices map[string]view.Device // by name of the view
	files   map[string]*openFile   // by name
	gates   map[string]view.Gate   // by the name that together returns
	closers []viewCloser           // from the bottom up

	legFiles map[string]*legFile // that mirrors write to, by path
}

// viewCloser closes a view, or a file of the store, by its name with admin.FilePrefix.
type viewCloser struct {
	name  string
	close func(context.Context) error
	flush func(context.Context) error // writes back while the view goes on; nil for none
}

func newViews(m *media) *views {
	return &views{media: m, devices: map[string]view.Device{}, files: map[string]*openFile{}, gates: map[string]view.Gate{}, legFiles: map[string]*legFile{}}
}

// makeAll opens the views that are not open and not left out, and creates what is missing
// below them. A view that cannot be opened is left out.
func (s *views) makeAll(ctx context.Context) {
	for i := range s.media.cfg.Views {
		v := &s.media.cfg.Views[i]
		if s.devices[v.Name] != nil || s.media.leftOut[viewMedium(v.Name)] != nil {
			continue
		}
		if err := s.open(ctx, v); err != nil {
			s.media.leaveOut(viewMedium(v.Name), err)
		}
	}
}

// open opens one view over those opened before. An error can be an unusableDisk.
func (s *views) open(ctx context.Context, v *conf.View) error {
	d, err := s.make(ctx, v)
	if err == nil {
		s.devices[v.Name] = d
		return nil
	}
	var problem conf.Problem // of a view below
	if bad := (*unusableDisk)(nil); !errors.As(err, &bad) && !errors.As(err, &problem) {
		err = s.media.cfg.Problem(v.Key, "view %s: %v", v.Name, err)
	}
	return err
}

// make opens one view over those opened before.
func (s *views) make(ctx context.Context, v *conf.View) (view.Device, error) {
	legs := make([]view.Leg, len(v.Over))
	for i, d := range v.Over {
		var err error
		if legs[i], err = s.leg(ctx, v, d); err != nil {
			return nil, err
		}
	}
	switch v.Kind {
	case conf.ViewPartition:
		return s.partition(ctx, v, legs[0])
	case conf.ViewStripe:
		devices := make([]view.Device, len(legs))
		for i := range legs {
			devices[i] = legs[i].Device
		}
		return view.NewStripe(devices, v.StripeUnit)
	case conf.ViewMirror:
		known, err := view.Known(s.media.store, v.Name)
		if err != nil {
			return nil, err
		}
		m, err := view.OpenMirror(ctx, view.MirrorConfig{
			Name: v.Name, Legs: legs, Engine: s.media.tokens.Engine(), Records: s.media.store, Log: s.media.log, Hold: s.media.made != nil,
		})
		if err != nil {
			return nil, err
		}
		if made := s.media.made; made != nil {
			made.begin = append(made.begin, m.Begin)
			if !known { // otherwise they say which legs are in sync
				made.views = append(made.views, v.Name)
			}
		}
		s.closers = append(s.closers, viewCloser{v.Name, m.Close, nil})
		return m, nil
	case conf.ViewCache:
		c, err := view.NewCache(view.CacheConfig{Of: legs[0].Device, Bytes: v.Memory, WriteBack: v.WriteBack})
		if err != nil {
			return nil, err
		}
		s.closers = append(s.closers, viewCloser{v.Name, c.Flush, c.Flush})
		return c, nil
	case conf.ViewVerify:
		return s.verify(ctx, v, legs[0])
	case conf.ViewOrigin:
		return s.origin(ctx, v, legs[0])
	case conf.ViewSnapshot:
		return view.NewSnapshot(legs[0].Device.(*view.Origin)), nil
	default:
		return nil, fmt.Errorf("%w: kind %q", blockdev.ErrInvalid, v.Kind)
	}
}

// leg opens what d names, and creates it if it is missing.
func (s *views) leg(ctx context.Context, v *conf.View, d conf.Device) (view.Leg, error) {
	if d.View != "" {
		if err := s.media.leftOut[viewMedium(d.View)]; err != nil {
			return view.Leg{}, err
		}
		return view.Leg{Device: s.devices[d.View], ID: "view:" + d.View, Files: s.filesUnder(d.View)}, nil
	}
	if d.Backing != "" {
		return s.backingLeg(v, d)
	}
	if d.File != "" {
		return s.fileLeg(ctx, v, d)
	}
	space, err := s.media.openObject(d)
	fresh := errors.Is(err, backstore.ErrNotFound) && v.Size != 0
	if fresh {
		space, err = s.media.makeVolume(ctx, d.Volume, v.Size)
	}
	if err != nil {
		return view.Leg{}, err
	}
	return view.Leg{Device: view.Base(s.media.tokens.Engine(), space), ID: fmt.Sprintf("%x", space.ID()), Fresh: fresh}, nil
}

// fileLeg opens the disk in a file of the store.
func (s *views) fileLeg(ctx context.Context, v *conf.View, d conf.Device) (view.Leg, error) {
	device, fresh, err := s.fileDevice(ctx, fileUse{name: d.File, size: v.Size, sector: 512, user: "view " + v.Name})
	if err != nil {
		return view.Leg{}, err
	}
	f, err := s.media.store.File(d.File)
	if err != nil {
		return view.Leg{}, err
	}
	return view.Leg{Device: device, ID: fmt.Sprintf("%x", f.ID()), Fresh: fresh}, nil
}

func (s *views) partition(ctx context.Context, v *conf.View, leg view.Leg) (view.Device, error) {
	table, err := parttable.Read(ctx, leg, int64(v.BlockSize))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.Over[0], err)
	}
	p, ok := table.Find(v.Number)
	if !ok {
		return nil, fmt.Errorf("%s has no partition %d in its partition table (%s)", v.Over[0], v.Number, table.Scheme)
	}
	if table.Backup {
		s.media.log.WithField("view", v.Name).Warn("the first partition table is damaged; the one at the end of the disk is used")
	}
	return view.NewPartition(leg.Device, p.Start, p.Length)
}

// verify drops the checksums of another device.
func (s *views) verify(ctx context.Context, v *conf.View, leg view.Leg) (view.Device, error) {
	side := s.side(sumsPrefix, v, leg, view.SumsBytes(leg.Size()))
	sums, err := side.open(ctx)
	if errors.Is(err, errOverOther) {
		s.media.log.WithField("view", v.Name).Warn("view is over another device than before; its checksums are dropped")
		if err := s.media.store.DeleteVolume(ctx, side.volume); err != nil {
			return nil, err
		}
		sums, err = side.open(ctx)
	}
	if err != nil {
		return nil, err
	}
	return view.NewVerify(v.Name, leg.Device, sums, s.media.tokens.Engine())
}

// origin returns an error for a snapshot of another device.
func (s *views) origin(ctx context.Context, v *conf.View, leg view.Leg) (view.Device, error) {
	before, err := s.side(beforePrefix, v, leg, view.OriginBytes(leg.Size())).open(ctx)
	if errors.Is(err, errOverOther) {
		return nil, fmt.Errorf("its snapshot is of another device than %s, or of another size; give the view another name for a new snapshot", v.Over[0])
	}
	if err != nil {
		return nil, err
	}
	return view.OpenOrigin(view.OriginConfig{Name: v.Name, Of: leg.Device, Before: before, Engine: s.media.tokens.Engine(), Records: s.media.store})
}

// errOverOther: an auxiliary volume belongs to other data.
var errOverOther = errors.New("view over another device than before")

// side is the auxiliary volume of a view: checksums, or data before it was overwritten.
type side struct {
	store        *backstore.Store
	view, volume string
	over         string // identity of the device below the view
	size         int64
	made         *creation // nil at the start
}

func (s *views) side(prefix string, v *conf.View, leg view.Leg, size int64) side {
	return side{s.media.store, v.Name, prefix + v.Name, fmt.Sprintf("%s %d", leg.ID, leg.Size()), size, s.media.made}
}

// open opens the volume. It creates a missing one, and then deletes the records of a
// view of that name. It returns errOverOther for a volume that belongs to other data.
func (s side) open(ctx context.Context) (*backstore.Volume, error) {
	v, err := s.store.Volume(s.volume)
	if err == nil {
		over, err := view.Identity(s.store, s.view)
		if err == nil && over != s.over {
			err = errOverOther
		}
		return v, err
	}
	if !errors.Is(err, backstore.ErrNotFound) {
		return nil, err
	}
	if err := view.Forget(ctx, s.store, s.view); err != nil {
		return nil, err
	}
	if err := view.SetIdentity(ctx, s.store, s.view, s.over); err != nil {
		return nil, err
	}
	if s.made != nil {
		s.made.hidden, s.made.views = append(s.made.hidden, s.volume), append(s.made.views, s.view)
	}
	return s.store.CreateVolume(ctx, s.volume, s.size)
}

// forgetOthers removes the auxiliary volumes of views that are not configured.
func (s *views) forgetOthers(ctx context.Context) error {
	kept := map[string]bool{}
	for _, v := range s.media.cfg.Views {
		switch v.Kind {
		case conf.ViewVerify:
			kept[sumsPrefix+v.Name] = true
		case conf.ViewOrigin:
			kept[beforePrefix+v.Name] = true
		}
	}
	for _, v := range s.media.store.Volumes() {
		name, ok := strings.CutPrefix(v.Name(), beforePrefix)
		if !ok {
			name, ok = strings.CutPrefix(v.Name(), sumsPrefix)
		}
		if !ok || kept[v.Name()] {
			continue
		}
		if err := s.media.store.DeleteVolume(ctx, v.Name()); err != nil {
			return err
		}
		s.media.log.WithField("view", name).Warn("view no longer configured; its auxiliary volume is removed")
	}
	return nil
}

// identity returns the identity of a view as a logical unit.
func (s *views) identity(name string) [16]byte {
	h := sha256.New()
	id := s.media.store.HeaderID()
	h.Write(id[:])
	io.WriteString(h, "view "+name)
	return [16]byte(h.Sum(nil))
}

// gate returns the gate of the device of that name.
func (s *views) gate(name string) view.Gate {
	together := s.together(name)
	gate, ok := s.gates[together]
	if !ok {
		gate = view.NewGate()
		s.gates[together] = gate
	}
	return gate
}

// together returns the same name for all views that share devices or are over each
// other.
func (s *views) together(name string) string {
	group := map[string]string{} // device → another one of the group, or itself
	find := func(d string) string {
		for group[d] != "" && group[d] != d {
			d = group[d]
		}
		return d
	}
	for _, v := range s.media.cfg.Views {
		for _, d := range v.Over {
			group[find(d.String())] = find(v.Name)
		}
	}
	return find(name)
}

// flush writes back what caches have, from the top down.
func (s *views) flush(ctx context.Context) error {
	for i := len(s.closers) - 1; i >= 0; i-- {
		c := s.closers[i]
		if c.flush == nil {
			continue
		}
		if err := c.flush(ctx); err != nil {
			return fmt.Errorf("view %s: %w", c.name, err)
		}
	}
	return nil
}

// closeViewsLimit bounds the write-back of caches at the stop.
const closeViewsLimit = 30 * time.Second

// close closes what kept, of the state that goes on, does not have: the views from the top
// down, whose caches write back, then files. A nil kept has nothing.
func (s *views) close(kept *views) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeViewsLimit)
	defer cancel()
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		c := s.closers[i]
		if kept != nil && kept.has(c.name) {
			continue
		}
		if err := c.close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("view %s: %w", c.name, err))
		}
	}
	for name, f := range s.files {
		if kept == nil || kept.files[name] == nil {
			s.media.users.remove(f.names)
		}
	}
	if kept != nil { // two files can have had a parent in common
		for _, f := range kept.files {
			for _, name := range f.names {
				s.media.users.add(name, f.user)
			}
		}
	}
	return errors.Join(errs...)
}

// has reports whether a view, or a file by its name with admin.FilePrefix, is open.
func (s *views) has(name string) bool {
	if file, ok := strings.CutPrefix(name, admin.FilePrefix); ok {
		return s.files[file] != nil
	}
	return s.devices[name] != nil
}
