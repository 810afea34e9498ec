package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"odx/internal/kit/harness"
)

// completed returns what a shell gets for the last of args, without descriptions.
func completed(t *testing.T, args ...string) (candidates []string, files bool) {
	t.Helper()
	stdout, _, status := output(t, append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if status != 0 || !strings.HasPrefix(lines[len(lines)-1], ":") {
		t.Fatalf("odx __complete %q: exit status %d, %q", args, status, stdout)
	}
	for _, line := range lines[:len(lines)-1] {
		name, _, _ := strings.Cut(line, "\t")
		candidates = append(candidates, name)
	}
	return candidates, lines[len(lines)-1] == ":0"
}

// TestCompletion asks a server for each kind of argument.
func TestCompletion(t *testing.T) {
	path := writeConfig(t, config+"peers:\n"+
		"  - {name: first, store: 00000000000000000000000000000001, addresses: [\"http://127.0.0.1:1\"], secret: \"0123456789abcdef\"}\n"+
		"  - {name: second, store: 00000000000000000000000000000002, addresses: [\"http://127.0.0.1:1\"], secret: \"0123456789abcdef\"}\n")
	s := startServer(t, odx("serve", "--config", path))
	defer s.stop(t)
	for _, args := range [][]string{{"volume", "create", "other", "1MiB"}, {"vhd", "create", "disks/a.vhdx", "64MiB"}, {"file", "cp", "disks/a.vhdx", "notes"}} {
		if _, stderr, status := output(t, append(args, "--config", path)...); status != 0 {
			t.Fatalf("odx %v: %s", args, stderr)
		}
	}
	for name, tt := range map[string]struct {
		args  []string
		want  []string // sorted; a URL without its port
		files bool
	}{
		"volumes":            {[]string{"volume", "delete", ""}, []string{"dst", "other", "src"}, false},
		"beginning":          {[]string{"volume", "delete", "o"}, []string{"other"}, false},
		"new name":           {[]string{"volume", "clone", "src", ""}, nil, false},
		"too many arguments": {[]string{"volume", "delete", "src", ""}, nil, false},
		"files":              {[]string{"file", "rm", ""}, []string{"disks/a.vhdx", "notes"}, false},
		"further files":      {[]string{"file", "rm", "notes", ""}, []string{"disks/a.vhdx"}, false},
		"local file":         {[]string{"file", "put", ""}, nil, true},
		"virtual disks":      {[]string{"vhd", "info", ""}, []string{"disks/a.vhdx"}, false},
		"volumes and files":  {[]string{"token", "create", ""}, []string{"dst", "file:disks/a.vhdx", "file:notes", "other", "src"}, false},
		"peers":              {[]string{"replicate", "start", ""}, []string{"first", "second"}, false},
		"LUNs":               {[]string{"copy", "iscsi://127.0.0.1"}, []string{"iqn.2026-11.example.odx:disks/0", "iqn.2026-11.example.odx:disks/1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, files := completed(t, slices.Insert(slices.Clone(tt.args), len(tt.args)-1, "--config", path)...)
			for i := range got {
				if rest, ok := strings.CutPrefix(got[i], "iscsi://"); ok {
					_, got[i], _ = strings.Cut(rest, "/")
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.want) || files != tt.files {
				t.Errorf("offers %q, files %v; want %q, %v", got, files, tt.want, tt.files)
			}
		})
	}
	t.Run("no server", func(t *testing.T) {
		if got, files := completed(t, "volume", "delete", "--config", "/nowhere", ""); got != nil || files {
			t.Errorf("offers %q, files %v", got, files)
		}
	})
	t.Run("tokens", func(t *testing.T) {
		stdout, stderr, status := output(t, "token", "create", "src", "--json", "--config", path)
		if status != 0 {
			t.Fatal(stderr)
		}
		if got, _ := completed(t, "token", "show", "--config", path, ""); len(got) != 1 || !strings.Contains(stdout, got[0]) {
			t.Errorf("offers %q for %s", got, stdout)
		}
	})
}

// TestCompletion_Scripts: the shells that are here take what odx writes for them.
func TestCompletion_Scripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			stdout, _, status := output(t, "completion", shell)
			if status != 0 || !strings.Contains(stdout, "__complete") {
				t.Fatalf("exit status %d, %q", status, stdout)
			}
			cmd := exec.Command(harness.Program(t, shell, shell), "-n")
			cmd.Stdin = strings.NewReader(stdout)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestCompletion_Commands: each command with arguments says how they are completed.
func TestCompletion_Commands(t *testing.T) {
	// Their arguments are new names, words of the command line, or files of this machine.
	without := []string{
		"odx volume create", "odx vhd create", "odx target create", "odx token read", "odx store dump", "odx store repair",
		"odx config check", "odx config show", "odx config diff", "odx help", "odx man", "odx support bundle",
	}
	all, found := completions(), map[string]bool{}
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		_, listed := all[path]
		found[path] = true
		if takes := strings.Contains(strings.TrimSuffix(cmd.UseLine(), " [flags]"), path+" "); !cmd.HasSubCommands() && takes && !listed &&
			!slices.Contains(without, path) && !strings.HasPrefix(path, "odx completion") {
			t.Errorf("%s has no line in completions", cmd.UseLine())
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	root := newRoot()
	check(root)
	for path := range all {
		if !found[path] {
			t.Errorf("completions has %s, which is no command", path)
		}
	}
}
