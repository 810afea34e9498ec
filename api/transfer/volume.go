package transfer

import (
	"context"
	"fmt"

	"odx/api"
)

// volume is a volume of the store.
type volume struct {
	store api.Offloader
	name  string
	size  int64
}

// OpenVolume returns a volume of the store that a answers for.
func OpenVolume(ctx context.Context, a api.Administrator, name string) (Disk, error) {
	all, err := a.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Name == name {
			return &volume{store: a, name: name, size: v.SizeBytes}, nil
		}
	}
	return nil, fmt.Errorf("volume %s: %w", name, ErrNoVolume)
}

// volumeBlockLength is what a volume counts in: tokens of shorter blocks fit no
// LUN.
const volumeBlockLength = 512

func (v *volume) Close() error     { return nil }
func (v *volume) Size() int64      { return v.size }
func (v *volume) BlockLength() int { return volumeBlockLength }

func (v *volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	return v.store.ReadVolume(ctx, v.name, p, off)
}

func (v *volume) WriteAt(ctx context.Context, p []byte, off int64) error {
	return v.store.WriteVolume(ctx, v.name, p, off)
}

func (v *volume) Zero(ctx context.Context, off, length int64) error {
	return v.store.ZeroVolume(ctx, v.name, off, length)
}

func (v *volume) Flush(ctx context.Context) error { return v.store.FlushVolume(ctx, v.name) }

// NextData: off is inside the volume, as everybody who looks for data is.
func (v *volume) NextData(ctx context.Context, off int64) (start, length int64, err error) {
	return v.store.NextData(ctx, v.name, off)
}

func (v *volume) Populate(ctx context.Context, off, length int64) (Token, int64, error) {
	t, err := v.store.CreateToken(ctx, api.TokenRequest{Volume: v.name, Offset: off, Length: length})
	return t.Token, t.Length, err
}

func (v *volume) WriteUsing(ctx context.Context, t Token, offset, off, length int64) (int64, error) {
	r, err := v.store.WriteToken(ctx, api.TokenWrite{Token: t, TokenOffset: offset, Volume: v.name, Offset: off, Length: length})
	return r.Bytes, err
}
