package admin

import (
	"context"
	"errors"
	"fmt"

	"odx/backstore"
	"odx/blockdev"
)

func (s *Store) ReadVolume(ctx context.Context, name string, p []byte, off int64) error {
	return s.onRange(name, off, int64(len(p)), func(v *backstore.Volume) error { return v.ReadAt(ctx, p, off) })
}

func (s *Store) WriteVolume(ctx context.Context, name string, p []byte, off int64) error {
	end, err := s.BeginWrite(name)
	if err != nil {
		return err
	}
	defer end()
	return s.onRange(name, off, int64(len(p)), func(v *backstore.Volume) error {
		return writeOut(ctx, v, v.WriteAt(ctx, p, off))
	})
}

func (s *Store) ZeroVolume(ctx context.Context, name string, off, length int64) error {
	end, err := s.BeginWrite(name)
	if err != nil {
		return err
	}
	defer end()
	return s.onRange(name, off, length, func(v *backstore.Volume) error {
		return writeOut(ctx, v, v.Zero(ctx, off, length))
	})
}

func (s *Store) FlushVolume(ctx context.Context, name string) error {
	return s.onRange(name, 0, 0, func(v *backstore.Volume) error { return v.Flush(ctx) })
}

// onRange calls do with the object of that name, which has the range. If an operation
// replaces a file concurrently, it is looked up again.
func (s *Store) onRange(name string, off, length int64, do func(v *backstore.Volume) error) error {
	v, err := s.Object(name)
	for err == nil {
		if !(blockdev.Range{Offset: off, Length: length}).In(v.Size()) {
			return fmt.Errorf("%v: %w: %d bytes at %d are not inside its %d bytes", v, blockdev.ErrInvalid, length, off, v.Size())
		}
		if err := do(v); !errors.Is(err, backstore.ErrNotFound) {
			return err
		}
		old := v
		if v, err = s.Object(name); v == old {
			return fmt.Errorf("%v: %w", v, backstore.ErrNotFound)
		}
	}
	return err
}

func (s *Store) NextData(ctx context.Context, name string, off int64) (start, length int64, err error) {
	err = s.onRange(name, off, 0, func(v *backstore.Volume) error {
		return v.Extents(ctx, off, v.Size()-off, func(part blockdev.Range, mapped bool) bool {
			switch {
			case mapped && length == 0:
				start, length = part.Offset, part.Length
			case mapped:
				length += part.Length
			case length > 0:
				return false
			}
			return true
		})
	})
	return start, length, err
}

// writeOut makes a change of v, unless it failed with err, survive the end of this
// process before it is acknowledged.
func writeOut(ctx context.Context, v *backstore.Volume, err error) error {
	if err != nil {
		return err
	}
	return v.WriteOut(ctx)
}
