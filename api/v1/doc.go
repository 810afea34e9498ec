// Package v1 has the JSON of version 1: what requests to /v1 and their answers look
// like (docs/openapi.yaml), and what odx prints with --json. Its types are nothing
// but that. A field that is renamed or removed here breaks clients. One that is added to
// a request has omitempty or omitzero: older servers refuse keys that they do not know.
// The rest of odx has types of its own, which package api converts, so that nothing
// else changes the wire; what is durable has records of its own, see docs/formats.md.
//
// Times are RFC 3339, sizes and offsets are bytes, identifiers are hexadecimal.
package v1
