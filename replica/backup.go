package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"odx/admin"
	"odx/backstore"
	"odx/stream"
)

// A backup is a directory with streams, and a manifest for each time that it was made. A
// snapshot never changes, so that its stream is written once, based on the one before of the
// same volume if that is still there. A volume is what a snapshot has that the backup makes
// of it; the last of these stays, for the next backup to be based on.

// Backup makes backups of a store, and stores of backups.
type Backup struct {
	Admin   admin.Administrator
	Streams Streamer
	Dir     string
	// Progress, which may be nil, is called with what is being sent or received.
	Progress func(what string, p Progress)
}

// BackupOptions say how a backup is made.
type BackupOptions struct {
	// Full: no stream of an earlier backup is used.
	Full  bool
	Level stream.Level
	// Recipients, if there are any, are who can read it.
	Recipients []age.Recipient
	// Config is the text of the configuration; nil for none.
	Config []byte
	// Now is when the backup begins.
	Now time.Time
}

// backupMark is in the names of the snapshots that backups make, before the name of the
// backup.
const backupMark = ".backup-"

func (b *Backup) progress(what string) func(Progress) {
	return func(p Progress) {
		if b.Progress != nil {
			b.Progress(what, p)
		}
	}
}

// Make makes a backup. What it has written of one that fails is used by the next one, or can
// be removed: no manifest names it.
func (b *Backup) Make(ctx context.Context, o BackupOptions) (*Manifest, error) {
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return nil, err
	}
	info, err := b.Admin.StoreInfo(ctx)
	if err != nil {
		return nil, err
	}
	begun, err := b.free(ctx, o.Now.UTC().Truncate(time.Second))
	if err != nil {
		return nil, err
	}
	m := &Manifest{Version: backupVersion, Name: begun.Format(backupTime), Made: begun, Store: info.ID}
	known := &Manifest{}
	if names, err := ManifestNames(b.Dir); err != nil {
		return nil, err
	} else if len(names) > 0 && !o.Full {
		if known, err = ReadManifest(b.Dir, ""); err != nil {
			return nil, err
		}
	}
	w := &backupWriter{Backup: b, options: o, manifest: m, known: known, kept: map[string]bool{}, last: map[string]BackupStream{}}
	if err := w.write(ctx); err != nil {
		return nil, err
	}
	return m, w.tidy(ctx)
}

// free returns the first second, from begun on, of which there is no backup: neither in the
// directory nor, by the names of its snapshots, one of the store in another directory.
func (b *Backup) free(ctx context.Context, begun time.Time) (time.Time, error) {
	volumes, err := b.Admin.Volumes(ctx)
	if err != nil {
		return begun, err
	}
	for ; ; begun = begun.Add(time.Second) {
		name := begun.Format(backupTime)
		_, err := os.Lstat(filepath.Join(b.Dir, name+".json"))
		if errors.Is(err, fs.ErrNotExist) && !slices.ContainsFunc(volumes, func(v admin.Volume) bool { return strings.HasSuffix(v.Name, backupMark+name) }) {
			return begun, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return begun, err
		}
	}
}

// backupWriter is a backup that is being made.
type backupWriter struct {
	*Backup
	options  BackupOptions
	manifest *Manifest
	known    *Manifest               // the backup before
	kept     map[string]bool         // snapshots that are in the manifest, by identity
	last     map[string]BackupStream // the last stream by volume
	volumes  []admin.Volume
	made     []string // names of snapshots
}

