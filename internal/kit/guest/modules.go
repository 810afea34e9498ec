package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// modules are the kernel modules of a package by name.
type modules map[string]string // name with underscores: path

func findModules(f files) (modules, error) {
	m := modules{}
	root := f.path("lib/modules")
	if root == "" {
		return nil, fmt.Errorf("the kernel package has no modules")
	}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if name, suffix, ok := strings.Cut(d.Name(), ".ko"); err == nil && ok && (suffix == "" || suffix == ".xz") {
			m[moduleName(name)] = p
		}
		return err
	})
	return m, err
}

// moduleName is the one spelling of a name in which both are in use.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// module is a loadable piece of the kernel, uncompressed.
type module struct {
	name string
	data []byte
}

// inOrder takes modules and those they depend on out of m and reads them, such
// that each stands after what it depends on. What is not there is built into
// the kernel or was taken before.
func (m modules) inOrder(ctx context.Context, names []string) ([]module, error) {
	var all []module
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		p := m[name]
		if p == "" {
			return nil
		}
		delete(m, name)
		data, err := readModule(ctx, p)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		all = append(all, module{name, data})
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readModule(ctx context.Context, p string) ([]byte, error) {
	if filepath.Ext(p) == ".xz" {
		out, err := output(ctx, "xz", "--decompress", "--stdout", p)
		return []byte(out), err
	}
	return os.ReadFile(p)
}

// moduleDepends reads the depends= entry of section .modinfo.
func moduleDepends(data []byte) ([]string, error) {
	e, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := e.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}
