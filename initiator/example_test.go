package initiator_test

import (
	"context"
	"fmt"
	"os"

	"odx/initiator"
)

// A token copies between two LUNs; the data does not come to the initiator.
func Example() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	server, err := startDisks(ctx, dir)
	if err != nil {
		panic(err)
	}
	defer server.Stop(ctx)
	open := func(lun int) *initiator.Disk {
		url, err := initiator.ParseURL(fmt.Sprintf("iscsi://%s/iqn.2026-11.example.odx:disks/%d", server.Portals()[0], lun))
		if err != nil {
			panic(err)
		}
		d, err := initiator.Open(ctx, initiator.Options{InitiatorName: "iqn.2026-11.example:host", URL: url})
		if err != nil {
			panic(err)
		}
		return d
	}
	src, dst := open(0), open(300)
	defer src.Close()
	defer dst.Close()

	block := make([]byte, dst.BlockLength) // 4096 bytes; those of src have 512
	copy(block, "first")
	if err := src.WriteAt(ctx, block, 0); err != nil {
		panic(err)
	}
	token, length, err := src.PopulateToken(ctx, 0, 1<<20)
	if err != nil {
		panic(err)
	}
	// A command may write less than was asked for; the caller continues from there.
	for done := int64(0); done < length; {
		n, err := dst.WriteUsingToken(ctx, token, done, done, length-done)
		if err != nil {
			panic(err)
		}
		done += n
	}
	if err := dst.Flush(ctx); err != nil {
		panic(err)
	}
	if err := dst.ReadAt(ctx, block, 0); err != nil {
		panic(err)
	}
	fmt.Printf("%d bytes, dst has %q\n", length, block[:5])
	// Output: 1048576 bytes, dst has "first"
}

// A URL names a LUN as libiscsi and qemu write it. Printed, it has no secret.
func ExampleParseURL() {
	url, err := initiator.ParseURL("iscsi://alice%secret@storage.example/iqn.2026-11.example.odx:disks/1")
	if err != nil {
		panic(err)
	}
	fmt.Println(url.Address, url.LUN, url.Login.User)
	fmt.Println(url)
	// Output:
	// storage.example:3260 1 alice
	// iscsi://storage.example:3260/iqn.2026-11.example.odx:disks/1
}
