package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
	"odx/tokens"
)

// A token represents the bytes as they were when it was made, until it ends.
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
	manager, err := tokens.Open(ctx, tokens.Options{Store: offload.ExtentStore{Store: store}})
	if err != nil {
		panic(err)
	}
	defer manager.Close()
	src, err := store.CreateVolume(ctx, "src", 64<<20)
	if err != nil {
		panic(err)
	}
	dst, err := store.CreateVolume(ctx, "dst", 64<<20)
	if err != nil {
		panic(err)
	}
	if err := src.WriteAt(ctx, []byte("first"), 0); err != nil {
		panic(err)
	}

	ranges := []blockdev.Range{{Offset: 0, Length: 1 << 20}}
	made, err := manager.OffloadRead(ctx, tokens.Source{Volume: src, LU: tokens.LU{BlockLength: 512}}, ranges, tokens.ReadOptions{})
	if err != nil {
		panic(err)
	}
	if err := src.WriteAt(ctx, []byte("later"), 0); err != nil {
		panic(err)
	}

	// A call may write less than was asked for; the caller continues from there.
	to := offload.Destination{Volume: dst, BlockLength: 512}
	for done := int64(0); done < made.Represented; {
		rest := []blockdev.Range{{Offset: done, Length: made.Represented - done}}
		n, err := manager.OffloadWrite(ctx, made.Token, done, to, rest, tokens.WriteOptions{})
		if err != nil {
			panic(err)
		}
		done += n
	}
	p := make([]byte, 5)
	if err := dst.ReadAt(ctx, p, 0); err != nil {
		panic(err)
	}
	fmt.Printf("%d bytes, dst has %q\n", made.Represented, p)

	if err := manager.DeleteToken(ctx, made.Token, tokens.Deleted); err != nil {
		panic(err)
	}
	_, err = manager.OffloadWrite(ctx, made.Token, 0, to, ranges, tokens.WriteOptions{})
	fmt.Println(errors.Is(err, tokens.ErrDeleted))
	// Output:
	// 1048576 bytes, dst has "first"
	// true
}
