package backstore_test

import (
	"context"
	"fmt"
	"os"

	"odx/backstore"
)

// A snapshot shares what the volume has, and a map makes a range of another volume
// equal to it, without moving bytes.
func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	store, err := backstore.Open(ctx, backstore.Options{Dir: dir})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	src, err := store.CreateVolume(ctx, "src", 64<<20)
	if err != nil {
		panic(err)
	}
	dst, err := store.CreateVolume(ctx, "dst", 64<<20)
	if err != nil {
		panic(err)
	}

	if err := src.WriteAt(ctx, []byte("first"), 4096); err != nil {
		panic(err)
	}
	snapshot, err := src.Snapshot(ctx, []backstore.Range{{Offset: 0, Length: 1 << 20}}, nil)
	if err != nil {
		panic(err)
	}
	defer snapshot.Release()
	if err := src.WriteAt(ctx, []byte("later"), 4096); err != nil {
		panic(err)
	}

	mapped, err := dst.Map(ctx, 0, snapshot, 0, snapshot.Length())
	if err != nil {
		panic(err)
	}
	// What was flushed survives a power cut.
	if err := store.Flush(ctx); err != nil {
		panic(err)
	}
	p := make([]byte, 5)
	if err := dst.ReadAt(ctx, p, 4096); err != nil {
		panic(err)
	}
	fmt.Printf("%d bytes mapped, dst has %q\n", mapped, p)
	// Output: 1048576 bytes mapped, dst has "first"
}

// COMPARE AND WRITE: the write happens only if the bytes are the expected ones.
func ExampleVolume_CompareAndWrite() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	store, err := backstore.Open(ctx, backstore.Options{Dir: dir})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	v, err := store.CreateVolume(ctx, "v", 1<<20)
	if err != nil {
		panic(err)
	}

	free, mine, yours := make([]byte, 512), make([]byte, 512), make([]byte, 512)
	copy(mine, "mine")
	copy(yours, "yours")
	mismatch, err := v.CompareAndWrite(ctx, free, mine, 0)
	if err != nil {
		panic(err)
	}
	fmt.Println("first byte that differs:", mismatch)
	mismatch, err = v.CompareAndWrite(ctx, free, yours, 0)
	if err != nil {
		panic(err)
	}
	fmt.Println("first byte that differs:", mismatch)
	// Output:
	// first byte that differs: -1
	// first byte that differs: 0
}
