package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/tokens"
)

// volume is a volume or a file of the store.
type volume struct {
	store admin.Administrator
	name  string
	size  int64
	block int
}

// OpenVolume returns a volume of the store of a, or a file of it if the name begins
// with admin.FilePrefix.
func OpenVolume(ctx context.Context, a admin.Administrator, name string) (Disk, error) {
	size, err := sizeOf(ctx, a, name)
	if err != nil {
		return nil, err
	}
	return newVolume(a, name, size), nil
}

func newVolume(a admin.Administrator, name string, size int64) *volume {
	v := &volume{store: a, name: name, size: size, block: volumeBlockLength}
	if size%volumeBlockLength != 0 {
		v.block = 1
	}
	return v
}

func sizeOf(ctx context.Context, a admin.Administrator, name string) (int64, error) {
	if file, ok := strings.CutPrefix(name, admin.FilePrefix); ok {
		all, err := a.Files(ctx)
		if err != nil {
			return 0, err
		}
		for _, f := range all {
			if f.Name == file {
				return f.SizeBytes, nil
			}
		}
		return 0, fmt.Errorf("file %s: %w", file, ErrNoFile)
	}
	all, err := a.Volumes(ctx)
	if err != nil {
		return 0, err
	}
	for _, v := range all {
		if v.Name == name {
			return v.SizeBytes, nil
		}
	}
	return 0, fmt.Errorf("volume %s: %w", name, ErrNoVolume)
}

// CreateStoreFile creates a file of size bytes in the store. It is named by Finish:
// until then an existing file of the name is unchanged.
func CreateStoreFile(ctx context.Context, a admin.Administrator, name string, size int64, existing Existing) (Disk, error) {
	file := strings.TrimPrefix(name, admin.FilePrefix)
	if err := CheckName(ctx, a, file, existing); err != nil {
		return nil, err
	}
	d, scratch, err := StartStoreFile(ctx, a, file, size)
	if err != nil {
		return nil, err
	}
	d.(*volume).block = 1 // a file has any length
	return &storeFile{volume: d.(*volume), scratch: scratch, finish: admin.FileFinish{Name: file, Scratch: scratch, Overwrite: existing == Overwrite}}, nil
}

// CheckName returns ErrExists if a file of the store has the name and existing is
// Refuse. It allows to fail before the copy; the name can still be created during it.
func CheckName(ctx context.Context, a admin.Administrator, file string, existing Existing) error {
	switch _, err := sizeOf(ctx, a, admin.FilePrefix+file); {
	case err == nil && existing == Refuse:
		return fmt.Errorf("file %s: %w", file, ErrExists)
	case err != nil && !errors.Is(err, ErrNoFile):
		return err
	}
	return nil
}

// StartStoreFile creates a file of size bytes in the store with a random scratch name,
// which it returns. The caller renames or deletes the file.
func StartStoreFile(ctx context.Context, a admin.Administrator, like string, size int64) (d Disk, scratch string, err error) {
	f, err := a.StartFile(ctx, admin.FileStart{Name: like, SizeBytes: size})
	if err != nil {
		return nil, "", err
	}
	return newVolume(a, admin.FilePrefix+f.Name, size), f.Name, nil
}

// OpenStarted opens a file of StartStoreFile for reading.
func OpenStarted(a admin.Administrator, scratch string, size int64) Disk {
	return newVolume(a, admin.FilePrefix+scratch, size)
}

// storeFile is an unfinished file of the store.
type storeFile struct {
	*volume
	scratch string // "" when finished
	finish  admin.FileFinish
}

// Resize implements Growable.
func (f *storeFile) Resize(ctx context.Context, size int64) error {
	if _, err := f.store.ResizeFile(ctx, f.scratch, size); err != nil {
		return err
	}
	f.size = size
	return nil
}

