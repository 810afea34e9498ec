package blockdev_test

import (
	"context"
	"errors"
	"fmt"

	"odx/blockdev"
)

// ram is a volume in memory.
type ram []byte

func (v ram) Size() int64 { return int64(len(v)) }

func (v ram) part(off, length int64) ([]byte, error) {
	r := blockdev.Range{Offset: off, Length: length}
	if !r.In(v.Size()) {
		return nil, fmt.Errorf("%w: %d bytes at %d of %d", blockdev.ErrRange, length, off, v.Size())
	}
	return v[off:r.End()], nil
}

func (v ram) ReadAt(_ context.Context, p []byte, off int64) error {
	part, err := v.part(off, int64(len(p)))
	copy(p, part)
	return err
}

func (v ram) WriteAt(_ context.Context, p []byte, off int64) error {
	part, err := v.part(off, int64(len(p)))
	copy(part, p)
	return err
}

func (v ram) Unmap(_ context.Context, off, length int64) error {
	part, err := v.part(off, length)
	clear(part)
	return err
}

func (v ram) Flush(context.Context) error { return nil }

// A volume checks ranges with Range.In and reports refusals by kind; a caller finds
// out what else the volume can do by a type assertion.
func Example() {
	ctx := context.Background()
	var v blockdev.Volume = make(ram, 1<<20)
	if err := v.WriteAt(ctx, []byte("hello"), 4096); err != nil {
		fmt.Println(err)
	}
	p := make([]byte, 5)
	err := v.ReadAt(ctx, p, 4096)
	fmt.Printf("%s %v\n", p, err)

	err = v.Unmap(ctx, 1<<20, 512)
	fmt.Println(errors.Is(err, blockdev.ErrRange), err)

	_, ok := v.(blockdev.AtomicWriter)
	fmt.Println("writes atomically:", ok)
	// Output:
	// hello <nil>
	// true range is not inside the volume: 512 bytes at 1048576 of 1048576
	// writes atomically: false
}

func ExampleRange_In() {
	fmt.Println(blockdev.Range{Offset: 512, Length: 512}.In(1024))
	fmt.Println(blockdev.Range{Offset: 512, Length: 513}.In(1024))
	// Output:
	// true
	// false
}
