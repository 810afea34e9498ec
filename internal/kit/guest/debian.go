package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// files is a directory with unpacked Debian packages. They may use /lib and /bin
// or /usr/lib and /usr/bin for the same: names here are without the /usr, and
// both are looked at.
type files string

// download fetches Debian packages and unpacks them into an empty directory.
// Nothing is installed, so neither root nor dpkg's lock is needed.
func download(ctx context.Context, dir string, packages []string) (files, error) {
	debs, root := filepath.Join(dir, "debs"), filepath.Join(dir, "root")
	for _, d := range []string{debs, root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	fetch := func() error {
		// As its own user apt could not write here.
		return run(ctx, debs, "apt-get", append([]string{"-qq", "-o", "APT::Sandbox::User=root", "download"}, packages...)...)
	}
	if err := fetch(); err != nil {
		// The package lists may be missing or old.
		if run(ctx, debs, "apt-get", "-qq", "update") != nil {
			return "", err
		}
		if err := fetch(); err != nil {
			return "", err
		}
	}
	all, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return "", err
	}
	for _, deb := range all {
		if err := run(ctx, dir, "dpkg-deb", "--extract", deb, root); err != nil {
			return "", err
		}
	}
	return files(root), os.RemoveAll(debs)
}

// withLibraries adds to packages the library packages they depend on.
func withLibraries(ctx context.Context, packages []string) ([]string, error) {
	args := []string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances"}
	out, err := output(ctx, "apt-cache", append(args, packages...)...)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(packages)
	for line := range strings.Lines(out) {
		if name := strings.TrimSpace(line); libraryPackage(line) && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all, nil
}

// libraryPackage reports whether a line of apt-cache begins a real package with shared
// libraries of programs; those of perl and python have their modules.
func libraryPackage(line string) bool {
	return (strings.HasPrefix(line, "lib") || strings.HasPrefix(line, "zlib")) && !strings.Contains(line, "perl") && !strings.Contains(line, "python")
}

// kernelPackage returns the package that the meta package of the newest kernel depends
// on.
func kernelPackage(ctx context.Context, newest string) (string, error) {
	out, err := output(ctx, "apt-cache", "depends", newest)
	if err != nil {
		return "", err
	}
	m := regexp.MustCompile(`Depends: (linux-image-\d\S*)`).FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("package %s depends on no kernel", newest)
	}
	return m[1], nil
}

// path finds where a name without /usr was unpacked, "" if nowhere.
func (f files) path(name string) string {
	for _, p := range []string{filepath.Join(string(f), "usr", name), filepath.Join(string(f), name)} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
		// An absolute link means the guest's root, not ours.
		if target, err := os.Readlink(p); err == nil && path.IsAbs(target) {
			return f.path(strings.TrimPrefix(strings.TrimPrefix(target, "/"), "usr/"))
		}
	}
	return ""
}

// copyTo adds a file to the archive as /usr/NAME; a program brings the
// libraries it needs, and those the ones that they need.
func (f files) copyTo(a *archive, name string) error {
	if a.has("usr/" + name) {
		return nil
	}
	p := f.path(name)
	if p == "" {
		return fmt.Errorf("%s is in none of the packages", name)
	}
	info, err := os.Stat(p)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	a.file("usr/"+name, info.Mode(), data)
	return f.copyLibraries(a, name, data)
}

var libraryDirs = []string{"lib/x86_64-linux-gnu", "lib", "lib/x86_64-linux-gnu/ceph"}

func (f files) copyLibraries(a *archive, name string, data []byte) error {
	e, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil // a script or a text
	}
	needed, err := e.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if e.Section(".interp") != nil {
		if err := f.copyTo(a, "lib64/ld-linux-x86-64.so.2"); err != nil {
			return err
		}
	}
search:
	for _, library := range needed {
		for _, directory := range libraryDirs {
			if strings.HasPrefix(library, "ld-linux") {
				continue search // the interpreter, which every program names
			}
			if f.path(path.Join(directory, library)) != "" {
				if err := f.copyTo(a, path.Join(directory, library)); err != nil {
					return err
				}
				continue search
			}
		}
		return fmt.Errorf("%s needs %s, which is in none of the packages", name, library)
	}
	return nil
}

func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

func output(ctx context.Context, program string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