// Finish implements Finisher.
func (f *storeFile) Finish(ctx context.Context) error {
	_, err := f.store.FinishFile(ctx, f.finish)
	if errors.Is(err, backstore.ErrExists) {
		return fmt.Errorf("file %s: %w", f.finish.Name, ErrExists)
	}
	if err == nil {
		f.scratch = ""
	}
	return err
}

// Close implements Disk. It deletes an unfinished object, also after the copy was
// canceled.
func (f *storeFile) Close() error {
	if f.scratch == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), deleteLimit)
	defer cancel()
	return f.store.DeleteFile(ctx, f.scratch)
}

// CreateVolume creates a volume of size bytes with a new name. It is named by Finish.
func CreateVolume(ctx context.Context, a admin.Administrator, name string, size int64) (Disk, error) {
	v, err := a.StartVolume(ctx, name, size)
	if err != nil {
		return nil, err
	}
	return &freshVolume{volume: newVolume(a, v.Name, size), final: name}, nil
}

// freshVolume is an unfinished volume of the store.
type freshVolume struct {
	*volume
	final string // "" when finished
}

// Finish implements Finisher.
func (v *freshVolume) Finish(ctx context.Context) error {
	_, err := v.store.FinishVolume(ctx, v.name, v.final)
	if err == nil {
		v.final = ""
	}
	return err
}

// Close implements Disk. It deletes an unfinished object, also after the copy was
// canceled.
func (v *freshVolume) Close() error {
	if v.final == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), deleteLimit)
	defer cancel()
	return v.store.DeleteVolume(ctx, v.name)
}

// deleteLimit bounds the time to delete an unfinished object. The store deletes it at
// the next start otherwise.
const deleteLimit = 10 * time.Second

// volumeBlockLength is the block length of a volume: LUNs do not accept tokens of
// shorter blocks.
const volumeBlockLength = 512

func (v *volume) Close() error     { return nil }
func (v *volume) Size() int64      { return v.size }
func (v *volume) BlockLength() int { return v.block }

func (v *volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	// Bytes past the end of a file read as zeros.
	n := min(int64(len(p)), max(v.size-off, 0))
	clear(p[n:])
	return v.store.ReadVolume(ctx, v.name, p[:n], off)
}

func (v *volume) WriteAt(ctx context.Context, p []byte, off int64) error {
	return v.store.WriteVolume(ctx, v.name, p, off)
}

func (v *volume) Zero(ctx context.Context, off, length int64) error {
	return v.store.ZeroVolume(ctx, v.name, off, length)
}

func (v *volume) Flush(ctx context.Context) error { return v.store.FlushVolume(ctx, v.name) }

func (v *volume) NextData(ctx context.Context, off int64) (start, length int64, err error) {
	if off >= v.size {
		return 0, 0, nil
	}
	return v.store.NextData(ctx, v.name, off)
}

// Maps implements Mapper.
func (v *volume) Maps() bool { return true }

func (v *volume) Populate(ctx context.Context, off, length int64) (Token, int64, error) {
	// A token cannot have a part of a block at the end of a file.
	if length = min(length, v.size-off) &^ (volumeBlockLength - 1); length <= 0 {
		return nil, 0, errors.New("the rest is shorter than a block")
	}
	t, err := v.store.CreateToken(ctx, admin.TokenRequest{Volume: v.name, Offset: off, Length: length})
	return t.Token, t.Length, err
}

func (v *volume) WriteUsing(ctx context.Context, t Token, offset, off, length int64) (int64, error) {
	r, err := v.store.WriteToken(ctx, admin.TokenWrite{Token: t, TokenOffset: offset, Volume: v.name, Offset: off, Length: length})
	return r.Bytes, err
}

// Forget implements Offloader.
func (v *volume) Forget(ctx context.Context, t Token) error { return revoke(ctx, v.store, t) }

func revoke(ctx context.Context, a admin.Administrator, t Token) error {
	if len(t) != tokens.TokenLength {
		return fmt.Errorf("a token has %d bytes, not %d", tokens.TokenLength, len(t))
	}
	return a.RevokeToken(ctx, (*tokens.Token)(t))
}
