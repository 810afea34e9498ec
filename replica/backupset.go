package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrBackup: a backup is damaged or incomplete.
var ErrBackup = errors.New("damaged or incomplete backup")

// backupVersion is the version of Manifest.
const backupVersion = 1

// backupTime is how the name of a backup says when it began.
const backupTime = "20060102T150405Z"

// The kinds of objects in a manifest.
const (
	kindVolume   = "volume"
	kindSnapshot = "snapshot"
	kindFile     = "file"
)

// Manifest says what a backup has. It is durable: the file NAME.json of a directory, next to
// the streams, which later backups use as well.
type Manifest struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	Made    time.Time `json:"made"`
	// Store is the identity of the store, in hexadecimal.
	Store string `json:"store"`
	// Config is the file with the configuration; empty for none.
	Config *BackupFile `json:"config,omitempty"`
	// Streams are in the order in which they are received: each after its base.
	Streams []BackupStream `json:"streams"`
	Objects []BackupObject `json:"objects"`
	// Digest is the SHA-256, in hexadecimal, of the manifest with an empty digest.
	Digest string `json:"digest"`
}

// BackupFile is a file of a backup.
type BackupFile struct {
	File string `json:"file"`
	// SHA256 is of the file, in hexadecimal.
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// BackupStream is a stream of a backup.
type BackupStream struct {
	BackupFile
	// Snapshot and Base are identities in hexadecimal, empty for none.
	Snapshot string `json:"snapshot,omitempty"`
	Base     string `json:"base,omitempty"`
	// Origin is the volume that the snapshot is of, empty where that was deleted.
	Origin string `json:"origin,omitempty"`
	// Name is that of the snapshot.
	Name string `json:"name,omitempty"`
}

// BackupObject is a volume, a snapshot or a file of the store.
type BackupObject struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// ID is what initiators see of a volume, in hexadecimal.
	ID        string    `json:"id"`
	SizeBytes int64     `json:"size_bytes"`
	Origin    string    `json:"origin,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	// Snapshot is the identity of the snapshot with the content; for a file, Stream is the
	// file of its stream.
	Snapshot string `json:"snapshot,omitempty"`
	Stream   string `json:"stream,omitempty"`
}

// files returns all files of the backup but the manifest.
func (m *Manifest) files() (all []BackupFile) {
	if m.Config != nil {
		all = append(all, *m.Config)
	}
	for _, s := range m.Streams {
		all = append(all, s.BackupFile)
	}
	return all
}

// encode sets the digest, and returns the manifest as it is written. What has a time after the
// year 9999 has no JSON.
func (m *Manifest) encode() ([]byte, error) {
	m.Digest = ""
	text, err := m.text()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	m.Digest = hex.EncodeToString(sum[:])
	return m.text()
}

func (m *Manifest) text() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("manifest of a backup: %w", err)
	}
	return append(b, '\n'), nil
}

// maxManifest bounds a manifest, in bytes.
const maxManifest = 64 << 20

// ReadManifest reads the manifest of a backup in dir; the latest one where name is empty.
func ReadManifest(dir, name string) (*Manifest, error) {
	if name == "" {
		names, err := ManifestNames(dir)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("%s has no backup", dir)
		}
		name = names[len(names)-1]
	}
	if filepath.Base(name) != name {
		return nil, fmt.Errorf("%q is not the name of a backup", name)
	}
	path := filepath.Join(dir, name+".json")
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBackup, path, err)
	}
	if m.Version != backupVersion {
		return nil, fmt.Errorf("%s: backup of version %d, this program knows %d", path, m.Version, backupVersion)
	}
	if again, err := m.encode(); err != nil || !bytes.Equal(again, text) {
		return nil, fmt.Errorf("%w: %s is not as it was written", ErrBackup, path)
	}
	for _, file := range m.files() {
		if filepath.Base(file.File) != file.File {
			return nil, fmt.Errorf("%w: %s names %q, which is not in the directory", ErrBackup, path, file.File)
		}
	}
	return m, nil
}

// ManifestNames returns the names of the backups in dir, the oldest first.
func ManifestNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if _, err := time.Parse(backupTime, name); ok && err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// check compares a file of a backup with what the manifest says.
func (f BackupFile) check(dir string) error {
	file, err := os.Open(filepath.Join(dir, f.File))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBackup, err)
	}
	defer file.Close()
	h := sha256.New()
	n, err := io.Copy(h, file)
	if err != nil {
		return err
	}
	if n != f.Bytes || hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%w: %s is not as it was written", ErrBackup, f.File)
	}
	return nil
}

// writeBackupFile writes a file of a backup, durably, under a name that none has.
func writeBackupFile(dir, name string, write func(w io.Writer) error) (f BackupFile, err error) {
	file, err := os.CreateTemp(dir, ".part-*")
	if err != nil {
		return f, err
	}
	defer os.Remove(file.Name())
	h := sha256.New()
	counted := &counter{w: io.MultiWriter(file, h)}
	if err := errors.Join(write(counted), file.Sync(), file.Close()); err != nil {
		return f, err
	}
	if err := os.Link(file.Name(), filepath.Join(dir, name)); err != nil {
		return f, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return f, err
	}
	return BackupFile{name, hex.EncodeToString(h.Sum(nil)), counted.n}, errors.Join(d.Sync(), d.Close())
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
