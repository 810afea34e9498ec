package v1

import (
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"odx/internal/kit/fields"
)

var update = flag.Bool("update", false, "write testdata: only for what is new on the wire")

// types has every type of the package, by its name.
var types = map[string]any{
	"Store": &Store{}, "VolumeStats": &VolumeStats{}, "Tokens": &Tokens{}, "LastScrub": &LastScrub{}, "Damaged": &Damaged{},
	"CheckResult": &CheckResult{}, "CleanResult": &CleanResult{}, "StoreHold": &StoreHold{}, "EndedHolds": &EndedHolds{},
	"ScrubRequest": &ScrubRequest{}, "ScrubProgress": &ScrubProgress{}, "ScrubResult": &ScrubResult{}, "Damage": &Damage{}, "Use": &Use{}, "Mended": &Mended{},
	"Volume": &Volume{}, "CreateVolume": &CreateVolume{}, "Resize": &Resize{}, "NewName": &NewName{}, "FinishVolume": &FinishVolume{}, "DataRange": &DataRange{},
	"File": &File{}, "CreateFile": &CreateFile{}, "StartFile": &StartFile{}, "FinishFile": &FinishFile{},
	"Disk": &Disk{}, "DiskCheck": &DiskCheck{}, "DiskFinding": &DiskFinding{}, "DiskRequest": &DiskRequest{}, "DiskProgress": &DiskProgress{}, "DiskResult": &DiskResult{},
	"TokenRequest": &TokenRequest{}, "MadeToken": &MadeToken{}, "ProvidedToken": &ProvidedToken{}, "TokenInfo": &TokenInfo{}, "TokenWrite": &TokenWrite{},
	"TokenWritten": &TokenWritten{}, "TokenVerified": &TokenVerified{}, "TokenRead": &TokenRead{}, "Token": &Token{},
	"CopyStats": &CopyStats{}, "CopyCommands": &CopyCommands{}, "CopyRefusal": &CopyRefusal{}, "TokenStats": &TokenStats{},
	"ConfigChange": &ConfigChange{}, "Compared": &Compared{}, "Reloaded": &Reloaded{}, "LUNName": &LUNName{}, "Problem": &Problem{}, "Revert": &Revert{},
	"Target": &Target{}, "Discovery": &Discovery{}, "CreateTarget": &CreateTarget{}, "LUN": &LUN{}, "Rate": &Rate{}, "Login": &Login{}, "LoginUser": &LoginUser{},
	"User": &User{}, "SecretSource": &SecretSource{}, "AddUser": &AddUser{}, "SetUser": &SetUser{}, "Access": &Access{}, "AddAccess": &AddAccess{}, "MappedLUN": &MappedLUN{},
	"LUNStats": &LUNStats{}, "InitiatorStats": &InitiatorStats{}, "Counters": &Counters{}, "KindCounters": &KindCounters{}, "Traffic": &Traffic{}, "LatencyCount": &LatencyCount{},
	"Status": &Status{}, "Condition": &Condition{}, "Vitals": &Vitals{}, "Mirror": &Mirror{}, "MissingPortal": &MissingPortal{}, "LUNStatus": &LUNStatus{}, "Session": &Session{}, "SessionLUN": &SessionLUN{},
	"Failure": &Failure{}, "Line": &Line[ScrubProgress, ScrubResult]{},
	"ClusterStatus": &ClusterStatus{}, "ClusterNode": &ClusterNode{}, "ClusterShard": &ClusterShard{}, "ClusterConfiguration": &ClusterConfiguration{}, "ClusterMoves": &ClusterMoves{},
	"StoreInfo": &StoreInfo{}, "StandbyStatus": &StandbyStatus{}, "Upgraded": &Upgraded{}, "Repaired": &Repaired{}, "Lost": &Lost{}, "UnusedChange": &UnusedChange{}, "Change": &Change{},
	"Peers": &Peers{}, "Peer": &Peer{}, "HoldInfo": &HoldInfo{}, "TokensOfPeer": &TokensOfPeer{}, "FileTokenRequest": &FileTokenRequest{},
	"Migration": &Migration{}, "MigrationRequest": &MigrationRequest{}, "FinishMigration": &FinishMigration{},
	"PeerHello": &PeerHello{}, "PeerHoldRequest": &PeerHoldRequest{}, "PeerHold": &PeerHold{}, "PeerLendRequest": &PeerLendRequest{}, "PeerClaim": &PeerClaim{}, "PeerClaimed": &PeerClaimed{}, "PeerTokenRequest": &PeerTokenRequest{}, "PeerToken": &PeerToken{}, "PeerTokens": &PeerTokens{}, "PeerMakeRequest": &PeerMakeRequest{}, "PeerMade": &PeerMade{},
	"PeerMove": &PeerMove{}, "MovedLUN": &MovedLUN{}, "UnitRecord": &UnitRecord{}, "PeerMoveAnswer": &PeerMoveAnswer{},
	"DiffRanges": &DiffRanges{}, "DiffRange": &DiffRange{}, "Diff": &Diff{},
	"Stream": &Stream{}, "Received": &Received{}, "Partial": &Partial{},
	"ReplicaRequest": &ReplicaRequest{}, "ReplicaAnswer": &ReplicaAnswer{}, "ReplicaSource": &ReplicaSource{}, "Replica": &Replica{}, "ReplicaProgress": &ReplicaProgress{}, "ReplicaRound": &ReplicaRound{},
	"ReplicaStart": &ReplicaStart{}, "ReplicaRun": &ReplicaRun{}, "ReplicaFailover": &ReplicaFailover{}, "ReplicaAdopted": &ReplicaAdopted{}, "ReplicaFailback": &ReplicaFailback{}, "ReplicaPause": &ReplicaPause{},
	"Snapshot": &Snapshot{}, "SnapshotPolicy": &SnapshotPolicy{}, "SnapshotRun": &SnapshotRun{}, "PrunedSnapshot": &PrunedSnapshot{},
	"DumpItem": &DumpItem{}, "CopyResult": &CopyResult{}, "Finding": &Finding{},
}

// TestWire compares the JSON of each type, with empty and with filled fields, with
// testdata. A difference breaks clients.
func TestWire(t *testing.T) {
	for name, v := range types {
		t.Run(name, func(t *testing.T) {
			empty, full := marshal(t, v), ""
			fields.Fill(v)
			full = marshal(t, v)
			got, file := empty+full, filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the JSON is\n%s\n%s has\n%s", got, file, want)
			}
			back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			if err := json.Unmarshal([]byte(full), back); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, v) {
				t.Errorf("read back it is %+v, was %+v", back, v)
			}
		})
	}
}

// TestTypes checks that TestWire has every type of the package, and that every field
// has an explicit name in JSON.
func TestTypes(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if types[n.Name.Name] == nil {
					t.Errorf("%s: type %s is not in the table of this test", name, n.Name)
				}
			case *ast.StructType:
				for _, f := range n.Fields.List {
					if len(f.Names) > 0 && (f.Tag == nil || !strings.Contains(f.Tag.Value, `json:"`)) {
						t.Errorf("%s: field %s has no name for JSON", name, f.Names[0])
					}
				}
			}
			return true
		})
	}
	files, err := fs.Glob(os.DirFS("testdata"), "*.json")
	if err != nil || len(files) != len(types) {
		t.Errorf("%d files in testdata for %d types: %v", len(files), len(types), err)
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}