func (w *backupWriter) write(ctx context.Context) (err error) {
	if err := w.snapshots(ctx); err != nil {
		return err
	}
	for _, v := range w.volumes {
		if !v.ReadOnly {
			continue
		}
		if err := w.snapshot(ctx, v); err != nil {
			return err
		}
	}
	files, err := w.Admin.Files(ctx)
	if err != nil {
		return err
	}
	for i, f := range files {
		name := fmt.Sprintf("%s-file-%d", w.manifest.Name, i)
		s, _, err := w.send(ctx, SendRequest{Source: admin.FilePrefix + f.Name, Level: w.options.Level}, name)
		if err != nil {
			return err
		}
		w.manifest.Streams = append(w.manifest.Streams, s)
		w.manifest.Objects = append(w.manifest.Objects, BackupObject{Kind: kindFile, Name: f.Name, ID: f.ID, SizeBytes: f.SizeBytes, Created: f.Created, Stream: s.File})
	}
	if err := w.config(); err != nil {
		return err
	}
	text, err := w.manifest.encode()
	if err != nil {
		return err
	}
	_, err = writeBackupFile(w.Dir, w.manifest.Name+".json", func(out io.Writer) error {
		_, err := out.Write(text)
		return err
	})
	return err
}

// snapshots makes a snapshot of each volume, and lists all volumes, those of a volume by
// age.
func (w *backupWriter) snapshots(ctx context.Context) error {
	all, err := w.Admin.Volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.ReadOnly {
			continue
		}
		name := v.Name + backupMark + w.manifest.Name
		if _, err := w.Admin.SnapshotVolume(ctx, v.Name, name); err != nil {
			return fmt.Errorf("snapshot of volume %s: %w", v.Name, err)
		}
		w.made = append(w.made, name)
	}
	if w.volumes, err = w.Admin.Volumes(ctx); err != nil {
		return err
	}
	slices.SortStableFunc(w.volumes, func(a, b admin.Volume) int {
		made := func(v admin.Volume) int {
			if slices.Contains(w.made, v.Name) {
				return 1 // after all others, whatever the clock says
			}
			return 0
		}
		return cmp.Or(cmp.Compare(made(a), made(b)), a.Created.Compare(b.Created))
	})
	for _, v := range w.volumes {
		if !v.ReadOnly {
			w.manifest.Objects = append(w.manifest.Objects, BackupObject{Kind: kindVolume, Name: v.Name, ID: v.ID, SizeBytes: v.SizeBytes, Origin: v.Origin, Created: v.Created})
		}
	}
	return nil
}

// snapshot adds a snapshot: the stream that there is, or a new one.
func (w *backupWriter) snapshot(ctx context.Context, v admin.Volume) error {
	h, err := w.headerOf(ctx, v)
	if err != nil {
		return err
	}
	id := h.Snapshot.String()
	if !w.kept[id] && !w.keep(id) {
		if err := w.sendSnapshot(ctx, v); err != nil {
			return err
		}
	}
	if s := w.manifest.Streams[slices.IndexFunc(w.manifest.Streams, func(s BackupStream) bool { return s.Snapshot == id })]; v.Origin != "" {
		w.last[v.Origin] = s
	}
	if slices.Contains(w.made, v.Name) {
		i := slices.IndexFunc(w.manifest.Objects, func(o BackupObject) bool { return o.Kind == kindVolume && o.Name == v.Origin })
		if i < 0 {
			return fmt.Errorf("volume %s was renamed or deleted while it was backed up", v.Origin)
		}
		w.manifest.Objects[i].Snapshot, w.manifest.Objects[i].SizeBytes = id, v.SizeBytes
		return nil
	}
	if w.earlier(v) {
		return nil // it is a base, and will be deleted
	}
	w.manifest.Objects = append(w.manifest.Objects, BackupObject{Kind: kindSnapshot, Name: v.Name, ID: v.ID, SizeBytes: v.SizeBytes, Origin: v.Origin, Created: v.Created, Snapshot: id})
	return nil
}

