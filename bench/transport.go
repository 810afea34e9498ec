package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"odx/internal/kit"
	"odx/target/iscsi"
	"odx/target/scsi"
)

// transportSize is the size of the LUN in memory in bytes.
const transportSize = 256 << 20

// transportWorkloads run against a LUN in memory, without a store.
var transportWorkloads = []workload{
	perf("random reads, 4 KiB, 32 outstanding", "-m", "32", "-b", "8", "-r"),
	perf("random reads, 4 KiB, 1 outstanding", "-m", "1", "-b", "8", "-r"),
	perf("reads, 256 KiB, 32 outstanding", "-m", "32", "-b", "512"),
	clients(4, perf("random reads, 4 KiB, 32 outstanding", "-m", "32", "-b", "8", "-r")),
}

// clients returns a workload of n concurrent clients. The rate is the total.
func clients(n int, w workload) workload {
	one := w.run
	w.name = fmt.Sprintf("%d concurrent clients: %s", n, w.name)
	w.run = func(ctx context.Context, t *kit.Target, length time.Duration) (float64, error) {
		rates, errs := make([]float64, n), make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { rates[i], errs[i] = one(ctx, t, length) })
		}
		wg.Wait()
		sum := 0.0
		for _, r := range rates {
			sum += r
		}
		return sum, errors.Join(errs...)
	}
	return w
}

// compareTransports compares the transport and the device server over memory, in this
// process, with tgtd over a file on tmpfs. It writes a CPU profile to o.profile, if
// set.
func compareTransports(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("/dev/shm", "odx-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tgtd, err := kit.StartTGTD(ctx, dir, []kit.LUN{{Size: transportSize}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tgtd.Stop()) }()
	odx, stop, err := serveMemory(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	targets := []*kit.Target{odx, tgtd}
	for _, t := range targets {
		if err := fill(ctx, t); err != nil {
			return fmt.Errorf("fill the LUN of %s: %w", t.Kind, err)
		}
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	rows, err := measure(ctx, o, transportWorkloads, targets)
	if err != nil {
		return err
	}
	fmt.Printf("\nwithout a store: LUN of %d MiB in memory, server in this process; LUN of %s in a file on tmpfs\n\n", transportSize>>20, peers[1].name)
	return printRows(os.Stdout, rows)
}

// serveMemory serves a LUN in memory on a free loopback port.
func serveMemory(ctx context.Context) (_ *kit.Target, stop func() error, err error) {
	lu, err := scsi.NewLogicalUnit(scsi.LUConfig{Volume: newMemVolume(transportSize), ID: [16]byte{15: 1}})
	if err != nil {
		return nil, nil, err
	}
	device := scsi.NewTarget(scsi.TargetConfig{Name: kit.IQN})
	if err := device.AddLU(0, lu); err != nil {
		return nil, nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server, err := iscsi.NewServer(iscsi.DefaultOptions(), []iscsi.TargetConfig{{Name: kit.IQN, DeviceServer: device}})
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), iscsi.Portal{Listener: l, Group: 1}) }()
	t := &kit.Target{Kind: "odx", Portal: l.Addr().String(), IQN: kit.IQN, LUNs: []kit.LUN{{Size: transportSize}}}
	return t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), kit.StopLimit)
		defer cancel()
		err := server.Shutdown(ctx)
		if e := <-served; !errors.Is(e, iscsi.ErrClosed) {
			err = errors.Join(err, e)
		}
		return err
	}, nil
}
