package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	v1 "odx/api/v1"
)

// operation is an operation that both support. Commands are without the program name.
// Files have the same names in the store and in the host's directory: disk.raw and
// disk.vhdx have the data, child.vhdx and child.qcow2 change a tenth of it, and a run
// creates files named new.
type operation struct {
	name string
	goal float64 // ratio; 0 for none, because qemu-img copies no data either
	// before and after are untimed commands before and after each run.
	before, after []string
	odx           string
	copyBefore    string // host file that is copied to new
	qemu          string
}

const (
	goal = 20

	toVHDX    = "convert -f raw -O vhdx disk.raw new.vhdx"
	removeNew = "file rm new.vhdx"
)

var operations = []operation{
	{
		name: "convert raw to VHDX", goal: goal, after: []string{removeNew},
		odx: "vhd convert disk.raw new.vhdx", qemu: toVHDX,
	}, {
		name: "convert VHDX to VHD", goal: goal, after: []string{"file rm new.vhd"},
		odx: "vhd convert disk.vhdx new.vhd", qemu: "convert -f vhdx -O vpc disk.vhdx new.vhd",
	}, {
		name: "convert VHDX to fixed VHD", goal: goal, after: []string{"file rm new.vhd"},
		odx: "vhd convert disk.vhdx new.vhd --fixed", qemu: "convert -f vhdx -O vpc -o subformat=fixed disk.vhdx new.vhd",
	}, {
		name: "convert VHDX to fixed VHDX", goal: goal, after: []string{removeNew},
		odx: "vhd convert disk.vhdx new.vhdx --fixed", qemu: "convert -f vhdx -O vhdx -o subformat=fixed disk.vhdx new.vhdx",
	}, {
		name: "volume to VHDX", goal: goal, after: []string{removeNew},
		odx: "vhd from-volume source new.vhdx", qemu: toVHDX,
	}, {
		name: "VHDX to volume", goal: goal, after: []string{"volume delete new"},
		odx: "vhd to-volume disk.vhdx new", qemu: "convert -f vhdx -O raw disk.vhdx new.raw",
	}, {
		name: "compact VHDX", goal: goal, before: []string{"file cp merged.vhdx new.vhdx"}, after: []string{removeNew},
		odx: "vhd compact new.vhdx", qemu: "convert -f vhdx -O vhdx disk.vhdx new.vhdx",
	}, {
		name: "defragment VHDX", goal: goal, before: []string{"file cp merged.vhdx new.vhdx"}, after: []string{removeNew},
		odx: "vhd defrag new.vhdx", qemu: "convert -f vhdx -O vhdx disk.vhdx new.vhdx",
	}, {
		name: "snapshot of VHDX", after: []string{removeNew},
		odx: "vhd snapshot disk.vhdx new.vhdx", qemu: "create -q -f qcow2 -b disk.raw -F raw new.qcow2",
	}, {
		name: "resize VHDX", before: []string{"file cp merged.vhdx new.vhdx"}, after: []string{removeNew},
		odx: "vhd resize new.vhdx LARGER", copyBefore: "child.qcow2", qemu: "resize -q -f qcow2 new.qcow2 LARGER",
	}, {
		name: "create fixed VHD of zeros", after: []string{"file rm new.vhd"},
		odx: "vhd create new.vhd SIZE --fixed", qemu: "create -q -f vpc -o subformat=fixed new.vhd SIZE",
	}, {
		name: "create fixed VHDX of zeros", after: []string{removeNew},
		odx: "vhd create new.vhdx SIZE --fixed", qemu: "create -q -f vhdx -o subformat=fixed new.vhdx SIZE",
	}, {
		// Last, because qemu-img changes disk.raw. It does not support differencing VHDX,
		// so its child is a qcow2.
		name: "merge VHDX", goal: goal,
		before: []string{"file cp disk.vhdx new/disk.vhdx", "file cp child.vhdx new/child.vhdx"}, after: []string{"file rm new/disk.vhdx"},
		odx: "vhd merge new/child.vhdx", copyBefore: "child.qcow2", qemu: "commit -q -f qcow2 new.qcow2",
	},
}

// result has the durations of the runs of an operation.
type result struct {
	wall, inside, qemu []time.Duration
	mapped, moved      int64
}

func (b *bench) measure(ctx context.Context, o operation, runs int) (r result, err error) {
	for range runs {
		if err := b.measureODX(ctx, o, &r); err != nil {
			return result{}, err
		}
		took, err := b.measureQEMU(ctx, o)
		if err != nil {
			return result{}, err
		}
		r.qemu = append(r.qemu, took)
	}
	return r, nil
}

func (b *bench) measureODX(ctx context.Context, o operation, r *result) error {
	// Cleaning completes deferred deletions, and ends with a checkpoint.
	if err := b.odxAll(ctx, append(slices.Clone(o.before), "store clean")); err != nil {
		return err
	}
	if err := b.syncHost(); err != nil {
		return err
	}
	var said v1.DiskResult
	began := time.Now()
	if err := b.odx(ctx, &said, o.odx); err != nil {
		return err
	}
	r.wall = append(r.wall, time.Since(began))
	r.inside = append(r.inside, said.Duration)
	r.mapped, r.moved = said.MappedBytes, said.MovedBytes
	return b.odxAll(ctx, o.after)
}

func (b *bench) odxAll(ctx context.Context, commands []string) error {
	for _, c := range commands {
		if err := b.odx(ctx, nil, c); err != nil {
			return err
		}
	}
	return nil
}

// odx runs an odx command.
func (b *bench) odx(ctx context.Context, into any, command string) error {
	return b.target.Admin(ctx, into, b.words(command)...)
}

func (b *bench) words(command string) []string {
	return strings.Fields(strings.NewReplacer("SIZE", fmt.Sprint(b.size), "LARGER", fmt.Sprint(2*b.size)).Replace(command))
}

func (b *bench) measureQEMU(ctx context.Context, o operation) (time.Duration, error) {
	if o.copyBefore != "" {
		if err := copyFile(b.host(o.copyBefore), b.host("new"+filepath.Ext(o.copyBefore))); err != nil {
			return 0, err
		}
	}
	if err := b.syncHost(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.qemu(ctx, "qemu-img", b.words(o.qemu)...); err != nil {
		return 0, err
	}
	took := time.Since(began)
	made, err := filepath.Glob(b.host("new.*"))
	for _, name := range made {
		err = errors.Join(err, os.Remove(name))
	}
	return took, err
}

// qemu runs a program of qemu in the host's directory.
func (b *bench) qemu(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = b.host("")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// syncHost flushes the host's file system.
func (b *bench) syncHost() error {
	d, err := os.Open(b.host(""))
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func (r result) print(w io.Writer, o operation) {
	wall, qemu := median(r.wall), median(r.qemu)
	wanted := "–"
	if o.goal != 0 {
		wanted = fmt.Sprintf("%.0f ×", o.goal)
	}
	fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %.1f × | %s | %s | %s |\n", o.name,
		milliseconds(wall), milliseconds(slices.Max(r.wall)), milliseconds(median(r.inside)), milliseconds(qemu),
		float64(qemu)/float64(wall), wanted, humanize.IBytes(uint64(r.mapped)), humanize.IBytes(uint64(r.moved)))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%s ms", humanize.CommafWithDigits(float64(d.Microseconds())/1000, 1))
}

func median(values []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