// sendSnapshot writes the stream of a snapshot, based on the last one of the same volume.
func (w *backupWriter) sendSnapshot(ctx context.Context, v admin.Volume) error {
	r := SendRequest{Source: v.Name, Level: w.options.Level}
	if base, ok := w.last[v.Origin]; ok && v.Origin != "" {
		if i := slices.IndexFunc(w.volumes, func(v admin.Volume) bool { return v.ReadOnly && v.Name == base.Name }); i >= 0 {
			r.Base = base.Name
		}
	}
	kind := "full"
	if r.Base != "" {
		kind = "incr"
	}
	s, sent, err := w.send(ctx, r, fmt.Sprintf("%s-%s-%s", w.manifest.Name, kind, v.ID[:min(len(v.ID), 16)]))
	if err != nil {
		return err
	}
	s.Snapshot, s.Name, s.Origin = sent.Header.Snapshot.String(), v.Name, v.Origin
	if sent.Header.Incremental() {
		s.Base = sent.Header.Base.String()
	}
	w.manifest.Streams = append(w.manifest.Streams, s)
	w.kept[s.Snapshot] = true
	return nil
}

// keep takes a stream of the backup before, and all that it is based on; false if that has
// none.
func (w *backupWriter) keep(id string) bool {
	i := slices.IndexFunc(w.known.Streams, func(s BackupStream) bool { return s.Snapshot == id })
	if i < 0 {
		return false
	}
	s := w.known.Streams[i]
	if s.Base != "" && !w.kept[s.Base] && !w.keep(s.Base) {
		return false
	}
	w.manifest.Streams = append(w.manifest.Streams, s)
	w.kept[id] = true
	return true
}

// send writes a stream to a file.
func (w *backupWriter) send(ctx context.Context, r SendRequest, name string) (s BackupStream, sent Sent, err error) {
	name += ".odx"
	if len(w.options.Recipients) > 0 {
		name += ".age"
	}
	s.BackupFile, err = writeBackupFile(w.Dir, name, func(out io.Writer) error {
		return w.sealed(out, func(out io.Writer) (err error) {
			sent, err = w.Streams.Send(ctx, r, out, w.progress(r.Source))
			return err
		})
	})
	return s, sent, err
}

// sealed has write write to out, encrypted if there are recipients.
func (w *backupWriter) sealed(out io.Writer, write func(io.Writer) error) error {
	if len(w.options.Recipients) == 0 {
		return write(out)
	}
	to, err := stream.Seal(out, w.options.Recipients)
	if err != nil {
		return err
	}
	if err := write(to); err != nil {
		return err
	}
	return to.Close()
}

// headerOf returns the header of the stream of a snapshot: one that begins at its end has no
// more.
func (w *backupWriter) headerOf(ctx context.Context, v admin.Volume) (stream.Header, error) {
	sent, err := w.Streams.Send(ctx, SendRequest{Source: v.Name, Start: v.SizeBytes}, io.Discard, nil)
	return sent.Header, err
}

func (w *backupWriter) config() error {
	if w.options.Config == nil {
		return nil
	}
	name := w.manifest.Name + ".yaml"
	if len(w.options.Recipients) > 0 {
		name += ".age"
	}
	f, err := writeBackupFile(w.Dir, name, func(out io.Writer) error {
		return w.sealed(out, func(out io.Writer) error {
			_, err := out.Write(w.options.Config)
			return err
		})
	})
	w.manifest.Config = &f
	return err
}

// earlier reports whether a snapshot was made by an earlier backup, of the volume that it is
// still known to be of.
func (w *backupWriter) earlier(v admin.Volume) bool {
	at := strings.LastIndex(v.Name, backupMark)
	if !v.ReadOnly || at < 0 || slices.Contains(w.made, v.Name) || v.Origin != v.Name[:at] {
		return false
	}
	_, err := time.Parse(backupTime, v.Name[at+len(backupMark):])
	return err == nil
}

// tidy deletes the snapshots of earlier backups: the next one is based on those of this one.
func (w *backupWriter) tidy(ctx context.Context) error {
	for _, v := range w.volumes {
		if !w.earlier(v) {
			continue
		}
		if err := w.Admin.DeleteVolume(ctx, v.Name); err != nil && !errors.Is(err, backstore.ErrNotFound) {
			return err
		}
	}
	return nil
}
