package offload_test

import (
	"context"
	"fmt"
	"os"

	"odx/backstore"
	"odx/offload"
)

// A copy between volumes of one store maps what lies alike to 4 KiB blocks: no bytes
// move, however long it is.
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
	engine, err := offload.Open(ctx, offload.ExtentStore{Store: store}, nil)
	if err != nil {
		panic(err)
	}
	src, err := store.CreateVolume(ctx, "src", 64<<20)
	if err != nil {
		panic(err)
	}
	dst, err := store.CreateVolume(ctx, "dst", 64<<20)
	if err != nil {
		panic(err)
	}
	if err := src.WriteAt(ctx, []byte("golden image"), 4096); err != nil {
		panic(err)
	}

	var done int64
	err = engine.Copy(ctx, src, 0, dst, 8<<20, 32<<20, func(n int64) { done += n })
	if err != nil {
		panic(err)
	}
	p := make([]byte, len("golden image"))
	if err := dst.ReadAt(ctx, p, 8<<20+4096); err != nil {
		panic(err)
	}
	fmt.Printf("%d bytes, dst has %q\n", done, p)
	// Output: 33554432 bytes, dst has "golden image"
}
