package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/blockdev"
	"odx/internal/kit/tokenclient"
	"odx/offload"
	"odx/tokens"
)

// providerBytes is the data of the provider's tokens in bytes.
const providerBytes = 256 << 20

// timeProvider times token copies by direct calls of the offload provider, without
// commands, on a store in dir.
func timeProvider(ctx context.Context, dir string, n int) (rows []latency, err error) {
	dir = filepath.Join(dir, "provider")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	store, err := backstore.Open(ctx, backstore.Options{Dir: dir, Log: logrus.NewEntry(log)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	manager, err := tokens.Open(ctx, tokens.Options{Store: offload.ExtentStore{Store: store}, Log: logrus.NewEntry(log)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, manager.Close()) }()
	src, err := store.CreateVolume(ctx, "src", providerBytes)
	if err != nil {
		return nil, err
	}
	dst, err := store.CreateVolume(ctx, "dst", 2*providerBytes)
	if err != nil {
		return nil, err
	}
	if err := fillVolume(ctx, src); err != nil {
		return nil, fmt.Errorf("fill the source: %w", err)
	}
	for _, c := range []struct {
		name string
		at   int64
	}{{"offload provider without commands, 256 MiB to the same address", 0}, {"offload provider without commands, 256 MiB to an address moved by 4 KiB", 4096}} {
		l := latency{name: c.name}
		for range n {
			t, err := copyOnce(ctx, manager, src, dst, c.at)
			if err != nil {
				return nil, err
			}
			l.add(t)
		}
		rows = append(rows, l)
	}
	return rows, nil
}

func fillVolume(ctx context.Context, v *backstore.Volume) error {
	rng := rand.NewChaCha8([32]byte{1})
	p := make([]byte, 1<<20)
	for off := int64(0); off < v.Size(); off += int64(len(p)) {
		rng.Read(p)
		if err := v.WriteAt(ctx, p, off); err != nil {
			return err
		}
	}
	return v.Flush(ctx)
}

// copyOnce creates a token of all of src and writes it to dst, with as many calls as
// needed.
func copyOnce(ctx context.Context, m *tokens.Manager, src, dst *backstore.Volume, at int64) (t tokenclient.Timings, err error) {
	began := time.Now()
	r, err := m.OffloadRead(ctx, tokens.Source{Volume: src, LU: tokens.LU{BlockLength: 512}}, []blockdev.Range{{Length: providerBytes}}, tokens.ReadOptions{})
	if err != nil {
		return t, err
	}
	t.Populate, t.Tokens = time.Since(began), 1
	for done := int64(0); done < providerBytes; t.Writes++ {
		began = time.Now()
		n, err := m.OffloadWrite(ctx, r.Token, done, offload.Destination{Volume: dst, BlockLength: 512},
			[]blockdev.Range{{Offset: at + done, Length: providerBytes - done}}, tokens.WriteOptions{})
		if err != nil {
			return t, err
		}
		t.Write += time.Since(began)
		if done += n; n == 0 {
			return t, errors.New("write made no progress")
		}
	}
	return t, nil
}
