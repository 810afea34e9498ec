package odx_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wirePackage owns the JSON that clients see.
const wirePackage = "api/v1"

// durable are the files whose structs are records of stores in JSON, and what of
// docs/formats.md they are; those that one process of odx sends to another; and formats that
// others define.
var durable = map[string]string{
	"alerts/message.go":              "what Alertmanager posts to a webhook",
	"audit/record.go":                "a change, in the audit file",
	"backstore/repair_record.go":     "a repair in place that was interrupted",
	"backstore/protect.go":           "a revert of a volume that is under way",
	"backstore/revert.go":            "a revert of a volume that is under way",
	"backstore/scrubplan/record.go":  "the last scrub",
	"migrate/record.go":              "a migration of a volume",
	"offload/view/mirror.go":         "a mirror",
	"pool/facts/facts.go":            "what the nodes of a pool know of each other",
	"pool/shardserver/server.go":     "what the process of a node and its servers of shards say to each other",
	"replica/pair/record.go":         "a volume or file that is replicated, at both ends",
	"replica/backupset.go":           "the manifest of a backup, which is not in the store",
	"replica/receiverecord.go":       "a stream that is being received; where a volume or a snapshot was received from",
	"snapshots/record.go":            "a snapshot of a policy; what a policy did last",
	"successor/doc.go":               "what a process passes to its successor, but for the state",
	"standby/doc.go":                 "what comes with a socket for a standby",
	"target/addresses.go":            "connections to the addresses of a store's owner",
	"target/era.go":                  "the last start, and whether the server was stopped",
	"target/foreignluns.go":          "what a LUN of another target has to stay",
	"target/handover/state.go":       "the sessions that one process hands over to another",
	"target/lunhistory.go":           "what was served at each LUN",
	"target/portnumbers.go":          "the numbers of target ports",
	"target/sightings.go":            "what initiators found at their LUNs",
	"target/scsi/mode/saved.go":      "saved mode pages",
	"target/scsi/portskeep.go":       "states of ports",
	"target/scsi/reserve/current.go": "current persistent reservations",
	"target/scsi/reserve/record.go":  "persistent reservations",
	"tokens/record.go":               "a token, live or dead",
}

// TestJSONNames: a name for JSON is either on the wire, in wirePackage, or durable, in a
// record with a version: who renames one sees what that breaks.
func TestJSONNames(t *testing.T) {
	found, err := jsonNames(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		switch _, isDurable := durable[name]; {
		case path.Dir(name) == wirePackage:
		case !isDurable:
			t.Errorf("%s names fields for JSON: what clients see belongs in %s; what stores keep is a record with a version, and the file in the table of this test", name, wirePackage)
		case !slices.Contains(found[name], "version"):
			t.Errorf("%s: the record has no version", name)
		}
	}
	for name := range durable {
		if found[name] == nil {
			t.Errorf("%s has no record any more: take it out of the table of this test", name)
		}
	}
}

// jsonNames returns, by file below dir, the names of JSON that tags of the product give.
func jsonNames(dir string) (map[string][]string, error) {
	found := map[string][]string{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		name = filepath.ToSlash(name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{"bench", "internal/kit", "scripts", "test"}, name) || d.Name() == "testdata" || name != dir && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && field.Tag != nil {
				if _, rest, ok := strings.Cut(field.Tag.Value, `json:"`); ok {
					key, _, _ := strings.Cut(rest, `"`)
					key, _, _ = strings.Cut(key, ",")
					found[name] = append(found[name], key)
				}
			}
			return true
		})
		return nil
	})
	return found, err
}
