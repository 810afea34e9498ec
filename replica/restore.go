package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"odx/admin"
	"odx/backstore"
	"odx/stream"
)

// restoreMark begins the names of volumes that a restore makes and deletes.
const restoreMark = "restore-"

// Verify reads all files of a backup, and their streams as far as identities can decrypt
// them: it returns ErrBackup, or an error of package stream, for what a restore could not
// use.
func (b *Backup) Verify(ctx context.Context, m *Manifest, ids []age.Identity) error {
	have := map[string]bool{"": true}
	for _, f := range m.files() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.check(b.Dir); err != nil {
			return err
		}
	}
	for _, s := range m.Streams {
		if !have[s.Base] {
			return fmt.Errorf("%w: %s is based on a snapshot that no stream before it has", ErrBackup, s.File)
		}
		if err := b.verifyStream(ctx, s, ids); err != nil {
			return fmt.Errorf("%s: %w", s.File, err)
		}
		have[s.Snapshot] = true
	}
	for _, o := range m.Objects {
		if !have[o.Snapshot] || o.Kind != kindFile && o.Snapshot == "" || o.Kind == kindFile && !slices.ContainsFunc(m.Streams, func(s BackupStream) bool { return s.File == o.Stream }) {
			return fmt.Errorf("%w: no stream has %s %s", ErrBackup, o.Kind, o.Name)
		}
	}
	return nil
}

func (b *Backup) verifyStream(ctx context.Context, s BackupStream, ids []age.Identity) error {
	if strings.HasSuffix(s.File, ".age") && len(ids) == 0 {
		return nil // its checksum was compared
	}
	f, plain, err := b.open(s.BackupFile, ids)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := stream.NewReader(plain)
	if err != nil {
		return err
	}
	defer r.Close()
	h := r.Header()
	if s.Snapshot != "" && h.Snapshot.String() != s.Snapshot || h.Incremental() != (s.Base != "") || h.Incremental() && h.Base.String() != s.Base {
		return fmt.Errorf("%w: it is another stream than the manifest says", ErrBackup)
	}
	for {
		if _, err := r.Next(); err == io.EOF {
			return ctx.Err()
		} else if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// open returns what a file of the backup has, decrypted.
func (b *Backup) open(f BackupFile, ids []age.Identity) (*os.File, io.Reader, error) {
	file, err := os.Open(filepath.Join(b.Dir, f.File))
	if err != nil {
		return nil, nil, err
	}
	plain, err := stream.Open(file, ids)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, plain, nil
}

// Config returns the configuration of a backup; nil if it has none.
func (b *Backup) Config(m *Manifest, ids []age.Identity) ([]byte, error) {
	if m.Config == nil {
		return nil, nil
	}
	f, plain, err := b.open(*m.Config, ids)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(plain, 1<<20))
}

// Restore makes the volumes, snapshots and files of a backup. None of their names may be
// taken. What a restore that fails has made stays; it is not a backup's whole store.
func (b *Backup) Restore(ctx context.Context, m *Manifest, ids []age.Identity) error {
	if err := b.checkNames(ctx, m); err != nil {
		return err
	}
	r := restoring{Backup: b, manifest: m, ids: ids, now: map[string]string{}, names: map[string]string{}}
	for i, s := range m.Streams {
		if err := r.receive(ctx, i, s); err != nil {
			return fmt.Errorf("%s: %w", s.File, err)
		}
	}
	return r.finish(ctx)
}

// checkNames returns backstore.ErrExists for the first object whose name is taken.
func (b *Backup) checkNames(ctx context.Context, m *Manifest) error {
	volumes, err := b.Admin.Volumes(ctx)
	if err != nil {
		return err
	}
	files, err := b.Admin.Files(ctx)
	if err != nil {
		return err
	}
	for _, o := range m.Objects {
		taken := slices.ContainsFunc(volumes, func(v admin.Volume) bool { return v.Name == o.Name })
		if o.Kind == kindFile {
			taken = slices.ContainsFunc(files, func(f admin.File) bool { return f.Name == o.Name })
		}
		if taken {
			return fmt.Errorf("%s %s: %w; restore into a store that does not have it, before odx serve creates the volumes of its LUNs", o.Kind, o.Name, backstore.ErrExists)
		}
	}
	return nil
}

// restoring is a restore under way.
type restoring struct {
	*Backup
	manifest *Manifest
	ids      []age.Identity
	now      map[string]string // identity of the snapshot that a volume has the content of, by its name
	names    map[string]string // of the snapshot of an identity
}

// receive receives a stream: onto its volume if that has the content of the base, or is not
// there yet, else as a volume that is deleted again, since the snapshot is what counts.
func (r *restoring) receive(ctx context.Context, i int, s BackupStream) error {
	if s.Snapshot == "" {
		return r.receiveFile(ctx, s)
	}
	name := s.Origin
	isVolume := slices.ContainsFunc(r.manifest.Objects, func(o BackupObject) bool { return o.Kind == kindVolume && o.Name == name })
	if !isVolume || r.now[name] != s.Base {
		name = fmt.Sprint(restoreMark, r.manifest.Name, "-", i)
	}
	request := ReceiveRequest{Name: name, Snapshot: s.Name}
	for _, o := range r.manifest.Objects {
		if o.Kind == kindSnapshot && o.Snapshot == s.Snapshot {
			request.Snapshot = o.Name
		}
	}
	received, err := r.read(ctx, s, request)
	if err != nil {
		return err
	}
	r.now[name], r.names[s.Snapshot] = s.Snapshot, received.Snapshot
	if received.Snapshot == "" {
		return fmt.Errorf("the store has snapshot %s already: %w", s.Name, backstore.ErrExists)
	}
	if strings.HasPrefix(name, restoreMark) {
		return r.Admin.DeleteVolume(ctx, name)
	}
	return nil
}

func (r *restoring) receiveFile(ctx context.Context, s BackupStream) error {
	for _, o := range r.manifest.Objects {
		if o.Kind == kindFile && o.Stream == s.File {
			_, err := r.read(ctx, s, ReceiveRequest{Name: admin.FilePrefix + o.Name})
			return err
		}
	}
	return fmt.Errorf("%w: no file has this stream", ErrBackup)
}

func (r *restoring) read(ctx context.Context, s BackupStream, request ReceiveRequest) (Received, error) {
	f, plain, err := r.open(s.BackupFile, r.ids)
	if err != nil {
		return Received{}, err
	}
	defer f.Close()
	return r.Streams.Receive(ctx, request, plain, r.progress(request.Name))
}

// finish gives each volume its content, and deletes snapshots that were only bases.
func (r *restoring) finish(ctx context.Context) error {
	keep := map[string]bool{}
	for _, o := range r.manifest.Objects {
		switch {
		case o.Kind == kindFile:
			continue
		case o.Kind == kindSnapshot || r.now[o.Name] == o.Snapshot:
		case r.now[o.Name] == "":
			if _, err := r.Admin.CloneVolume(ctx, r.names[o.Snapshot], o.Name); err != nil {
				return err
			}
		default:
			if _, err := r.Admin.RevertVolume(ctx, admin.RevertRequest{Snapshot: r.names[o.Snapshot], Volume: o.Name}); err != nil {
				return err
			}
		}
		keep[o.Snapshot] = true // also the one that the next backup is based on
	}
	for id, name := range r.names {
		if keep[id] {
			continue
		}
		if err := r.Admin.DeleteVolume(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
