package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/api"
)

// volume is a volume or a file of the store.
type volume struct {
	store api.Offloader
	name  string
	size  int64
	block int
}

// OpenVolume returns a volume of the store that a answers for, or a file, whose
// name begins with api.FilePrefix.
func OpenVolume(ctx context.Context, a api.Administrator, name string) (Disk, error) {
	size, err := sizeOf(ctx, a, name)
	if err != nil {
		return nil, err
	}
	v := &volume{store: a, name: name, size: size, block: volumeBlockLength}
	if size%volumeBlockLength != 0 {
		v.block = 1
	}
	return v, nil
}

func sizeOf(ctx context.Context, a api.Administrator, name string) (int64, error) {
	if file, ok := strings.CutPrefix(name, api.FilePrefix); ok {
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

// CreateStoreFile makes a file of the store, or gives the one that is there
// another size, to write size bytes to.
func CreateStoreFile(ctx context.Context, a api.Administrator, name string, size int64) (Disk, error) {
	file := strings.TrimPrefix(name, api.FilePrefix)
	_, err := sizeOf(ctx, a, name)
	switch {
	case errors.Is(err, ErrNoFile):
		_, err = a.CreateFile(ctx, file, size)
	case err == nil:
		_, err = a.ResizeFile(ctx, file, size)
	}
	if err != nil {
		return nil, err
	}
	return OpenVolume(ctx, a, name)
}

// volumeBlockLength is what a volume counts in: tokens of shorter blocks fit no
// LUN.
const volumeBlockLength = 512

func (v *volume) Close() error     { return nil }
func (v *volume) Size() int64      { return v.size }
func (v *volume) BlockLength() int { return v.block }

func (v *volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	// Beyond the end of a file there are zeros.
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

func (v *volume) Populate(ctx context.Context, off, length int64) (Token, int64, error) {
	// The last part of a block of a file is no token's.
	if length = min(length, v.size-off) &^ (volumeBlockLength - 1); length <= 0 {
		return nil, 0, errors.New("the rest is shorter than a block")
	}
	t, err := v.store.CreateToken(ctx, api.TokenRequest{Volume: v.name, Offset: off, Length: length})
	return t.Token, t.Length, err
}

func (v *volume) WriteUsing(ctx context.Context, t Token, offset, off, length int64) (int64, error) {
	r, err := v.store.WriteToken(ctx, api.TokenWrite{Token: t, TokenOffset: offset, Volume: v.name, Offset: off, Length: length})
	return r.Bytes, err
}
