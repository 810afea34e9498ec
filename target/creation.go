package target

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
	"odx/offload/view"
)

// creation is what was created for a configuration that is not in force yet. Volumes have
// names that the next start of a server removes, until the configuration is. Files stay
// behind if the process ends before that; they are empty, and no configuration names them.
type creation struct {
	store *backstore.Store
	log   *logrus.Entry

	volumes map[string]*backstore.Volume // by the name that they are to have
	hidden  []string                     // auxiliary volumes of views
	files   []string                     // of the store
	plain   []string                     // paths
	views   []string                     // that have new records
	begin   []func()                     // starts what mirrors hold back
}

func newCreation(store *backstore.Store, log *logrus.Entry) *creation {
	return &creation{store: store, log: log, volumes: map[string]*backstore.Volume{}}
}

// volume creates a volume that is to have a name.
func (c *creation) volume(ctx context.Context, name string, size int64) (*backstore.Volume, error) {
	v, err := c.store.CreateVolume(ctx, admin.NewScratchVolume(), size)
	if err != nil {
		return nil, fmt.Errorf("create volume %s: %w", name, err)
	}
	c.volumes[name] = v
	return v, nil
}

// finish gives the volumes their names. After an error, some have them; undo deletes all.
func (c *creation) finish(ctx context.Context) error {
	for name, v := range c.volumes {
		if err := c.store.RenameVolume(ctx, v.Name(), name); err != nil {
			return fmt.Errorf("create volume %s: %w", name, err)
		}
		c.log.WithField("volume", name).WithField("size", conf.FormatSize(v.Size())).Info("volume created")
	}
	return nil
}

// committed starts what was held back.
func (c *creation) committed() {
	for _, begin := range c.begin {
		begin()
	}
}

// undo removes everything. Nothing uses it any more.
func (c *creation) undo(ctx context.Context) error {
	var errs []error
	for _, v := range c.volumes {
		errs = append(errs, c.store.DeleteVolume(ctx, v.Name()))
	}
	for _, name := range c.hidden {
		errs = append(errs, c.store.DeleteVolume(ctx, name))
	}
	for _, name := range c.files {
		errs = append(errs, c.store.DeleteFile(ctx, name))
	}
	for _, path := range c.plain {
		errs = append(errs, os.Remove(path))
	}
	for _, name := range c.views {
		errs = append(errs, view.Forget(ctx, c.store, name))
	}
	return errors.Join(append(errs, c.store.Flush(ctx))...)
}
