package api

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	v1 "odx/api/v1"
)

// TestSpecificationNamesEveryField: docs/openapi.yaml and package v1 have the same
// fields, in requests and in answers.
func TestSpecificationNamesEveryField(t *testing.T) {
	doc := specification(t)
	for name, v := range map[string]any{
		"Store": v1.Store{}, "Status": v1.Status{}, "Volume": v1.Volume{}, "File": v1.File{}, "Disk": v1.Disk{},
		"Session": v1.Session{}, "Target": v1.Target{}, "Discovery": v1.Discovery{}, "CreateTarget": v1.CreateTarget{}, "LUN": v1.LUN{},
		"AddUser": v1.AddUser{}, "SetUser": v1.SetUser{}, "AddAccess": v1.AddAccess{}, "Reloaded": v1.Reloaded{}, "LUNStats": v1.LUNStats{},
		"Migration": v1.Migration{}, "TokenInfo": v1.TokenInfo{}, "CopyStats": v1.CopyStats{}, "Damage": []v1.Damaged{},
		"Stream": v1.Stream{}, "Received": v1.Received{}, "Partial": v1.Partial{},
	} {
		wantFields(t, "schema "+name, doc.Components.Schemas[name], v)
	}
	wantFields(t, "a failure", doc.Components.Responses["Failure"].Value.Content["application/json"].Schema, v1.Failure{})
	for name, v := range map[string]any{
		"POST /v1/store/scrub": v1.ScrubRequest{}, "POST /v1/volumes": v1.CreateVolume{}, "PATCH /v1/volumes/{name}": v1.Resize{},
		"POST /v1/volumes/{name}/snapshot": v1.NewName{}, "POST /v1/volumes/{name}/clone": v1.NewName{},
		"POST /v1/volumes/{name}/rename": v1.NewName{}, "POST /v1/volumes/{name}/revert": v1.Revert{},
		"POST /v1/volumes/{name}/start": v1.Resize{}, "POST /v1/volumes/{name}/finish": v1.FinishVolume{},
		"POST /v1/files": v1.CreateFile{}, "PATCH /v1/files/{name}": v1.Resize{}, "POST /v1/files/{name}/rename": v1.NewName{},
		"POST /v1/files/{name}/start": v1.StartFile{}, "POST /v1/files/{name}/finish": v1.FinishFile{}, "POST /v1/disks": v1.DiskRequest{},
		"POST /v1/migrations": v1.MigrationRequest{}, "POST /v1/migrations/{name}/finish": v1.FinishMigration{},
		"POST /v1/tokens": v1.TokenRequest{}, "POST /v1/tokens/write": v1.TokenWrite{}, "POST /v1/tokens/read": v1.TokenRead{},
		"POST /v1/tokens/revoke": v1.Token{},
	} {
		wantFields(t, "request "+name, operation(doc, name).RequestBody.Value.Content["application/json"].Schema, v)
	}
	for name, v := range map[string]any{
		"POST /v1/config/compare": v1.Compared{}, "POST /v1/store/check": v1.CheckResult{}, "POST /v1/store/clean": v1.CleanResult{}, "GET /v1/store/holds": []v1.StoreHold{}, "DELETE /v1/store/holds/{store}": v1.EndedHolds{}, "GET /v1/volumes/{name}/next-data": v1.DataRange{},
		"POST /v1/files/{name}/disk/check": v1.DiskCheck{}, "POST /v1/tokens": v1.MadeToken{}, "POST /v1/tokens/write": v1.TokenWritten{},
		"POST /v1/tokens/verify": v1.TokenVerified{}, "GET /v1/volumes": []v1.Volume{}, "GET /v1/files": []v1.File{}, "GET /v1/tokens": []v1.TokenInfo{},
	} {
		for status, answer := range operation(doc, name).Responses.Map() {
			if status != "default" {
				wantFields(t, "answer "+name, answer.Value.Content["application/json"].Schema, v)
			}
		}
	}
}

func operation(doc *openapi3.T, name string) *openapi3.Operation {
	method, path, _ := strings.Cut(name, " ")
	return doc.Paths.Value(path).GetOperation(method)
}

func wantFields(t *testing.T, what string, schema *openapi3.SchemaRef, v any) {
	t.Helper()
	got, want := schemaFields("", schema.Value), typeFields("", reflect.TypeOf(v))
	slices.Sort(got)
	slices.Sort(want)
	for _, field := range got {
		if !slices.Contains(want, field) {
			t.Errorf("%s: docs/openapi.yaml has %s, package v1 has not", what, field)
		}
	}
	for _, field := range want {
		if !slices.Contains(got, field) {
			t.Errorf("%s: package v1 has %s, docs/openapi.yaml has not", what, field)
		}
	}
}

// schemaFields returns the fields of a schema, with the way to them.
func schemaFields(at string, s *openapi3.Schema) (fields []string) {
	if s.Items != nil {
		return schemaFields(at+"[]", s.Items.Value)
	}
	for _, part := range s.AllOf {
		fields = append(fields, schemaFields(at, part.Value)...)
	}
	for name, property := range s.Properties {
		fields = append(fields, at+"."+name)
		fields = append(fields, schemaFields(at+"."+name, property.Value)...)
	}
	return fields
}

// typeFields returns those of a type.
func typeFields(at string, t reflect.Type) (fields []string) {
	switch {
	case t.Kind() == reflect.Pointer:
		return typeFields(at, t.Elem())
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		return typeFields(at+"[]", t.Elem())
	case t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]():
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			fields = append(fields, typeFields(at, f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields = append(fields, at+"."+name)
		fields = append(fields, typeFields(at+"."+name, f.Type)...)
	}
	return fields
}
